// SPDX-License-Identifier: Apache-2.0
import Linux

/// A disk that somebody serves over NBD, as it was at one moment.
package struct DiskSource: Sendable {
    package let name: String
    /// The server's socket, and the name of the export.
    package let socket: String
    package let export: String
    /// The dirty bitmap that says what has changed; nil: everything counts.
    package let bitmap: String?
    /// What was in use at that moment; nil: the server knows.
    package let allocation: ExtentMap?

    package init(
        name: String, socket: String, export: String, bitmap: String?,
        allocation: ExtentMap? = nil
    ) {
        self.allocation = allocation
        self.name = name
        self.socket = socket
        self.export = export
        self.bitmap = bitmap
    }
}

/// Writes a backup's archive.
package struct ArchiveMaker: Sendable {
    package let header: BackupHeader
    package let disks: [DiskSource]
    /// Small files to go with it, by their names below `identity/`.
    package let identity: [(name: String, path: String)]
    /// Values that may stand in encrypted archives alone, by their names below `secrets/`.
    package let secrets: [(name: String, bytes: [UInt8])]
    /// age's public keys; none: the archive is not encrypted.
    package let recipients: [String]

    package init(
        header: BackupHeader, disks: [DiskSource], identity: [(name: String, path: String)],
        secrets: [(name: String, bytes: [UInt8])] = [], recipients: [String]
    ) {
        // Whoever calls this has seen to it; a slip must not write a plain value to a disk.
        self.secrets = recipients.isEmpty ? [] : secrets
        self.header = header
        self.disks = disks
        self.identity = identity
        self.recipients = recipients
    }

    /// Writes the archive to a new file, durably, and returns what there is to know of it.
    ///
    /// Blocks the thread. `progress` is told how many bytes of how many have been read.
    package func make(
        at path: String, isCancelled: () -> Bool, progress: (Int64, Int64) -> Void
    ) throws -> BackupRecord {
        let clients = try disks.map { disk in
            try NBDClient(
                socket: disk.socket, export: disk.export,
                bitmap: disk.bitmap.map { "qemu:dirty-bitmap:\($0)" })
        }
        let maps = try zip(clients, disks).map { client, disk in
            try client.changes(
                in: disk.allocation ?? client.allocation(),
                bitmap: disk.bitmap.map { "qemu:dirty-bitmap:\($0)" })
        }
        let total = maps.reduce(0) { $0 + $1.bytes }
        var read: Int64 = 0
        let writer = try ArchiveWriter(path, recipients: recipients, time: header.createdAt)
        try writer.add("backup.json", try BackupJSON.encode(header), mode: 0o644)
        for file in identity {
            try writer.add("identity/\(file.name)", try Files.read(file.path, limit: 1 << 20))
        }
        for secret in secrets { try writer.add("secrets/\(secret.name)", secret.bytes) }
        for (index, disk) in header.disks.enumerated() {
            let client = clients[index]
            guard client.size == disk.bytes else {
                throw StorageError.failed(
                    what: "reading \(disk.name)",
                    output: "it has \(client.size) bytes, not \(disk.bytes)")
            }
            try writer.addDisk(disk.name, bytes: disk.bytes, maps[index]) { offset, buffer in
                if isCancelled() { throw StorageError.cancelled }
                try client.read(offset, into: buffer)
                read += Int64(buffer.count)
                progress(read, total)
            }
        }
        let made = try writer.finish()
        var record = BackupRecord(
            id: header.id, vm: header.vm, createdAt: header.createdAt, bytes: made.bytes,
            encrypted: !recipients.isEmpty)
        record.take(header)
        if !secrets.isEmpty { record.secrets = secrets.map(\.name) }
        record.sha256 = made.sha256
        record.manifest = made.manifest
        return record
    }
}
