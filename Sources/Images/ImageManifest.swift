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

    static let format: Int64 = 1
    // A manifest may come from anywhere: with these bounds, sums and times stay numbers.
    private static let mostBytes: Int64 = 1 << 50
    private static let mostLayers = 64
    /// The end of the year 9999.
    private static let lastMoment: Int64 = 253_402_300_799

    /// What decides how a VM behaves; two builds with the same digest are the same image.
    package var digest: String {
        let lines = ["martlet-image \(ImageManifest.format)", kernel, initramfs, commandLine]
        return SHA256.hex((lines + layers.map(\.digest)).joined(separator: "\n").utf8)
    }

    /// Bytes of all parts; layers are shared with other images.
    package var bytes: Int64 { layers.reduce(0) { $0 + $1.bytes } }
}

extension ImageManifest {
    package var json: JSONValue {
        .object([
            .init("format", .integer(ImageManifest.format)),
            .init("name", .string(name)),
            .init("digest", .string("sha256:" + digest)),
            .init("createdAt", .integer(createdAt)),
            .init("commandLine", .string(commandLine)),
            .init("kernel", .string(kernel)),
            .init("initramfs", .string(initramfs)),
            .init(
                "layers",
                .array(
                    layers.map {
                        .object([
                            .init("digest", .string($0.digest)), .init("bytes", .integer($0.bytes)),
                        ])
                    })),
            .init(
                "packages",
                .object(
                    packages.sorted { $0.key < $1.key }.map { .init($0.key, .string($0.value)) })),
        ])
    }

    /// Reads a manifest; `path` names the file in errors.
    init(_ json: JSONValue, path: String) throws(ImageError) {
        guard let format = json["format"]?.integer else {
            throw .damaged(path: path, reason: "it has no format")
        }
        guard format <= ImageManifest.format else { throw .newerFormat(path: path) }
        let layers = (json["layers"]?.elements ?? []).compactMap { layer -> Layer? in
            guard let digest = layer["digest"]?.string, isDigest(digest),
                let bytes = layer["bytes"]?.integer,
                (0...ImageManifest.mostBytes).contains(bytes)
            else { return nil }
            return Layer(digest: digest, bytes: bytes)
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
        guard json["digest"]?.string == "sha256:" + digest else {
            throw .damaged(path: path, reason: "its digest does not fit to its content")
        }
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
