// SPDX-License-Identifier: Apache-2.0
import Archives
import Linux

/// Takes what an archive says of a disk, as it comes.
///
/// What was handed over counts only once the whole archive has been read without an error.
package protocol DiskSink: AnyObject {
    /// Begins: a full member describes the whole disk, an incremental one what changed.
    func begin(_ disk: BackupHeader.Disk) throws
    func data(_ offset: Int64, _ bytes: UnsafeRawBufferPointer) throws
    func zeros(_ extent: Extent) throws
}

/// An archive that was read to its end, every byte of it checked.
package struct CheckedArchive: Sendable {
    package let header: BackupHeader
    package let manifest: BackupManifest
    /// SHA-256 of `manifest.json`: what a child names as its parent.
    package let digest: String
    /// The members below `identity/`, by name.
    package let identity: [String: [UInt8]]
    /// The members below `secrets/`, by name.
    package let secrets: [String: [UInt8]]
}

/// Reads archives and believes nothing of them until the end.
///
/// Every call blocks; one thread uses it.
package final class ArchiveReader {
    private let handle: ArchiveHandle
    private let stream: TarStream
    private var members: [BackupManifest.Member] = []
    private static let smallLimit: Int64 = 1 << 20
    private static let manifestLimit: Int64 = 1 << 30

    /// `identity` is the path of age's key; needed for an encrypted archive.
    package init(_ input: consuming ArchiveInput, identity: String?) throws {
        stream = try TarStream(input, identity: identity)
        handle = try ArchiveHandle.forBackup([.tar])
        try stream.open()
        try reading { try handle.open { [stream] in stream.piece() } }
    }

    /// Why reading failed: the stream, if it failed itself, knows better.
    private func reading<Result>(_ body: () throws -> Result) throws -> Result {
        do { return try body() } catch let failure as ArchiveHandle.Failure {
            throw stream.failure(failure.text)
        }
    }

    private func damaged(_ reason: String) -> StorageError { stream.damaged(reason) }

    /// The next member's name and size; nil at the end.
    private func next() throws -> (name: String, size: Int64)? {
        guard let entry = try reading({ try handle.next() }) else { return nil }
        guard !entry.isDoubtful else { throw stream.failure(handle.complaint) }
        guard entry.kind == .file else { throw damaged("it holds something else than files") }
        return (entry.name, entry.size)
    }

    private func member(_ name: String) throws -> Int64 {
        guard let found = try next() else { throw damaged("'\(name)' is missing") }
        guard found.name == name else {
            throw damaged("'\(found.name)' stands where '\(name)' should")
        }
        return found.size
    }

    /// The bytes of a small member.
    private func content(_ name: String, _ size: Int64, limit: Int64) throws -> [UInt8] {
        guard size <= limit else { throw damaged("'\(name)' has \(size) bytes") }
        var all: [UInt8] = []
        all.reserveCapacity(Int(size))
        var hash = SHA256()
        try blocks { offset, bytes in
            guard offset == all.count else { throw self.damaged("'\(name)' has holes") }
            all += bytes
        }
        hash.update(all)
        members.append(.init(name: name, bytes: Int64(all.count), sha256: hash.finish()))
        guard all.count == size else { throw damaged("'\(name)' is cut off") }
        return all
    }

    private func blocks(_ body: (Int64, UnsafeRawBufferPointer) throws -> Void) throws {
        try reading { try handle.blocks(body) }
    }

    /// The first member alone: what the archive says that it is.
    package func header() throws -> BackupHeader {
        let bytes = try content(
            "backup.json", try member("backup.json"), limit: ArchiveReader.smallLimit)
        guard let header = BackupJSON.decode(BackupHeader.self, bytes) else {
            throw damaged("'backup.json' cannot be read")
        }
        guard header.version <= BackupHeader.newest else {
            throw damaged("it was written by a newer martlet (version \(header.version))")
        }
        guard BackupID.isValid(header.id), header.disks.allSatisfy({ $0.bytes >= 0 }),
            header.disks.allSatisfy({ isPlain($0.name) })
        else { throw damaged("'backup.json' makes no sense") }
        return header
    }

    /// Reads all of it; `sink` says who takes a disk, nil for one that is only checked.
    package func read(
        isCancelled: () -> Bool = { false }, sink: (BackupHeader) throws -> [String: any DiskSink]
    ) throws -> CheckedArchive {
        let header = try header()
        let sinks = try sink(header)
        var found = try next()
        let identity = try smallMembers("identity/", &found)
        let secrets = header.version < 2 ? [:] : try smallMembers("secrets/", &found)
        var maps: [String: [Extent]] = [:]
        for disk in header.disks {
            guard let member = found, member.name == "disks/\(disk.name).raw" else {
                throw damaged("'disks/\(disk.name).raw' is missing")
            }
            guard member.size == disk.bytes else {
                throw damaged("'\(member.name)' has \(member.size) bytes, not \(disk.bytes)")
            }
            maps[disk.name] = try readDisk(disk, sinks[disk.name], isCancelled)
            found = try next()
        }
        let (manifest, digest) = try readManifest(found?.name, found?.size ?? 0, header, maps)
        for disk in manifest.disks {
            for extent in disk.zeros { try sinks[disk.name]?.zeros(extent) }
        }
        return CheckedArchive(
            header: header, manifest: manifest, digest: digest, identity: identity,
            secrets: secrets)
    }

    /// The members of one folder that come next, by their names in it.
    private func smallMembers(
        _ folder: String, _ found: inout (name: String, size: Int64)?
    ) throws -> [String: [UInt8]] {
        var members: [String: [UInt8]] = [:]
        while let file = found, file.name.hasPrefix(folder) {
            let name = String(file.name.dropFirst(folder.count))
            guard isPlain(name), members[name] == nil else { throw damaged("'\(file.name)'") }
            members[name] = try content(file.name, file.size, limit: ArchiveReader.smallLimit)
            found = try next()
        }
        return members
    }

    private func readDisk(
        _ disk: BackupHeader.Disk, _ sink: (any DiskSink)?, _ isCancelled: () -> Bool
    ) throws -> [Extent] {
        try sink?.begin(disk)
        var hash = SHA256()
        var extents: [Extent] = []
        var bytes: Int64 = 0
        try blocks { offset, block in
            if isCancelled() { throw StorageError.cancelled }
            if block.isEmpty { return }
            guard offset >= extents.last?.end ?? 0, offset <= disk.bytes - Int64(block.count)
            else { throw self.damaged("'disks/\(disk.name).raw' goes beyond the disk") }
            hash.update(block)
            bytes += Int64(block.count)
            extents.append(offset, Int64(block.count))
            try sink?.data(offset, block)
        }
        members.append(
            .init(name: "disks/\(disk.name).raw", bytes: bytes, sha256: hash.finish()))
        return extents
    }

    private func readManifest(
        _ name: String?, _ size: Int64, _ header: BackupHeader, _ maps: [String: [Extent]]
    ) throws -> (BackupManifest, digest: String) {
        guard name == "manifest.json" else {
            throw damaged(name.map { "'\($0)' does not belong into it" } ?? "its end is missing")
        }
        let found = members
        let text = try content("manifest.json", size, limit: ArchiveReader.manifestLimit)
        let digest = SHA256.hex(text)
        let line = try content(
            "manifest.sha256", try member("manifest.sha256"), limit: ArchiveReader.smallLimit)
        guard line == Array("\(digest)  manifest.json\n".utf8) else {
            throw damaged("its manifest is not the one that was written")
        }
        guard try next() == nil else { throw damaged("something follows its end") }
        try stream.expectEnd(at: handle.position)
        guard let manifest = BackupJSON.decode(BackupManifest.self, text) else {
            throw damaged("its manifest cannot be read")
        }
        for (read, should) in zip(found, manifest.members) where read != should {
            throw damaged("the checksum of '\(should.name)' is wrong")
        }
        guard found.count == manifest.members.count,
            manifest.disks.map(\.name) == header.disks.map(\.name)
        else { throw damaged("its manifest lists other members") }
        for (map, disk) in zip(manifest.disks, header.disks) {
            guard map.data.isOrdered(within: disk.bytes),
                map.zeros.isOrdered(within: disk.bytes),
                map.data.reduce(into: [], { $0.append($1.offset, $1.length) })
                    == maps[map.name] ?? []
            else { throw damaged("'disks/\(map.name).raw' holds other parts of the disk") }
        }
        return (manifest, digest)
    }
}

/// Whether a name can become a file's without leading elsewhere.
private func isPlain(_ name: some StringProtocol) -> Bool {
    !name.isEmpty && !name.contains("/") && name != "." && name != ".." && !name.contains("\0")
}
