// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// Images as one file, to carry them to another host.
///
/// The file is a tar, packed with zstd: `manifest.json`, `vmlinux`, `initramfs` and the layers as
/// `<sha256>.erofs`. The manifest holds the digest of every part, so it is also the checksum list.
extension ImageStore {
    /// Writes an image to a file, which appears only when it is complete, and returns the image.
    ///
    /// A file that is there stays, with the error EEXIST, unless it may be replaced.
    @discardableResult
    package func export(
        _ reference: String, to path: String, replacing: Bool = false,
        progress: (String) -> Void = { _ in }
    ) async throws -> ImageManifest {
        guard let image = try resolve(reference) else { throw ImageError.missing(reference) }
        let tar = try tool("tar", package: "tar")
        _ = try tool("zstd", package: "zstd")
        let boot = bootFiles(image)
        let fresh = "\(path).new.\(getpid())"
        let file = try ImageStore.openNew(fresh, for: path)
        defer { try? Files.remove(fresh) }
        progress("packing \(image.bytes >> 20) MiB")
        // `--dereference`: the file that a link means; `--transform`: no folders in the archive.
        // By descriptor: tar would take a name with a colon for another host's.
        var program = Program(
            tar,
            [
                "--create", "--file", "/proc/self/fd/3", "--use-compress-program",
                "zstd -q -T0 -3", "--format=gnu", "--dereference", "--hard-dereference",
                "--owner=0", "--group=0", "--mtime=@0", "--transform", "s,^.*/,,",
                "--absolute-names", "--", "\(folder(image.digest))/manifest.json", boot.kernel,
                boot.initramfs,
            ] + boot.layers)
        program.descriptors[3] = file.raw
        let output = try await program.capture()
        guard output.exit.isSuccess else {
            if output.errorText.contains("No space left") { throw ImageError.noSpace(path: path) }
            throw ImageError.failed(
                image: image.name, step: "writing \(path)", output: output.errorText)
        }
        try file.sync()
        if replacing {
            try Files.rename(fresh, path)
        } else {
            try Files.renameNew(fresh, path)
        }
        try Files.syncFolder(Files.parent(path))
        return image
    }

    /// A file of ours and new: in a folder like /tmp somebody might have put a link there.
    private static func openNew(
        _ fresh: String, for path: String
    ) throws(SystemError) -> Descriptor {
        do {
            return try Descriptor.open(
                fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o644)
        } catch {
            throw SystemError("write \(path)", error.code)
        }
    }

    /// Takes an image from a file; every part is checked against its digest before it counts.
    ///
    /// The file may come from anywhere: nothing is unpacked but what its manifest announces.
    @discardableResult
    package func `import`(
        _ path: String, as name: String? = nil, progress: (String) -> Void = { _ in }
    ) async throws -> ImageManifest {
        let zstd = try tool("zstd", package: "zstd")
        if let name, !ImageStore.isName(name) { throw ImageError.badName(name) }
        let file = try Descriptor.open(path, O_RDONLY | O_NONBLOCK)
        var info = stat()
        try check("stat \(path)") { fstat(file.raw, &info) }
        guard info.st_mode & S_IFMT == S_IFREG else {
            throw ImageError.damaged(path: path, reason: "it is not a file")
        }
        // zstd(1) unpacks other formats as well, some of which may ask for any amount of memory.
        guard try file.read(4) == [0x28, 0xb5, 0x2f, 0xfd] else {
            throw ImageError.damaged(path: path, reason: "it is not an exported image")
        }
        try check("seek \(path)") { lseek(file.raw, 0, SEEK_SET) }
        try WorkFolder.sweep(root)
        let work = try WorkFolder.make(root)
        defer { try? work.remove() }
        progress("unpacking")
        var image = try await unpack(path, file, with: zstd, into: work.path)
        image.name = name ?? image.name
        guard ImageStore.isName(image.name) else { throw ImageError.badName(image.name) }
        progress("checking")
        try await verify(image, in: work.path, from: path)
        try await adopt(image, from: work.path)
        return image
    }

    private func unpack(
        _ path: String, _ file: borrowing Descriptor, with zstd: String, into work: String
    ) async throws -> ImageManifest {
        let (input, output) = try Pipe().split()
        var program = Program(zstd, ["-q", "-d", "-c"])
        program.descriptors = [0: file.raw, 1: output]
        let child: Child
        do {
            defer { close(output) }
            child = try program.spawn()
        } catch {
            close(input)
            throw error
        }
        let result: Result<ImageManifest, any Error>
        do {
            result = .success(
                try await withTaskCancellationHandler {
                    try await blocking {
                        // Closed before the wait below: zstd must not wait for a reader.
                        let input = Descriptor(owning: input)
                        return try ImageArchive(path: path, input: input.raw).unpack(into: work)
                    }
                } onCancel: {
                    child.signal(SIGKILL)
                })
        } catch {
            child.signal(SIGKILL)
            result = .failure(error)
        }
        let exit = try await child.wait()
        try Task.checkCancellation()
        do {
            let image = try result.get()
            guard exit.isSuccess else {
                throw ImageError.damaged(path: path, reason: "it is cut off or changed")
            }
            return image
        } catch let error as SystemError where error.isNoSpace {
            throw ImageError.noSpace(path: root)
        }
    }

    private func verify(
        _ image: ImageManifest, in work: String, from path: String
    ) async throws {
        let parts =
            [("initramfs", image.initramfs), ("vmlinux", image.kernel)]
            + image.layers.map { ("\($0.digest).erofs", $0.digest) }
        for (file, digest) in parts {
            guard try await blocking({ try SHA256.file("\(work)/\(file)") }) == digest else {
                throw ImageError.damaged(path: path, reason: "'\(file)' was changed")
            }
        }
    }

    /// Moves verified parts into the store.
    private func adopt(_ image: ImageManifest, from work: String) async throws {
        try system { () throws(SystemError) in
            for layer in Set(image.layers.map(\.digest)) {
                try keep("\(work)/\(layer).erofs", .erofs, digest: layer)
            }
            try keep("\(work)/vmlinux", .vmlinux, digest: image.kernel)
        }
        let initramfs = try system { () throws(SystemError) in
            try Files.read("\(work)/initramfs", limit: Int(ImageArchive.bootLimit))
        }
        // The same image may be here already, and not be what it was.
        try add(image, initramfs: initramfs, isImported: true, verify: true)
    }
}
