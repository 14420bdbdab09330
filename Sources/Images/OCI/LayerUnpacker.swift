// SPDX-License-Identifier: Apache-2.0
import Archives
import Glibc
import Linux

/// Puts the layers of an OCI image on top of each other, and believes nothing of them.
///
/// Names are resolved as below a root of their own, so that links in an image mean what they mean
/// in a container. Owners and modes are the image's. Devices are left out, for a guest's service has
/// those that it may have; so are capabilities of files, which its service could not gain.
final class LayerUnpacker {
    private let tree: TreeWriter
    private let limit: Int64
    private var bytes: Int64 = 0
    private var entries = 0
    /// The inodes that the layer at hand has put there: whiteouts are about those below it.
    private var fresh: Set<UInt64> = []

    /// Bytes that all layers together may have.
    init(_ folder: String, limit: Int64 = 64 << 30) throws {
        tree = TreeWriter(try Descriptor.open(folder, O_RDONLY | O_DIRECTORY), followLinks: true)
        self.limit = limit
    }

    /// Puts one layer on top; what is wrong with it is an `ArchiveEntries.Failure`.
    ///
    /// Blocks the thread.
    func add(_ archive: String) throws {
        fresh = []
        let packed = try Files.status(archive).size
        let most = min(limit, bytes + Unpacker.limit(packed: packed))
        let archive = try ArchiveEntries(archive)
        while let entry = try archive.next() {
            entries += 1
            guard entries <= Unpacker.entryLimit * 4 else {
                throw failure(entry, "is one of more than \(Unpacker.entryLimit * 4) entries")
            }
            let path = try parts(entry.name, entry)
            do {
                if path.isEmpty {
                    if entry.kind == .folder { try setRoot(entry) }
                } else if let name = path.last, name.hasPrefix(".wh.") {
                    try whiteOut(path.dropLast(), name.dropFirst(4), entry)
                } else {
                    try put(entry, path, archive, most)
                }
            } catch let error as SystemError {
                throw error.isNoSpace ? error : failure(entry, "cannot be written: \(error)")
            }
        }
    }

    private func parts(_ name: String, _ entry: ArchiveEntries.Entry) throws -> [Substring] {
        let parts = name.split(separator: "/").filter { $0 != "." }
        if parts.contains("..") { throw failure(entry, "leads out of the image: '\(name)'") }
        return parts
    }

    private func failure(
        _ entry: ArchiveEntries.Entry, _ reason: String
    ) -> ArchiveEntries.Failure {
        .init(text: "the entry '\(entry.name)' \(reason)")
    }

    // MARK: Entries

    private func put(
        _ entry: ArchiveEntries.Entry, _ path: [Substring], _ archive: ArchiveEntries,
        _ most: Int64
    ) throws {
        guard entry.kind != .other, let name = path.last.map(String.init) else { return }
        let parent = try tree.folder(path.dropLast())
        let there = inode(parent, name)
        if let there, entry.kind != .folder || !there.isFolder { try remove(parent, name) }
        switch entry.kind {
        case .folder:
            _ = try tree.folder(path)
            try own(parent, name, entry)
        case .file:
            let file = try tree.file(path, mode: 0o600)
            try copy(archive, to: file.raw, entry, most)
            try own(parent, name, entry)
        case .link(let target):
            try tree.link(path, to: target)
            try own(parent, name, entry)
        case .hardLink(let target):
            let from = try parts(target, entry)
            guard !from.isEmpty else { throw failure(entry, "is a hard link to the root") }
            try tree.hardLink(path, to: from)
        case .other: break
        }
        if let now = inode(parent, name) { fresh.insert(now.number) }
    }

    private func copy(
        _ archive: ArchiveEntries, to file: Int32, _ entry: ArchiveEntries.Entry, _ most: Int64
    ) throws {
        let end = try archive.copy(entry, limit: most, used: bytes) { block, offset in
            try tree.write(file, block, at: offset)
        }
        bytes += end
    }

    /// Owner first: changing it takes set-id bits away.
    private func own(
        _ parent: borrowing Descriptor, _ name: String, _ entry: ArchiveEntries.Entry
    ) throws {
        guard entry.user < .max, entry.group < .max else {
            throw failure(entry, "belongs to nobody")
        }
        let folder = parent.raw
        try check("chown \(name)") {
            fchownat(folder, name, entry.user, entry.group, AT_SYMLINK_NOFOLLOW)
        }
        if case .link = entry.kind { return }
        try check("chmod \(name)") { fchmodat(folder, name, entry.mode & 0o7777, 0) }
    }

    private func setRoot(_ entry: ArchiveEntries.Entry) throws {
        let root = try tree.existing([])
        let path = "/proc/self/fd/\(root.raw)/."
        try check("chmod the root") { chmod(path, (entry.mode & 0o777) | 0o500) }
    }

    // MARK: Whiteouts

    private struct Inode {
        let number: UInt64
        let isFolder: Bool
    }

    private func inode(_ parent: borrowing Descriptor, _ name: String) -> Inode? {
        var info = stat()
        guard fstatat(parent.raw, name, &info, AT_SYMLINK_NOFOLLOW) == 0 else { return nil }
        return Inode(number: UInt64(info.st_ino), isFolder: info.st_mode & S_IFMT == S_IFDIR)
    }

    private func remove(_ parent: borrowing Descriptor, _ name: String) throws {
        try Files.remove("/proc/self/fd/\(parent.raw)/\(name)")
    }

    /// `.wh.NAME` hides NAME of the layers below; `.wh..wh..opq` all that they have in a folder.
    private func whiteOut(
        _ folder: [Substring], _ name: Substring, _ entry: ArchiveEntries.Entry
    ) throws {
        guard !name.isEmpty, name != ".", name != ".." else {
            throw failure(entry, "hides nothing that has a name")
        }
        let parent: Descriptor
        do throws(SystemError) { parent = try tree.existing(folder) } catch {
            // There is nothing to hide.
            if error.code == ENOENT || error.code == ENOTDIR { return }
            throw error
        }
        if name == ".wh..opq" { return try clear(parent) }
        try hide(parent, String(name))
    }

    private func hide(_ parent: borrowing Descriptor, _ name: String) throws {
        guard let there = inode(parent, name) else { return }
        guard fresh.contains(there.number) else { return try remove(parent, name) }
        if there.isFolder {
            let inner = try Files.openBelow(parent, name, followLinks: false)
            try clear(inner)
        }
    }

    private func clear(_ folder: borrowing Descriptor) throws {
        for name in try Files.list("/proc/self/fd/\(folder.raw)/.") { try hide(folder, name) }
    }
}
