// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Synchronization

/// A dirty bitmap of a disk.
package struct DirtyBitmap: Sendable, Equatable {
    package let name: String
    /// Whether it takes note of what is written now.
    package let isRecording: Bool
    /// A crash may have cost it some of what was written: it tells nothing any more.
    package let isInconsistent: Bool

    package init(name: String, isRecording: Bool, isInconsistent: Bool) {
        self.name = name
        self.isRecording = isRecording
        self.isInconsistent = isInconsistent
    }
}

/// A disk that nothing uses, through QEMU's own tools.
///
/// They run as the VM's user: a qcow2 file can name other files, and the VM's user wrote it.
package struct StoppedDisk: Sendable {
    package let path: String
    package let isQCOW2: Bool
    package let user: UInt32?

    package init(path: String, isQCOW2: Bool, user: UInt32?) {
        self.path = path
        self.isQCOW2 = isQCOW2
        self.user = user
    }

    private var format: String { isQCOW2 ? "qcow2" : "raw" }

    private func program(_ tool: String, _ words: [String]) throws(StorageError) -> Program {
        guard let found = findProgram(tool) else {
            throw .missingTool(name: tool, package: "qemu-utils")
        }
        var program = Program(found, words)
        program.user = user
        program.group = user
        program.folder = "/"
        return program
    }

    @discardableResult
    private func image(_ words: [String], doing what: String) async throws -> Output {
        let output = try await program("qemu-img", words).capture()
        guard output.exit.isSuccess else {
            if output.errorText.contains("No space left") {
                throw StorageError.noSpace(path: path)
            }
            throw StorageError.failed(
                what: "\(what) of \(path)",
                output: output.errorText.isEmpty ? "\(output.exit)" : output.errorText)
        }
        return output
    }

    /// Bytes that the guest sees, and the bitmaps in the file; `inUse`: somebody may write to it.
    package func info(
        inUse: Bool = false
    ) async throws -> (bytes: Int64, bitmaps: [DirtyBitmap]) {
        let output = try await image(
            ["info", "--output=json"] + (inUse ? ["-U"] : []) + ["-f", format, path],
            doing: "reading the header")
        let info = try JSONValue(parsing: output.standardOutput)
        let list = info["format-specific"]?["data"]?["bitmaps"]?.elements ?? []
        return (
            info["virtual-size"]?.integer ?? 0,
            list.map { bitmap in
                let flags = bitmap["flags"]?.elements.compactMap(\.string) ?? []
                return DirtyBitmap(
                    name: bitmap["name"]?.string ?? "", isRecording: flags.contains("auto"),
                    isInconsistent: flags.contains("in-use"))
            }
        )
    }

    package func addBitmap(_ name: String) async throws {
        try await image(["bitmap", "--add", path, name], doing: "adding a dirty bitmap")
    }

    package func removeBitmap(_ name: String) async throws {
        try await image(["bitmap", "--remove", path, name], doing: "removing a dirty bitmap")
    }

    /// Makes `name` know what `others` know, and take note again.
    package func mergeBitmaps(_ others: [String], into name: String) async throws {
        let merges = others.flatMap { ["--merge", $0] }
        try await image(
            ["bitmap"] + merges + ["--enable", path, name], doing: "merging dirty bitmaps")
    }

    /// Writes all of a raw file over the disk, so that its snapshots stay.
    ///
    /// The raw file becomes as long as the disk, which does not shrink.
    package func overwrite(from raw: String) async throws {
        let source = StoppedDisk(path: raw, isQCOW2: false, user: user)
        let (size, _) = try await info()
        let (new, _) = try await source.info()
        guard new <= size else {
            throw StorageError.failed(
                what: "\(path) has \(size) bytes",
                output: "what shall be restored has \(new)")
        }
        if new < size { try await source.grow(to: size) }
        try await image(
            QEMUImage.convert + ["-n", "-f", "raw", "-O", format, raw, path],
            doing: "writing the content")
    }

    package func grow(to bytes: Int64) async throws {
        try await image(["resize", "-q", "-f", format, path, String(bytes)], doing: "growing")
    }

    /// Makes the disk's file from a raw one.
    package func create(from raw: String) async throws {
        let options = isQCOW2 ? ["-o", "cluster_size=16k"] : []
        try await image(
            QEMUImage.convert + ["-f", "raw", "-O", format] + options + [raw, path],
            doing: "writing the content")
    }

    /// Serves the disk read-only on a socket at `socket` for as long as the result lives.
    package func serve(on socket: String, export: String, bitmap: String?) throws -> DiskServer {
        var words = ["--read-only", "--shared=1", "-x", export, "-f", format]
        if let bitmap { words += ["-B", bitmap] }
        // It takes over our listening socket, as it would systemd's: one of its own could not have
        // a path of any length. Only a shell knows the number that its successor will have.
        let listener = try UnixSocket.listen(socket)
        let served = try program("qemu-nbd", words + [path])
        var shell = served
        shell.path = "/bin/sh"
        shell.name = "sh"
        shell.arguments =
            ["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "sh", served.path] + served.arguments
        shell.descriptors[3] = listener.raw
        return DiskServer(try shell.spawn(), socket)
    }
}

/// A program that serves a disk; it ends with this value.
package final class DiskServer: Sendable {
    private let child: Child
    private let isStopped = Mutex(false)
    package let socket: String

    init(_ child: Child, _ socket: String) {
        self.child = child
        self.socket = socket
    }

    deinit { stop() }

    /// Ends it, and waits until it has let go of the disk.
    package func stop() {
        let isFirst = isStopped.withLock { stopped in
            defer { stopped = true }
            return !stopped
        }
        guard isFirst else { return }
        child.signal(SIGTERM)
        _ = try? child.waitBlocking()
        try? Files.remove(socket)
    }
}
