// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Glibc
import Linux

/// How a disk's blocks are stored in its file.
package enum DiskFormat: String, Codable, Sendable {
    /// Grows as it fills, and holds snapshots and dirty bitmaps.
    case qcow2
    case raw
}

/// One virtual disk in a file of the host.
///
/// The folder and what is in it belong to the VM's own user, who may have put anything there:
/// links are not followed, and tools that read the disk run as that user.
package struct Disk: Sendable, Equatable {
    package let path: String
    package let format: DiskFormat
    /// Whom the disk belongs to; nil is whoever runs this.
    package let user: UInt32?

    package init(path: String, format: DiskFormat, user: UInt32? = nil) {
        self.path = path
        self.format = format
        self.user = user
    }

    /// Where a disk is made before it is complete; what a killed run leaves there is garbage.
    private var unfinished: String { path + ".new" }

    /// Whether there is a file, or anything else, under the disk's name.
    package var exists: Bool { (try? Files.status(path)) != nil }

    /// Makes the disk with an empty file system in it; an existing disk is left as it is.
    ///
    /// The result appears under its name only when complete.
    package func create(
        _ filesystem: Filesystem = .ext4, bytes: Int64, label: String, uuid: String
    ) async throws {
        if exists { return }
        let maker = Maker(filesystem, label: label, uuid: uuid, bytes: bytes, isZeroed: true)
        let mkfs = try tool(maker.program, package: maker.package)
        do {
            try system(path) { () throws(SystemError) in
                try Files.remove(unfinished)
                try Files.makeSparse(unfinished, bytes: bytes)
                if let user { try Files.setOwner(unfinished, user: user, group: user) }
            }
            try await maker.make(on: unfinished) { arguments in
                try await run(
                    own(Program(mkfs, arguments)), on: path,
                    making: "the file system of \(path)")
            }
            if format == .qcow2 { try await convertUnfinished() }
            try system(path) { () throws(SystemError) in
                try Descriptor.open(unfinished, O_RDONLY | O_NOFOLLOW).sync()
                try Files.rename(unfinished, path)
                try Files.syncFolder(Files.parent(path))
            }
        } catch {
            try? Files.remove(unfinished)
            throw error
        }
    }

    private func convertUnfinished() async throws {
        let raw = path + ".raw.new"
        try system(path) { () throws(SystemError) in try Files.rename(unfinished, raw) }
        defer { try? Files.remove(raw) }
        // A guest writes a little in many places: with clusters of 64 KiB, QEMU's default, a volume
        // takes half as much again after its first start.
        let form = ["-f", "raw", "-O", "qcow2", "-o", "cluster_size=16k"]
        try await QEMUImage.run(
            QEMUImage.convert + form + [raw, unfinished], on: path, user: user,
            "could not be made")
    }

    /// Bytes that the guest sees.
    package func size() async throws -> Int64 {
        try system(path) { () throws(SystemError) in
            // A pipe in the disk's place must not hold us.
            let file = try Descriptor.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
            var info = stat()
            try check("stat \(path)") { fstat(file.raw, &info) }
            guard info.st_mode & S_IFMT == S_IFREG else {
                throw SystemError("open \(path)", EINVAL)
            }
            return format == .raw ? Int64(info.st_size) : nil
        }
            ?? QCOW2.virtualSize(
                header: system(path) { () throws(SystemError) in try Files.readPrefix(path, 32) },
                path: path)
    }

    /// Makes the disk larger; the guest grows its file system at the next start.
    ///
    /// The same size is no change, a smaller one is refused. The disk must not be in use.
    package func grow(to bytes: Int64) async throws {
        let now = try await size()
        if bytes == now { return }
        guard bytes > now else { throw StorageError.shrink(path: path, from: now, to: bytes) }
        // QEMU does not resize a disk with bitmaps that its last hypervisor did not close.
        if format == .qcow2 { try await QCOW2File(path, user: user).removeInconsistentBitmaps() }
        try await QEMUImage.run(
            ["resize", "-q", "-f", format.rawValue, path, String(bytes)], on: path, user: user,
            "could not grow to \(bytes) bytes")
    }

    /// The program as the disk's owner: what a disk says of itself, such as a file that it stands
    /// upon, opens nothing then that its owner could not open himself.
    private func own(_ program: Program) -> Program {
        var program = program
        program.user = user
        program.group = user
        program.folder = "/"
        return program
    }
}

/// The first bytes of a qcow2 file.
enum QCOW2 {
    /// The disk's size for the guest: a big-endian 64-bit number at byte 24 of the header.
    static func virtualSize(header: [UInt8], path: String) throws(StorageError) -> Int64 {
        guard header.count >= 32, header[..<4].elementsEqual([0x51, 0x46, 0x49, 0xfb]) else {
            throw .failed(what: path, output: "not a qcow2 file")
        }
        return header[24..<32].reduce(0) { $0 << 8 | Int64($1) }
    }
}
