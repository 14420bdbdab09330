// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// A place that keeps backups.
package protocol BackupTarget: Sendable {
    /// As it stands in a fleet file.
    var text: String { get }
    /// The folder in which an archive for it is written; on the file system where it goes, if any.
    func spool(_ vm: String) throws -> String
    /// The backups of a VM, oldest first.
    func list(_ vm: String) async throws -> [BackupRecord]
    /// Takes over a finished archive, at once and durably.
    func put(_ file: String, _ record: BackupRecord) async throws
    /// The bytes of an archive. Blocks.
    func open(_ record: BackupRecord) throws -> ArchiveInput
    /// Keeps what became known of a backup: its verdict.
    func update(_ record: BackupRecord) async throws
    func remove(_ record: BackupRecord) async throws
    /// Removes what killed runs left; returns the names.
    func removeLeftovers(_ vm: String, olderThan: Int64) throws -> [String]
}

extension BackupTarget {
    /// One backup by its name, or the newest.
    package func find(_ id: String?, of vm: String) async throws -> BackupRecord {
        let all = try await list(vm)
        if let id {
            if let found = all.first(where: { $0.id == id }) { return found }
            throw StorageError.missingBackup("there is no backup '\(id)' of \(vm) in \(text)")
        }
        guard let newest = all.last else {
            throw StorageError.missingBackup("there is no backup of \(vm) in \(text)")
        }
        return newest
    }
}

/// Backups in a folder: `FOLDER/VM/ID.tar.zst[.age]`, and beside each a record that can be lost.
package struct FolderTarget: BackupTarget {
    package let path: String
    package var text: String { path }
    /// The folder of one VM's archives, where that is not `path/VM`: somebody carried them here.
    private let flat: Bool

    package init(_ path: String) {
        self.path = path
        flat = false
    }

    /// A folder that holds the archives themselves.
    package init(archivesIn path: String) {
        self.path = path
        flat = true
    }

    private func folder(_ vm: String) -> String { flat ? path : "\(path)/\(vm)" }
    private func archive(_ record: BackupRecord) -> String {
        "\(folder(record.vm))/\(record.fileName)"
    }
    private func sidecar(_ vm: String, _ id: String) -> String { "\(folder(vm))/\(id).json" }

    package func spool(_ vm: String) throws -> String {
        try storage(path) { () throws(SystemError) in
            try Files.makeFolder(folder(vm), mode: 0o700)
        }
        return folder(vm)
    }

    package func list(_ vm: String) async throws -> [BackupRecord] {
        try await blocking {
            try Files.list(folder(vm)).compactMap { name in
                guard let (id, encrypted) = BackupID.parse(fileName: name) else { return nil }
                return try record(vm, id, encrypted, file: "\(folder(vm))/\(name)")
            }.sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }
        }
    }

    /// What the record says, or, without one, what the archive's first member does.
    private func record(
        _ vm: String, _ id: String, _ encrypted: Bool, file: String
    ) throws -> BackupRecord {
        let text = try? Files.read(sidecar(vm, id), limit: 1 << 20)
        if let text, let kept = BackupJSON.decode(BackupRecord.self, text), kept.id == id,
            kept.encrypted == encrypted, kept.vm == vm || flat
        {
            return kept
        }
        var header: BackupHeader?
        if !encrypted {
            let input = ArchiveInput(
                name: file, file: try Descriptor.open(file, O_RDONLY | O_NOFOLLOW))
            header = try? ArchiveReader(input, identity: nil).header()
        }
        var record = BackupRecord(
            id: id, vm: vm, createdAt: header?.createdAt ?? BackupID.seconds(id),
            bytes: try Files.status(file).size, encrypted: encrypted)
        if let header { record.take(header) }
        return record
    }

    package func put(_ file: String, _ record: BackupRecord) async throws {
        // The archive first: without its record it is complete, a record without it is nothing.
        try storage(path) { () throws(SystemError) in
            try Files.renameNew(file, archive(record))
            try Files.syncFolder(folder(record.vm))
        }
        try await update(record)
    }

    package func open(_ record: BackupRecord) throws -> ArchiveInput {
        ArchiveInput(
            name: archive(record),
            file: try storage(path) { () throws(SystemError) in
                try Descriptor.open(archive(record), O_RDONLY | O_NOFOLLOW)
            })
    }

    package func update(_ record: BackupRecord) async throws {
        let text = try BackupJSON.encode(record)
        try storage(path) { () throws(SystemError) in
            try Files.write(sidecar(record.vm, record.id), text)
        }
    }

    package func remove(_ record: BackupRecord) async throws {
        try storage(path) { () throws(SystemError) in
            try Files.remove(archive(record))
            try Files.remove(sidecar(record.vm, record.id))
        }
    }

    package func removeLeftovers(_ vm: String, olderThan: Int64) throws -> [String] {
        let folder = folder(vm)
        return try Files.list(folder).filter { name in
            let path = "\(folder)/\(name)"
            let isUnfinished = name.contains(".new")
            let isOrphan =
                name.hasSuffix(".json") && BackupID.isValid(name.dropLast(5))
                && !["", ".age"].contains { Files.exists("\(path.dropLast(5)).tar.zst\($0)") }
            guard isUnfinished || isOrphan, try Files.status(path).modified < olderThan else {
                return false
            }
            try Files.remove(path)
            return true
        }
    }
}
