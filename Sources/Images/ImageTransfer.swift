// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// Images as one file, to carry them to another host.
///
/// The file is a tar, packed with zstd: `manifest.json`, `vmlinux`, `initramfs` and the layers as
/// `<sha256>.erofs`. The manifest holds the digest of every part, so it is also the checksum list.
extension ImageStore {
    /// Writes an image to a file, which appears only when it is complete.
    package func export(_ reference: String, to path: String) async throws {
        guard let image = try resolve(reference) else {
            throw ImageError.unknownImage(reference)
        }
        let tar = try tool("tar", package: "tar")
        _ = try tool("zstd", package: "zstd")
        let boot = bootFiles(image)
        let fresh = "\(path).new.\(getpid())"
        defer { try? Files.remove(fresh) }
        // `-h`: the file that a link means; `--transform`: no folders in the archive.
        let output = try await Program(
            tar,
            [
                "--create", "--file", fresh, "--use-compress-program", "zstd -q -T0 -3",
                "--dereference", "--hard-dereference", "--owner=0", "--group=0", "--mtime=@0",
                "--transform", "s,^.*/,,", "--absolute-names", "--",
                "\(folder(image.digest))/manifest.json", boot.kernel, boot.initramfs,
            ] + boot.layers
        ).capture()
        guard output.exit.isSuccess else {
            if output.errorText.contains("No space left") { throw ImageError.noSpace(path: path) }
            throw ImageError.failed(
                image: image.name, step: "writing \(path)", output: output.errorText)
        }
        try Files.rename(fresh, path)
    }

    /// Takes an image from a file; every part is checked against its digest before it counts.
    ///
    /// The file may come from anywhere: nothing is unpacked but the names that an image has.
    @discardableResult
    package func `import`(_ path: String, as name: String? = nil) async throws -> ImageManifest {
        let tar = try tool("tar", package: "tar")
        let common = ["--file", path, "--use-compress-program", "zstd -q"]
        let list = try await Program(tar, ["--list"] + common).capture()
        let entries = list.text.split(separator: "\n").map(String.init)
        guard list.exit.isSuccess, entries.contains("manifest.json") else {
            throw ImageError.damaged(path: path, reason: "it is not an exported image")
        }
        let known = ["manifest.json", "vmlinux", "initramfs"]
        for entry in entries where !known.contains(entry) {
            guard entry.hasSuffix(".erofs"), isDigest(String(entry.dropLast(6))) else {
                throw ImageError.damaged(path: path, reason: "it holds '\(entry)'")
            }
        }
        try WorkFolder.sweep(root)
        let work = try WorkFolder.make(root)
        defer { try? work.remove() }
        let output = try await Program(
            tar,
            ["--extract", "--no-same-owner", "--no-same-permissions", "-C", work.path] + common
        ).capture()
        guard output.exit.isSuccess else {
            if output.errorText.contains("No space left") { throw ImageError.noSpace(path: root) }
            throw ImageError.damaged(path: path, reason: output.errorText)
        }
        return try await adopt(work.path, from: path, as: name)
    }

    private func adopt(
        _ work: String, from path: String, as name: String?
    ) async throws -> ImageManifest {
        for entry in try Files.list(work) {
            var info = stat()
            guard lstat("\(work)/\(entry)", &info) == 0, info.st_mode & S_IFMT == S_IFREG else {
                throw ImageError.damaged(path: path, reason: "'\(entry)' is not a file")
            }
        }
        let text = try Files.readText("\(work)/manifest.json")
        guard let json = try? JSONValue(parsing: text) else {
            throw ImageError.damaged(path: path, reason: "its manifest is not JSON")
        }
        var image = try ImageManifest(json, path: path)
        func check(_ file: String, _ digest: String) async throws {
            guard Files.exists("\(work)/\(file)"),
                try await FileDigest.of("\(work)/\(file)") == digest
            else {
                throw ImageError.damaged(path: path, reason: "'\(file)' is missing or changed")
            }
        }
        try await check("initramfs", image.initramfs)
        try await check("vmlinux", image.kernel)
        for layer in image.layers { try await check("\(layer.digest).erofs", layer.digest) }
        for layer in image.layers { _ = try await take("\(work)/\(layer.digest).erofs", .erofs) }
        _ = try await take("\(work)/vmlinux", .vmlinux)
        image.name = name ?? image.name
        try add(image, initramfs: try Files.read("\(work)/initramfs"))
        return image
    }
}
