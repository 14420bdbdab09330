// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux

/// What an image consists of: the content of `manifest.json`.
package struct ImageManifest: Sendable, Equatable {
    /// One read-only erofs file.
    package struct Layer: Sendable, Equatable {
        /// SHA-256 of the file, in hexadecimal.
        package let digest: String
        package let bytes: Int64
        /// How a guest checks it as it reads it; nil in layers of before there was such a check.
        package var check: Check?

        /// The hash tree at the end of a layer's file, for dm-verity.
        package struct Check: Sendable, Equatable {
            /// The hash of the tree's root, in hexadecimal.
            package let rootHash: String
            /// Bytes of the content; the tree follows it.
            package let contentBytes: Int64
        }
    }

    package var name: String
    /// The layers, the lowest first.
    package var layers: [Layer]
    /// SHA-256 of the uncompressed ELF kernel.
    package var kernel: String
    /// SHA-256 of the initramfs.
    package var initramfs: String
    package var commandLine: String
    /// Every package and its version, the kernel's included.
    package var packages: [String: String]
    /// Seconds since 1970.
    package var createdAt: Int64
    /// What its services want open in the guest's firewall, as far as they say so.
    package var ports: [ProtocolPort] = []

    /// An older martlet would use layers with a hash tree without checking them.
    static let newestFormat: Int64 = 2
    private var format: Int64 { layers.contains { $0.check != nil } ? 2 : 1 }
    // A manifest may come from anywhere: with these bounds, sums and times stay numbers.
    private static let mostBytes: Int64 = 1 << 50
    private static let mostLayers = 64
    /// The end of the year 9999.
    private static let lastMoment: Int64 = 253_402_300_799

    /// What decides how a VM behaves; two builds with the same digest are the same image.
    package var digest: String {
        let lines = ["martlet-image \(format)", kernel, initramfs, commandLine]
        let parts = layers.map { layer in
            layer.digest + (layer.check.map { " \($0.rootHash) \($0.contentBytes)" } ?? "")
        }
        return SHA256.hex((lines + parts).joined(separator: "\n").utf8)
    }

    /// Whether guests check every byte of the system as they read it.
    package var isCheckedAtRead: Bool { layers.allSatisfy { $0.check != nil } }

    /// What guest/verity.c reads: a line for each layer, the lowest first; nil where a layer has no
    /// hash tree.
    var verityList: String? {
        guard isCheckedAtRead else { return nil }
        return layers.compactMap(\.check).map { "\($0.contentBytes) \($0.rootHash)\n" }.joined()
    }

    /// Bytes of all parts; layers are shared with other images.
    package var bytes: Int64 { layers.reduce(0) { $0 + $1.bytes } }
}

extension ImageManifest {
    package var json: JSONValue {
        .object(
            [
                .init("format", .integer(format)),
                .init("name", .string(name)),
                .init("digest", .string("sha256:" + digest)),
                .init("createdAt", .integer(createdAt)),
                .init("commandLine", .string(commandLine)),
                .init("kernel", .string(kernel)),
                .init("initramfs", .string(initramfs)),
                .init(
                    "layers",
                    .array(layers.map { .object($0.members) })),
                .init(
                    "packages",
                    .object(
                        packages.sorted { $0.key < $1.key }.map { .init($0.key, .string($0.value)) }
                    )),
            ] + ImageManifest.members(ports))
    }

    /// `ports`, where there are any: `["80/tcp"]`.
    static func members(_ ports: [ProtocolPort]) -> [JSONValue.Member] {
        guard !ports.isEmpty else { return [] }
        let texts = ports.map { JSONValue.string("\($0.port)/\($0.transport.rawValue)") }
        return [.init("ports", .array(texts))]
    }

    static func ports(_ json: JSONValue) -> [ProtocolPort] {
        (json["ports"]?.elements ?? []).compactMap { element in
            let parts = (element.string ?? "").split(separator: "/").map(String.init)
            guard parts.count == 2, let number = UInt16(parts[0]), number > 0,
                let transport = TransportProtocol(rawValue: parts[1])
            else { return nil }
            return ProtocolPort(transport, number)
        }
    }

    /// Reads a manifest; `path` names the file in errors.
    init(_ json: JSONValue, path: String) throws(ImageError) {
        guard let format = json["format"]?.integer else {
            throw .damaged(path: path, reason: "it has no format")
        }
        guard format <= ImageManifest.newestFormat else { throw .newerFormat(path: path) }
        let layers = (json["layers"]?.elements ?? []).compactMap { layer -> Layer? in
            guard let layer = Layer(layer), (0...ImageManifest.mostBytes).contains(layer.bytes)
            else { return nil }
            return layer
        }
        guard let name = json["name"]?.string, let kernel = json["kernel"]?.string,
            isDigest(kernel),
            let initramfs = json["initramfs"]?.string, isDigest(initramfs),
            let commandLine = json["commandLine"]?.string,
            // The kernel's command line is one line.
            commandLine.utf8.allSatisfy({ $0 >= 32 && $0 != 127 }),
            let createdAt = json["createdAt"]?.integer,
            (0...ImageManifest.lastMoment).contains(createdAt),
            let members = json["packages"]?.members,
            (1...ImageManifest.mostLayers).contains(layers.count),
            layers.count == json["layers"]?.elements.count
        else { throw .damaged(path: path, reason: "a part of it is missing") }
        var packages: [String: String] = [:]
        for member in members { packages[member.key] = member.value.string }
        self.init(
            name: name, layers: layers, kernel: kernel, initramfs: initramfs,
            commandLine: commandLine, packages: packages, createdAt: createdAt)
        ports = ImageManifest.ports(json)
        guard json["digest"]?.string == "sha256:" + digest else {
            throw .damaged(path: path, reason: "its digest does not fit to its content")
        }
    }
}

extension ImageManifest.Layer {
    /// The members of its object, in manifests and in the records of recipes.
    var members: [JSONValue.Member] {
        [.init("digest", .string(digest)), .init("bytes", .integer(bytes))]
            + (check.map {
                [
                    .init("rootHash", .string($0.rootHash)),
                    .init("contentBytes", .integer($0.contentBytes)),
                ]
            } ?? [])
    }

    /// Nil where a part is missing or cannot be right.
    init?(_ json: JSONValue) {
        guard let digest = json["digest"]?.string, isDigest(digest),
            let bytes = json["bytes"]?.integer
        else { return nil }
        self.init(digest: digest, bytes: bytes)
        guard let rootHash = json["rootHash"] else { return }
        guard let root = rootHash.string, isDigest(root),
            let content = json["contentBytes"]?.integer,
            content > 0, content % LayerSteps.block == 0,
            // A single block, as of a recipe that adds nothing, is its own root: it has no tree.
            content < bytes || (content == bytes && bytes == LayerSteps.block)
        else { return nil }
        check = Check(rootHash: root, contentBytes: content)
    }
}

/// Whether the text is 64 hexadecimal digits: only such text may become part of a path.
func isDigest(_ text: String) -> Bool {
    text.utf8.count == 64
        && text.utf8.allSatisfy { (48...57).contains($0) || (97...102).contains($0) }
}

/// How one package differs between two images.
package struct PackageChange: Sendable, Equatable {
    package let package: String
    /// Nil where the package is new.
    package let from: String?
    /// Nil where the package is gone.
    package let to: String?
}

extension ImageManifest {
    /// What became of the packages from this image to another, by name; pure.
    package func changes(to other: ImageManifest) -> [PackageChange] {
        Set(packages.keys).union(other.packages.keys).sorted().compactMap { name in
            let from = packages[name]
            let to = other.packages[name]
            return from == to ? nil : PackageChange(package: name, from: from, to: to)
        }
    }
}
