// SPDX-License-Identifier: Apache-2.0

/// Makes the fleet from the documents: numbers what is counted, merges VMs, reads every value.
struct FleetReader {
    private(set) var fleet = Fleet()
    private(set) var places: Places
    private(set) var layers: [String: [Layer]] = [:]
    private let documents: Documents
    private let sources: FleetFile.Sources
    private let diagnostics: Diagnostics
    private var profiles: [String: Layer] = [:]
    private var services: ServiceReader
    private var defaults: Layer?

    init(_ documents: Documents, _ sources: FleetFile.Sources, _ diagnostics: Diagnostics) {
        self.documents = documents
        self.sources = sources
        self.diagnostics = diagnostics
        places = Places(diagnostics)
        services = ServiceReader(sources, diagnostics)
    }

    mutating func readFleet() {
        guard documents.root != nil else { return }
        if documents.named["vms"] == nil, documents.root?["vms"] == nil {
            diagnostics.add(
                documents.start, "", "'vms' is required; write 'vms: {}' for a fleet without any")
        }
        fleet.name = fleetName()
        readSections()
        readPartials()
        for vm in documents.named["vms"] ?? [] { readVMs(vm) }
        readAdded()
    }

    private func scope(_ node: Node, _ path: Path) -> Scope {
        Scope(node: node, path: path, diagnostics: diagnostics)
    }

    private mutating func single<T: Declared>(_ name: String, _ type: T.Type) -> T? {
        guard let entry = documents.single[name], !entry.value.isNull else { return nil }
        places.add(name, entry.value)
        return T.read(scope(entry.value, .key(.root, name)))
    }

    /// The given name, or that of the file's folder.
    private mutating func fleetName() -> String {
        if let name = single("fleet", String.self) {
            if !isName(name) { places.fail("fleet", [], nameRule(name)) }
            return name
        }
        let path = join(sources.directory, documents.paths.first ?? "")
        let folder = folder(path).split(separator: "/").last.map(String.init) ?? ""
        let letters = folder.lowercased().utf8.map { isLetterOrDigit($0) ? $0 : UInt8(ascii: "-") }
        let trimmed = String(decoding: letters, as: UTF8.self).split(separator: "-")
            .joined(separator: "-").prefix(32)
        return isName(String(trimmed)) ? String(trimmed) : "fleet"
    }

    private mutating func readSections() {
        fleet.publishing = single("publishing", Publishing.self) ?? Publishing()
        fleet.advertise = single("advertise", Advertisement.self) ?? .none
        fleet.allow = list("allow")
        fleet.trusted = list("trusted")
        fleet.images = section("images") { (recipe: inout ImageRecipe, name) in recipe.name = name }
        fleet.secrets = section("secrets") { (secret: inout Secret, name) in secret.name = name }
        fleet.hosts = section("hosts") { (host: inout Host, name) in host.name = name }
        for entry in documents.named["networks"] ?? [] {
            for (name, node) in numbered(entry, "networks") {
                let path = Path.key(.key(.root, "networks"), name)
                places.add("networks." + name, node)
                guard var network = Network.read(scope(node, path)) else { continue }
                network.name = name
                if network.ipv6, network.subnet6 == nil, network.kind == .nat {
                    network.subnet6 = Derived.subnet6(fleet: fleet.name, network: name)
                }
                fleet.networks.append(network)
            }
        }
    }

    private mutating func list<T: Declared>(_ name: String) -> [T] {
        let items = documents.items[name] ?? []
        for (index, item) in items.enumerated() { places.add("\(name)[\(index)]", item.node) }
        return items.compactMap { T.read($0) }
    }

    private mutating func section<T: Record>(
        _ section: String, _ named: (inout T, String) -> Void
    ) -> [T] {
        (documents.named[section] ?? []).compactMap { entry in
            places.add(section + "." + entry.name, entry.node)
            let path = Path.key(.key(.root, section), entry.name)
            guard var value = T.read(scope(entry.node, path)) else { return nil }
            named(&value, entry.name)
            return value
        }
    }

    /// The entry itself, or with `count` that many of it; names checked either way.
    private mutating func numbered(
        _ entry: Documents.Named, _ section: String
    ) -> [(name: String, node: Node)] {
        let path = Path.key(.key(.root, section), entry.name)
        var all = [(name: entry.name, node: entry.node)]
        if let count = entry.node["count"], !count.isNull {
            let scope = scope(count, .key(path, "count"))
            guard let number = Int.read(scope) else { return [] }
            guard (1...4096).contains(number) else {
                scope.fail("expected a number from 1 to 4096, found \(number)")
                return []
            }
            let pattern = entry.name.contains("{n}") ? entry.name : entry.name + "-{n}"
            let node = Node(
                .mapping(entry.node.entries.filter { $0.name != "count" }), entry.node.mark)
            all = (1...number).map { (numberedText(pattern, $0), node.numbered($0)) }
        }
        return all.filter { item in
            if isName(item.name) { return true }
            diagnostics.add(entry.mark, path.text, nameRule(item.name))
            return false
        }
    }

    private mutating func readPartials() {
        if let entry = documents.single["defaults"] {
            defaults = Layer(label: "defaults", node: entry.value)
            check(entry.value, .key(.root, "defaults"), also: ["profiles"])
        }
        for entry in documents.named["profiles"] ?? [] {
            profiles[entry.name] = Layer(label: "profile \(entry.name)", node: entry.node)
            check(entry.node, .key(.key(.root, "profiles"), entry.name), also: [])
        }
    }

    /// Reads a partial VM where it stands, so that its mistakes are shown there and once.
    private func check(_ node: Node, _ path: Path, also allowed: Set<String>) {
        let scope = scope(node, path)
        guard let entries = scope.mapping() else { return }
        for entry in entries where mergeKeys.contains(entry.name) && !allowed.contains(entry.name) {
            scope.at(entry).fail("'\(entry.name)' can stand only in an entry of 'vms'")
        }
        let own = entries.filter { !mergeKeys.contains($0.name) }
        // `10.20{n}.0.2` is an address only after the number is put in: then it is read with a VM.
        guard !node.hasNumber else { return }
        _ = VM.read(self.scope(Node(.mapping(own), node.mark), path))
    }

    private mutating func readVMs(_ entry: Documents.Named) {
        let path = Path.key(.key(.root, "vms"), entry.name)
        let own = scope(entry.node, path)
        guard own.mapping() != nil else { return }
        let isCounted = entry.node["count"].map { !$0.isNull } ?? false
        for (index, (name, node)) in numbered(entry, "vms").enumerated() {
            let override = override(name)
            if override != nil, isAdded(name) {
                places.add("overrides." + name, override?.node ?? node)
                places.warn(
                    "overrides." + name, [],
                    "'\(name)' is in the fleet file by now, and this still decides what it is; "
                        + "remove this file to let the fleet file decide")
            }
            add(
                name, [Layer(label: "", node: node), override].compactMap { $0 }, path,
                number: isCounted ? index + 1 : nil)
        }
    }

    /// The VMs that verbs have added to this fleet and its file does not name.
    private mutating func readAdded() {
        for name in sources.overrides.keys.sorted()
        where layers[name] == nil && isName(name) && isAdded(name) {
            guard let layer = override(name) else { continue }
            add(name, [layer], .key(.key(.root, "vms"), name), number: nil)
        }
    }

    /// Whether an override is a whole VM of this fleet: several fleets share the folder, and what
    /// is no VM of ours is none of our business, even where it is broken.
    private func isAdded(_ name: String) -> Bool {
        guard let document = sources.overrides[name] else { return false }
        let node = parseYAML(document.bytes, file: 0, Diagnostics())
        guard case .scalar(let text, _)? = node?[addKey]?.content else { return false }
        return text == fleet.name
    }

    /// Merges a VM from its own parts and what they name, and reads it.
    private mutating func add(_ name: String, _ own: [Layer], _ path: Path, number: Int?) {
        var parts = [defaults].compactMap { $0 } + profileLayers(own, path) + own
        if let number {
            parts = parts.map { Layer(label: $0.label, node: $0.node.numbered(number)) }
        }
        let service = addService(to: &parts, name, path)
        let merged = mergeVM(parts)
        layers[name] = parts
        let vmPath = Path.key(.key(.root, "vms"), name)
        places.add("vms." + name, merged)
        var vm = VM.readPartially(scope(merged, vmPath))
        vm.name = name
        derive(&vm, web: service?.web)
        fleet.vms.append(vm)
    }

    private func override(_ name: String) -> Layer? {
        guard let document = sources.overrides[name] else { return nil }
        let file = diagnostics.addFile(document.path)
        guard let node = parseYAML(document.bytes, file: file, diagnostics) else { return nil }
        let scope = scope(node, .root)
        guard let entries = scope.mapping(), !node.isNull else { return nil }
        let own = Node(.mapping(entries.filter { $0.name != addKey }), node.mark)
        check(own, .root, also: ["profiles"])
        return Layer(label: "override", node: own)
    }

    /// The profiles that the strongest of defaults, VM and override names.
    private func profileLayers(_ parts: [Layer], _ path: Path) -> [Layer] {
        let named = ([defaults].compactMap { $0 } + parts).last { $0.node["profiles"] != nil }
        guard let list = named?.node["profiles"] else { return [] }
        let items = scope(list, .key(path, "profiles")).items() ?? []
        return items.compactMap { item in
            guard let name = String.read(item) else { return nil }
            if let layer = profiles[name] { return layer }
            item.fail("no profile '\(name)'" + nearest(name, in: profiles.keys))
            return nil
        }
    }

    /// Puts what the VM's service brings below all that the file says of the VM, save the defaults.
    private mutating func addService(
        to parts: inout [Layer], _ name: String, _ path: Path
    ) -> Service? {
        guard let node = parts.last(where: { $0.node["service"] != nil })?.node["service"] else {
            return nil
        }
        let scope = scope(node, .key(path, "service"))
        guard let file = services.file(scope) else { return nil }
        let service = file.service
        let declared = fleet.secrets
        let expansion = services.expand(file, for: name, mergeVM(parts), scope) { secret in
            declared.contains { $0.name == secret } || places.contains("secrets." + secret)
        }
        guard let expansion else { return service }
        for secret in expansion.secrets {
            places.add("secrets." + secret.name, file.node)
            fleet.secrets.append(secret)
        }
        let image = Service.imageName(service.id)
        if !places.contains("images." + image) {
            places.add("images." + image, file.node["image"] ?? file.node)
            fleet.serviceImages.append(service.imageRecipe)
        }
        parts.insert(expansion.layer, at: defaults == nil ? 0 : 1)
        return service
    }

    /// Fills in what follows from names.
    private func derive(_ vm: inout VM, web: Port?) {
        for index in vm.publish.indices where vm.publish[index].port == nil {
            vm.publish[index].port = web ?? (vm.service == nil ? 80 : nil)
        }
        for index in vm.interfaces.indices {
            if vm.interfaces[index].mac == nil {
                vm.interfaces[index].mac = Derived.mac(
                    fleet: fleet.name, vm: vm.name, interface: index)
            }
            if vm.interfaces[index].tap == nil, !vm.interfaces[index].isUser {
                vm.interfaces[index].tap = Derived.tap(
                    fleet: fleet.name, vm: vm.name, interface: index)
            }
        }
    }
}

/// What a name may be, and why.
func nameRule(_ name: String) -> String {
    "'\(name)' is no name: it becomes a host name and part of file names, so it takes a-z, 0-9 "
        + "and inner '-', at most 32 characters"
}
