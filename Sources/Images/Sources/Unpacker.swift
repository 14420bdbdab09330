// SPDX-License-Identifier: Apache-2.0
import Archives
import Glibc
import Linux

/// Unpacks an archive into a folder, and believes nothing of it.
///
/// Folders are opened by the kernel's own rule that nothing leads out of the root
/// (`Files.openBelow`); what the archive says about owners, devices and set-id bits does not count.
struct Unpacker {
    /// What `archive:` in a fleet file says.
    struct Rules: Equatable {
        /// Leading parts of names to take off, counted as tar does: `./` is one.
        var strip = 0
        /// Names that are left out, with what is below them.
        var remove: [String] = []
    }

    /// The largest number of entries; a bomb of empty files has a bound, too.
    static let entryLimit = 1_000_000

    /// Bytes that a file of a given size may unpack to: a decompression bomb ends here.
    static func limit(packed: Int64) -> Int64 {
        min(max(1 << 30, packed.multipliedReportingOverflow(by: 100).partialValue), 64 << 30)
    }

    private let tree: TreeWriter
    private let rules: Rules
    private let limit: Int64
    private var removed: Set<String> = []
    private var entries = 0
    private var bytes: Int64 = 0

    /// Unpacks `archive` into the existing empty `folder`; what is wrong is an `ArchiveEntries.Failure`.
    ///
    /// Blocks the thread.
    static func unpack(
        _ archive: String, into folder: String, rules: Rules, limit: Int64? = nil
    ) throws {
        let packed = try Files.status(archive).size
        var unpacker = Unpacker(
            tree: TreeWriter(
                try Descriptor.open(folder, O_RDONLY | O_DIRECTORY), followLinks: false),
            rules: rules, limit: limit ?? Unpacker.limit(packed: packed))
        try unpacker.run(try ArchiveEntries(archive))
    }

    /// Unpacks a single file that is packed without being an archive.
    static func unpackFile(_ packed: String, to target: String, limit: Int64? = nil) throws {
        let limit = try limit ?? Unpacker.limit(packed: try Files.status(packed).size)
        let archive = try ArchiveEntries(packed, raw: true)
        guard try archive.next() != nil else { throw ArchiveEntries.Failure(text: "it is empty") }
        let folder = try Descriptor.open(Files.parent(target), O_RDONLY | O_DIRECTORY)
        let tree = TreeWriter(folder, followLinks: false)
        let file = try tree.file([Files.name(target)[...]], mode: 0o644).release()
        defer { close(file) }
        try archive.data { offset, block in
            guard offset >= 0, offset <= limit - Int64(block.count) else {
                throw ArchiveEntries.Failure(
                    text: "it is more than \(limit >> 20) MiB, far more than it is packed")
            }
            try tree.write(file, block, at: offset)
        }
    }

    private init(tree: TreeWriter, rules: Rules, limit: Int64) {
        self.tree = tree
        self.rules = rules
        self.limit = limit
    }

    private mutating func run(_ archive: ArchiveEntries) throws {
        var isEmpty = true
        while let entry = try archive.next() {
            entries += 1
            guard entries <= Unpacker.entryLimit else {
                throw failure(entry, "is one of more than \(Unpacker.entryLimit) entries")
            }
            guard let path = try path(entry.name, of: entry), !isRemoved(path) else { continue }
            do {
                try write(entry, path, archive)
            } catch let error as SystemError {
                throw error.isNoSpace ? error : explain(entry, error)
            }
            isEmpty = false
        }
        if let path = rules.remove.first(where: { !removed.contains($0) }) {
            throw ArchiveEntries.Failure(text: "'remove' names '\(path)', which is not in it")
        }
        if isEmpty {
            throw ArchiveEntries.Failure(
                text: entries == 0
                    ? "it is empty or no archive"
                    : "nothing of it is left with 'strip: \(rules.strip)'")
        }
    }

    /// The parts of a name that count; nil for one that is stripped away.
    private func path(_ name: String, of entry: ArchiveEntries.Entry) throws -> [Substring]? {
        if name.hasPrefix("/") { throw failure(entry, "begins at the root: '\(name)'") }
        let parts = name.split(separator: "/")
        if parts.contains("..") { throw failure(entry, "leads out of the archive: '\(name)'") }
        let path = parts.dropFirst(rules.strip).filter { $0 != "." }
        return path.isEmpty ? nil : path
    }

    private mutating func isRemoved(_ path: [Substring]) -> Bool {
        guard !rules.remove.isEmpty else { return false }
        for count in 1...path.count {
            let name = path.prefix(count).joined(separator: "/")
            guard rules.remove.contains(name) else { continue }
            removed.insert(name)
            return true
        }
        return false
    }

    private mutating func write(
        _ entry: ArchiveEntries.Entry, _ path: [Substring], _ archive: ArchiveEntries
    ) throws {
        switch entry.kind {
        case .folder:
            _ = try tree.folder(path)
        case .file:
            // Owners and odd modes are those of whoever packed it.
            let file = try tree.file(path, mode: entry.mode & 0o111 == 0 ? 0o644 : 0o755)
            try copy(archive, to: file, entry)
        case .link(let target):
            // It may point anywhere: nobody follows it before it is in the guest.
            try tree.link(path, to: target)
        case .hardLink(let target):
            guard let from = try self.path(target, of: entry) else {
                throw failure(entry, "is a hard link to '\(target)', which is stripped away")
            }
            try tree.hardLink(path, to: from)
        case .other:
            throw failure(entry, "is a device, a pipe or a socket")
        }
    }

    private mutating func copy(
        _ archive: ArchiveEntries, to file: borrowing Descriptor, _ entry: ArchiveEntries.Entry
    ) throws {
        let raw = file.raw
        let end = try archive.copy(entry, limit: limit, used: bytes) { block, offset in
            try tree.write(raw, block, at: offset)
        }
        bytes += end
    }

    private func failure(
        _ entry: ArchiveEntries.Entry, _ reason: String
    ) -> ArchiveEntries.Failure {
        .init(text: "the entry '\(entry.name)' \(reason)")
    }

    private func explain(
        _ entry: ArchiveEntries.Entry, _ error: SystemError
    ) -> ArchiveEntries.Failure {
        switch error.code {
        case ELOOP: failure(entry, "leads through a symbolic link")
        case ENOTDIR: failure(entry, "lies below something that is no folder")
        case EISDIR, EEXIST: failure(entry, "stands where the archive has a folder already")
        case ENOENT:
            failure(entry, "is a hard link to something that is not in the archive")
        default: failure(entry, "cannot be written: \(error)")
        }
    }
}
