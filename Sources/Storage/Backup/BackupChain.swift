// SPDX-License-Identifier: Apache-2.0
import Linux

/// A backup and all those that it rests on.
package struct BackupChain: Sendable {
    package let target: any BackupTarget
    /// The full one first, the wanted one last.
    package let records: [BackupRecord]
    package let headers: [BackupHeader]
    /// The path of age's key.
    let identity: String?

    package var newest: BackupHeader? { headers.last }

    /// Finds a backup's parents by what the archives themselves say, back to the full one.
    ///
    /// Blocks.
    package init(
        _ record: BackupRecord, in target: any BackupTarget, among all: [BackupRecord],
        identity: String?
    ) throws {
        var records: [BackupRecord] = []
        var headers: [BackupHeader] = []
        var next: BackupRecord? = record
        while let record = next {
            guard records.count < 1000, !records.contains(where: { $0.id == record.id }) else {
                throw StorageError.damaged(path: record.id, reason: "it rests on itself")
            }
            let header = try BackupChain.open(record, target, identity).header()
            guard header.id == record.id, header.vm == record.vm else {
                throw StorageError.damaged(
                    path: record.id, reason: "it is the backup \(header.id) of \(header.vm)")
            }
            records.insert(record, at: 0)
            headers.insert(header, at: 0)
            guard let parent = header.parent else { break }
            next = all.first { $0.id == parent.id }
            if next == nil {
                throw StorageError.missingBackup(
                    "the backup \(record.id) of \(record.vm) rests on \(parent.id), which is not "
                        + "in \(target.text)")
            }
        }
        self.target = target
        self.records = records
        self.headers = headers
        self.identity = identity
    }

    private static func open(
        _ record: BackupRecord, _ target: any BackupTarget, _ identity: String?
    ) throws -> ArchiveReader {
        if record.encrypted, identity == nil {
            throw StorageError.undecryptable(path: record.id, reason: "no key was given")
        }
        return try ArchiveReader(
            try target.open(record), identity: record.encrypted ? identity : nil)
    }

    /// Reads one archive to its end and checks all that can be checked.
    ///
    /// Blocks. `parent` is what the archive before it was found to be.
    package func read(
        _ index: Int, after parent: CheckedArchive?, sinks: [String: any DiskSink] = [:],
        isCancelled: () -> Bool = { false }
    ) throws -> CheckedArchive {
        let record = records[index]
        let archive = try BackupChain.open(record, target, identity).read(
            isCancelled: isCancelled
        ) { header in
            guard header == headers[index] else {
                throw StorageError.damaged(path: record.id, reason: "it changes while it is read")
            }
            return sinks
        }
        func wrong(_ reason: String) -> StorageError { .damaged(path: record.id, reason: reason) }
        if let manifest = record.manifest, manifest != archive.digest {
            throw wrong("it is another backup than the one that was recorded")
        }
        guard let named = archive.header.parent else { return archive }
        guard let parent else { return archive }
        guard named.id == parent.header.id, named.manifest == parent.digest else {
            throw wrong("\(parent.header.id) is not the backup that it rests on")
        }
        // What an incremental disk rests on must be there, and no larger.
        for disk in archive.header.disks where disk.kind == .incremental {
            let below = parent.header.disks.first { $0.name == disk.name }
            guard let below, below.bytes <= disk.bytes else {
                throw wrong("its parent has no such disk '\(disk.name)'")
            }
        }
        return archive
    }

    /// Checks the file of an archive as a whole against its record, where there is one.
    ///
    /// Blocks.
    package func checkFile(_ index: Int) throws {
        let record = records[index]
        guard let expected = record.sha256 else { return }
        let input = try target.open(record)
        var hash = SHA256()
        var bytes: Int64 = 0
        while true {
            let chunk = try input.bytes.read(1 << 18)
            if chunk.isEmpty { break }
            bytes += Int64(chunk.count)
            hash.update(chunk)
        }
        try input.finish()
        guard bytes == record.bytes else {
            throw StorageError.damaged(
                path: record.id, reason: "its file has \(bytes) bytes, not \(record.bytes)")
        }
        guard hash.finish() == expected else {
            throw StorageError.damaged(path: record.id, reason: "the checksum of its file is wrong")
        }
    }

    /// Puts the disks together in raw files `FOLDER/NAME.raw.new`, and returns what was read last.
    ///
    /// Blocks. Nothing of it may be used when this fails; the files are then removed.
    package func unpack(
        into folder: String, isCancelled: () -> Bool, progress: (String) -> Void
    ) throws -> CheckedArchive {
        var sinks: [String: RawSink] = [:]
        do {
            for disk in newest?.disks ?? [] {
                sinks[disk.name] = try RawSink(BackupChain.file(disk.name, in: folder))
            }
            var last: CheckedArchive?
            for index in records.indices {
                progress("reading \(records[index].id)")
                last = try read(index, after: last, sinks: sinks, isCancelled: isCancelled)
            }
            for sink in sinks.values { try sink.finish() }
            guard let last else { throw StorageError.missingBackup("there is nothing to read") }
            return last
        } catch {
            for name in sinks.keys { try? Files.remove(BackupChain.file(name, in: folder)) }
            throw error
        }
    }

    /// Where a disk is put together.
    package static func file(_ disk: String, in folder: String) -> String {
        "\(folder)/\(disk).raw.new"
    }
}
