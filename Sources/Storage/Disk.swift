// SPDX-License-Identifier: Apache-2.0
import Glibc
package import Linux

/// What went wrong with a disk, in words for the person who asked.
package enum StorageError: Error, Equatable, CustomStringConvertible {
    case missingTool(name: String, package: String)
    case failed(what: String, output: String)
    case shrink(path: String, from: Int64, to: Int64)
    case noSpace(path: String)
    /// A backup that is not, or no longer, what was written.
    case damaged(path: String, reason: String)
    /// An encrypted backup, and no key for it or another one.
    case undecryptable(path: String, reason: String)
    /// No such backup, or one without the backup that it rests on.
    case missingBackup(String)
    case cancelled
    case system(SystemError)

    package var description: String {
        switch self {
        case .missingTool(let name, let package):
            "'\(name)' is not installed: it comes with the Debian package \(package)"
        case .failed(let what, let output): "\(what): \(output)"
        case .shrink(let path, let from, let to):
            "\(path) has \(from) bytes and cannot shrink to \(to): its file system would be cut off"
        case .noSpace(let path): "no space left on the disk that holds \(path)"
        case .damaged(let path, let reason): "the backup \(path) is damaged: \(reason)"
        case .undecryptable(let path, let reason):
            "the backup \(path) cannot be decrypted: \(reason); the key is what 'backups.identity' "
                + "or --identity names"
        case .missingBackup(let text): text
        case .cancelled: "interrupted"
        case .system(let error): error.description
        }
    }
}

/// How a disk's blocks are stored in its file.
package enum DiskFormat: String, Codable, Sendable {
    /// Grows as it fills, and holds snapshots and dirty bitmaps.
    case qcow2
    case raw
}

/// One virtual disk in a file of the host.
package struct Disk: Sendable, Equatable {
    package let path: String
    package let format: DiskFormat

    package init(path: String, format: DiskFormat) {
        self.path = path
        self.format = format
    }

    /// Where a disk is made before it is complete; what a killed run leaves there is garbage.
    private var unfinished: String { path + ".new" }

    /// Makes the disk with an empty ext4 in it; an existing disk is left as it is.
    ///
    /// The host makes the file system, not the guest: the first start is as fast as any other, and
    /// the guest needs no tool for it. The result appears under its name only when complete.
    package func create(bytes: Int64, label: String, uuid: String) async throws {
        if Files.exists(path) { return }
        let mkfs = try tool("mkfs.ext4", package: "e2fsprogs")
        try system { () throws(SystemError) in
            try Files.remove(unfinished)
            try Files.makeSparse(unfinished, bytes: bytes)
        }
        // Room to describe 64 times the size is 0.3 MiB; mkfs would set 4 MiB aside for 1024 times.
        // Beyond that the guest's kernel finds another way to grow.
        let limit = max(bytes / 4096, 1 << 15) * 64
        do {
            // A new sparse file is all zeros: with that said, mkfs writes only a few hundred KiB and
            // the guest's kernel has no inode tables to clear behind our back.
            try await run(
                mkfs,
                [
                    "-q", "-F", "-L", label, "-U", uuid, "-m", "1", "-G", "64", "-E",
                    "assume_storage_prezeroed=1,packed_meta_blocks=1,resize=\(limit),root_owner=0:0",
                    unfinished,
                ], making: "the file system of \(path)")
            if format == .qcow2 { try await convertUnfinished() }
            try system { () throws(SystemError) in
                try Descriptor.open(unfinished, O_RDONLY).sync()
                try Files.rename(unfinished, path)
                try Files.syncFolder(Files.parent(path))
            }
        } catch {
            try? Files.remove(unfinished)
            throw error
        }
    }

    private func convertUnfinished() async throws {
        let image = try tool("qemu-img", package: "qemu-utils")
        let raw = path + ".raw.new"
        try system { () throws(SystemError) in try Files.rename(unfinished, raw) }
        defer { try? Files.remove(raw) }
        // A guest writes a little in many places: with clusters of 64 KiB, QEMU's default, a volume
        // takes half as much again after its first start.
        try await run(
            image,
            [
                "convert", "-q", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=16k", raw,
                unfinished,
            ],
            making: path)
    }

    /// Bytes that the guest sees.
    package func size() async throws -> Int64 {
        if format == .raw {
            return try system { () throws(SystemError) in try Files.status(path).size }
        }
        return try QCOW2.virtualSize(
            header: system { () throws(SystemError) in
                try Files.readPrefix(path, 32)
            }, path: path)
    }

    /// Makes the disk larger; the guest grows its file system at the next start.
    ///
    /// The same size is no change, a smaller one is refused. The disk must not be in use.
    package func grow(to bytes: Int64) async throws {
        let now = try await size()
        if bytes == now { return }
        guard bytes > now else { throw StorageError.shrink(path: path, from: now, to: bytes) }
        try await run(
            tool("qemu-img", package: "qemu-utils"),
            ["resize", "-q", "-f", format.rawValue, path, String(bytes)], making: path)
    }

    private func run(_ program: String, _ arguments: [String], making what: String) async throws {
        let output = try await Program(program, arguments).capture()
        guard !output.exit.isSuccess else { return }
        if output.errorText.contains("No space left") { throw StorageError.noSpace(path: path) }
        throw StorageError.failed(
            what: "\(what) could not be made",
            output: output.errorText.isEmpty ? "\(output.exit)" : output.errorText)
    }

    private func tool(_ name: String, package: String) throws -> String {
        guard let path = findProgram(name) else {
            throw StorageError.missingTool(name: name, package: package)
        }
        return path
    }

    private func system<R>(_ body: () throws(SystemError) -> R) throws(StorageError) -> R {
        do {
            return try body()
        } catch {
            throw error.isNoSpace ? .noSpace(path: path) : .system(error)
        }
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
