// SPDX-License-Identifier: Apache-2.0
import Linux

/// A file of an image that is not what it was when it was built.
package struct ImageDamage: Sendable, Equatable, CustomStringConvertible {
    package let path: String
    /// SHA-256 of what was built, in hexadecimal.
    package let wanted: String
    /// SHA-256 of what is there now, or why that cannot be read.
    package let found: String

    package var description: String {
        "\(path) is damaged: its SHA-256 is \(found) instead of \(wanted)"
    }
}

extension ImageStore {
    /// The files of an image that are damaged: of those that a start reads, or with its layers.
    ///
    /// Every byte is read. A file that cannot be read is damaged, too.
    package func damage(of image: ImageManifest, withLayers: Bool) async throws -> [ImageDamage] {
        let boot = bootFiles(image)
        var files = [(boot.kernel, image.kernel), (boot.initramfs, image.initramfs)]
        if withLayers { files += zip(boot.layers, image.layers.map(\.digest)) }
        let all = files
        return try await blocking { all.compactMap { ImageStore.damage(of: $0, digest: $1) } }
    }

    static func damage(of path: String, digest: String) -> ImageDamage? {
        let found: String
        do { found = try SHA256.file(path) } catch { found = "unknown (\(error))" }
        return found == digest ? nil : ImageDamage(path: path, wanted: digest, found: found)
    }
}
