// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Storage

/// Disks that are served, and a folder that their backups go to.
final class Rig {
    let folder: TemporaryFolder
    let target: FolderTarget
    var last: BackupRecord?
    private var count: Int64 = 0

    init() throws {
        folder = try TemporaryFolder()
        target = FolderTarget(folder.path + "/backups")
    }

    func disk(_ name: String) -> StoppedDisk {
        StoppedDisk(path: "\(folder.path)/\(name).qcow2", isQCOW2: true, user: nil)
    }

    func io(_ name: String, _ commands: String...) async throws {
        let words = commands.flatMap { ["-c", $0] }
        let output = try await Program(
            "/usr/bin/qemu-io", ["-f", "qcow2", "-d", "unmap"] + words + [disk(name).path]
        ).capture()
        try #require(output.exit.isSuccess, "\(output.text)\(output.errorText)")
    }

    func makeDisk(_ name: String, _ size: String) async throws {
        let output = try await Program(
            "/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2", disk(name).path, size]
        ).capture()
        try #require(output.exit.isSuccess)
    }

    /// Backs the disks up; incremental when they have a bitmap of the last backup.
    @discardableResult
    func backUp(_ names: [String], recipients: [String] = []) async throws -> BackupRecord {
        count += 1
        let id = "20260101-00000\(count)"
        var disks: [BackupHeader.Disk] = []
        var sources: [DiskSource] = []
        var servers: [DiskServer] = []
        for name in names {
            let info = try await disk(name).info()
            let base = last.map { "martlet-\($0.id)" }
            let bitmap = info.bitmaps.contains { $0.name == base } ? base : nil
            disks.append(
                .init(
                    name: name, format: "qcow2", bytes: info.size,
                    kind: bitmap == nil ? .full : .incremental))
            let socket = "\(folder.path)/\(name).sock"
            servers.append(try disk(name).serve(on: socket, export: name, bitmap: bitmap))
            sources.append(DiskSource(name: name, socket: socket, export: name, bitmap: bitmap))
        }
        let parent = last.map { BackupHeader.Parent(id: $0.id, manifest: $0.manifest ?? "") }
        let header = BackupHeader(
            id: id, vm: "web", fleet: nil, createdAt: BackupID.seconds(id), consistency: .stopped,
            why: nil, parent: parent, generation: ["number": 1], disks: disks)
        try Files.write("\(folder.path)/uuid", "u\n")
        let maker = ArchiveMaker(
            header: header, disks: sources, identity: [("uuid", "\(folder.path)/uuid")],
            recipients: recipients)
        let path = "\(try target.spool("web"))/\(id).tar.zst.new"
        let record = try await blocking {
            try maker.make(at: path, isCancelled: { false }, progress: { _, _ in })
        }
        for server in servers { server.stop() }
        try await target.put(path, record)
        for name in names { try await disk(name).addBitmap("martlet-\(id)") }
        last = record
        return record
    }

    /// What a backup holds of a disk, or why it cannot be had.
    func unpack(
        _ id: String? = nil, disk: String = "data", identity: String? = nil,
        in target: FolderTarget? = nil
    ) async throws -> [UInt8] {
        let target = target ?? self.target
        let record = try await target.find(id, of: "web")
        let all = try await target.list("web")
        let place = "\(folder.path)/out"
        try Files.remove(place)
        try Files.makeFolder(place)
        return try await blocking {
            let chain = try BackupChain(record, in: target, among: all, identity: identity)
            _ = try chain.unpack(into: place, isCancelled: { false }, progress: { _ in })
            return try Files.read(BackupChain.file(disk, in: place), limit: 1 << 30)
        }
    }

    /// What is found wrong with the newest backup; nil when nothing is.
    ///
    /// A restore that fails must leave nothing.
    func fault(identity: String? = nil, withRecords: Bool = true) async throws -> String? {
        if !withRecords {
            for name in try Files.list("\(target.path)/web") where name.hasSuffix(".json") {
                try Files.remove("\(target.path)/web/\(name)")
            }
        }
        var restoring: String?
        do {
            _ = try await unpack(identity: identity)
        } catch {
            restoring = "\(error)"
            #expect(try Files.list("\(folder.path)/out") == [])
        }
        return restoring
    }

    func archive(_ record: BackupRecord) -> String { "\(target.path)/web/\(record.fileName)" }

    func damage(_ path: String, _ change: (inout [UInt8]) -> Void) throws {
        var bytes = try Files.read(path)
        change(&bytes)
        try Files.write(path, bytes)
    }

    func shell(_ text: String) async throws {
        var program = Program("/bin/sh", ["-ec", text])
        program.folder = "\(target.path)/web"
        let output = try await program.capture()
        try #require(output.exit.isSuccess, "\(text): \(output.text)\(output.errorText)")
    }
}
