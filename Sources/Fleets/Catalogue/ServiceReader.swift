// SPDX-License-Identifier: Apache-2.0

/// Turns the service that a VM names into a partial VM, which is merged like a profile.
struct ServiceReader {
    private let sources: FleetFile.Sources
    private let diagnostics: Diagnostics
    /// What was read, by name; nil for what has mistakes, which are said once.
    private var files: [String: ServiceFile?] = [:]

    init(_ sources: FleetFile.Sources, _ diagnostics: Diagnostics) {
        self.sources = sources
        self.diagnostics = diagnostics
    }

    /// The service of a name that stands in a fleet file.
    mutating func file(_ scope: Scope) -> ServiceFile? {
        guard !scope.node.isNull, let name = String.read(scope), let find = sources.service else {
            return nil
        }
        if let known = files[name] { return known }
        var file: ServiceFile?
        do {
            // The name becomes part of a path: nothing but names of services may get there.
            if isName(name), let document = try find(name) {
                file = ServiceFile.read(name, document, diagnostics)
            } else {
                scope.fail(
                    "no service '\(name)' in the catalogue"
                        + nearest(name, in: sources.services))
            }
        } catch { scope.fail("cannot read the service '\(name)': \(error)") }
        files[name] = .some(file)
        return file
    }

    /// What one VM's service brings: a partial VM, and the secrets that are made for it.
    struct Expansion {
        let layer: Layer
        let secrets: [Secret]
    }

    /// Makes a service's partial VM for one VM; nil when what `with` says does not fit.
    ///
    /// `own` is what the VM says itself, with its profiles and the defaults.
    func expand(
        _ file: ServiceFile, for vm: String, _ own: Node, _ scope: Scope, declared: (String) -> Bool
    ) -> Expansion? {
        let service = file.service
        guard var values = values(of: service, vm, own["with"], scope) else { return nil }
        if case .sequence(let all)? = own["publish"]?.content,
            case .scalar(let host, _)? = all.first?["host"]?.content, isHostName(host)
        {
            values.host = host
        }
        let partial = file.node["vm"]?.filled(values)
        var entries = (partial?.entries ?? []).filter { $0.name != "credentials" }
        let image = file.node["image"]?.mark ?? file.node.mark
        func text(_ text: String, _ mark: Mark) -> Node { Node(.scalar(text, plain: false), mark) }
        func map(_ name: String, _ value: Node) -> Node {
            Node(.mapping([.init(name: name, mark: value.mark, value: value)]), value.mark)
        }
        entries.append(
            .init(name: "image", mark: image, value: text(Service.imageName(service.id), image)))
        var credentials = partial?["credentials"]?.entries ?? []
        var made: [Secret] = []
        for entry in file.node["secrets"]?.entries ?? [] {
            guard let secret = service.secrets[entry.name] else { continue }
            // The VM's own word on this credential decides, as on everything else.
            if own["credentials"]?[entry.name] != nil {
                values.secrets.insert(entry.name)
                continue
            }
            let name = "\(vm)-\(entry.name)"
            if !declared(name) {
                guard let form = secret.generate else {
                    if secret.optional { continue }
                    scope.fail(
                        "the service '\(service.id)' needs the secret '\(name)': \(secret.help) "
                            + "Declare it in 'secrets'")
                    return nil
                }
                var new = Secret(name: name)
                new.generate = form
                made.append(new)
            }
            values.secrets.insert(entry.name)
            credentials.append(
                .init(
                    name: entry.name, mark: entry.mark,
                    value: map("secret", text(name, entry.value.mark))))
        }
        if let environment = service.environment(values) {
            let mark = file.node["env"]?.mark ?? file.node.mark
            credentials.append(
                .init(
                    name: ServiceCredential.environment, mark: mark,
                    value: map("text", text(environment, mark))))
        }
        if !credentials.isEmpty {
            let mark = credentials[0].mark
            entries.append(
                .init(name: "credentials", mark: mark, value: Node(.mapping(credentials), mark)))
        }
        let node = Node(.mapping(entries), file.node.mark)
        return Expansion(
            layer: Layer(label: "service \(service.id)", node: node), secrets: made)
    }

    /// The value of each parameter; nil when one is missing or wrong.
    private func values(
        of service: Service, _ vm: String, _ with: Node?, _ scope: Scope
    ) -> ServiceValues? {
        var values = ServiceValues(vm: vm)
        var isRight = true
        let path = Path.key(parent(scope.path), "with")
        for entry in with?.entries ?? [] {
            let inner = Scope(
                node: entry.value, path: .key(path, entry.name), diagnostics: diagnostics)
            guard let parameter = service.parameters[entry.name] else {
                diagnostics.add(
                    entry.mark, inner.path.text,
                    "the service '\(service.id)' has no parameter '\(entry.name)'"
                        + nearest(entry.name, in: service.parameters.keys))
                isRight = false
                continue
            }
            if entry.value.isNull { continue }
            guard let text = inner.scalar() else {
                inner.expected("a text, a number, true or false")
                isRight = false
                continue
            }
            if let problem = parameter.problem(text) {
                inner.fail(problem)
                isRight = false
            }
            values.parameters[entry.name] = .init(text: text, mark: entry.value.mark)
        }
        for (name, parameter) in service.parameters.sorted(by: { $0.key < $1.key })
        where values.parameters[name] == nil {
            if let standard = parameter.standard {
                values.parameters[name] = .init(text: standard, mark: nil)
            } else if parameter.required {
                scope.fail(
                    "the service '\(service.id)' needs 'with: { \(name): … }': \(parameter.help)")
                isRight = false
            }
        }
        return isRight ? values : nil
    }

    private func parent(_ path: Path) -> Path {
        if case .key(let parent, _) = path { parent } else { path }
    }
}

extension Service {
    /// The variables that differ from VM to VM, as systemd's EnvironmentFile takes them; nil when
    /// there are none.
    ///
    /// An OCI image has no unit that could hold the others, so it gets all of them, and secrets by
    /// the paths that its program has for them; a variable with one that is not given is left out.
    func environment(_ values: ServiceValues) -> String? {
        var lines = ""
        let isOCI = image.oci != nil
        for (name, value) in env.sorted(by: { $0.key < $1.key }) {
            let template = Template(value)
            guard template.isOfVM || isOCI, let text = template.filled(values, isOCI: isOCI)
            else { continue }
            lines += "\(name)=\(quoted(text))\n"
        }
        return lines.isEmpty ? nil : lines
    }

    /// A value between double quotes, where systemd reads `\`, `"`, `$` and a backquote otherwise.
    private func quoted(_ text: String) -> String {
        var out = "\""
        for character in text {
            if "\\\"$`".contains(character) { out += "\\" }
            out.append(character)
        }
        return out + "\""
    }
}
