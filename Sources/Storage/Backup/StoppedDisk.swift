// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Synchronization

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

    private func image(_ words: [String], _ problem: String) async throws {
        try await QEMUImage.run(words, on: path, user: user, problem)
    }

    /// `isInUse`: somebody may write to it.
    package func info(isInUse: Bool = false) async throws -> DiskInfo {
        try await QEMUImage.info(path, isQCOW2 ? .qcow2 : .raw, user: user, isInUse: isInUse)
    }

    package func addBitmap(_ name: String) async throws {
        try await image(["bitmap", "--add", path, name], "could not get a dirty bitmap")
    }

    package func removeBitmap(_ name: String) async throws {
        try await image(["bitmap", "--remove", path, name], "could not drop a dirty bitmap")
    }

    /// Makes `name` know what `others` know, and take note again.
    package func mergeBitmaps(_ others: [String], into name: String) async throws {
        let merges = others.flatMap { ["--merge", $0] }
        try await image(
            ["bitmap"] + merges + ["--enable", path, name], "could not merge dirty bitmaps")
    }

    package func grow(to bytes: Int64) async throws {
        try await image(["resize", "-q", "-f", format, path, String(bytes)], "could not grow")
    }

    /// Makes the disk's file from a raw one.
    package func create(from raw: String) async throws {
        let options = isQCOW2 ? ["-o", "cluster_size=16k"] : []
        try await image(
            QEMUImage.convert + ["-f", "raw", "-O", format] + options + [raw, path],
            "could not be written")
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
