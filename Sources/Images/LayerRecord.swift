// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux

/// What building a recipe gave: the content of `cache/recipes/<key>.json`.
struct LayerRecord: Equatable {
    /// The parts that only the lowest layer brings.
    struct Boot: Equatable {
        /// SHA-256 of the ELF kernel.
        let kernel: String
        /// SHA-256 of the archive with the modules for the initramfs.
        let modules: String
        let package: String
        let version: String
    }

    let layer: ImageManifest.Layer
    /// Every Debian package of the chain up to this layer, and its version.
    let packages: [String: String]
    let boot: Boot?
    /// The names of its sources in `cache/sources`.
    let sources: [String]
    /// The ports that it wants open in the guest's firewall.
    let ports: [ProtocolPort]

    init(
        layer: ImageManifest.Layer, packages: [String: String], boot: Boot?, sources: [String] = [],
        ports: [ProtocolPort] = []
    ) {
        self.layer = layer
        self.packages = packages
        self.boot = boot
        self.sources = sources
        self.ports = ports
    }

    /// Reads a record; nil when there is none or it is damaged: then the layer is built again.
    init?(path: String) {
        guard let text = try? Files.readText(path), let json = try? JSONValue(parsing: text),
            let layer = json["layer"].flatMap(ImageManifest.Layer.init),
            let packages = json["packages"]
        else { return nil }
        self.layer = layer
        self.packages = Dictionary(
            packages.members.map { ($0.key, $0.value.string ?? "") }, uniquingKeysWith: { $1 })
        ports = ImageManifest.ports(json)
        sources = (json["sources"]?.elements ?? []).compactMap(\.string)
        if let boot = json["boot"], let kernel = boot["kernel"]?.string,
            let modules = boot["modules"]?.string, isDigest(kernel), isDigest(modules),
            let package = boot["package"]?.string, let version = boot["version"]?.string
        {
            self.boot = Boot(kernel: kernel, modules: modules, package: package, version: version)
        } else {
            boot = nil
        }
    }

    var json: JSONValue {
        var members: [JSONValue.Member] = [.init("layer", .object(layer.members))]
        if let boot {
            members.append(
                .init(
                    "boot",
                    [
                        "kernel": .string(boot.kernel), "modules": .string(boot.modules),
                        "package": .string(boot.package), "version": .string(boot.version),
                    ]))
        }
        let list = packages.sorted { $0.key < $1.key }
        members.append(.init("packages", .object(list.map { .init($0.key, .string($0.value)) })))
        if !sources.isEmpty {
            members.append(.init("sources", .array(sources.map(JSONValue.string))))
        }
        members += ImageManifest.members(ports)
        return .object(members)
    }
}

extension LayerRecipe {
    /// What decides the content of a layer, short of the packages' versions.
    ///
    /// That is the script, the files, the sources' digests and the layer below. `mirror` is where packages come from; nil for mmdebstrap's own choice.
    func key(above parent: String?, mirror: String?) -> String {
        var lines = ["martlet-layer 2", parent ?? "-", mirror ?? "-"]
        lines.append(SHA256.hex(LayerSteps.render(steps(hasParent: parent != nil)).utf8))
        lines += files.map(\.digest)
        lines += sources.map { SHA256.hex($0.identity.utf8) }
        // The lowest layer brings the kernel.
        if parent == nil { lines += Kernel.rootModules + ["-"] + Kernel.laterModules }
        return SHA256.hex(lines.joined(separator: "\n").utf8)
    }

    func steps(hasParent: Bool) -> [Step] {
        hasParent ? LayerSteps.delta(self) : LayerSteps.base(self)
    }
}
