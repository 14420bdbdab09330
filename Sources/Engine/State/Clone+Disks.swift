// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors
import Linux
import Storage
import Supervisor

/// What is known of the content of copied disks.
struct CopiedContent: Sendable {
    let consistency: SnapshotRecord.Consistency
    let why: String?
}

extension Engine {
    /// Copies all disks of a VM into the folder of a new one; the source's change lock is held.
    func copyDisks(
        of generation: GenerationRecord, at snapshot: String?, _ files: VMLayout,
        to new: VMLayout
    ) async throws -> CopiedContent {
        let disks = files.disks(of: generation.vm).filter { $0.format != .device }
        if let snapshot {
            let record = try self.snapshot(files.name, snapshot)
            return try await copySnapshot(record, disks, files, to: new)
        }
        try refuseHalfRestored(files)
        let access = try await diskAccess(files.name, files)
        let there = disks.filter { Files.exists($0.path) }
        if let client = access.client {
            return try await copyLive(there, client, files, to: new)
        }
        for disk in there { try await copy(disk, files, to: new) }
        return CopiedContent(consistency: access.consistency, why: access.why)
    }

    private func copySnapshot(
        _ record: SnapshotRecord, _ disks: [VMDisk], _ files: VMLayout, to new: VMLayout
    ) async throws -> CopiedContent {
        try await checkParts(of: record, files)
        let user = try allocateUser(files.name)
        for disk in disks {
            reporter.working(new.name, "copying '\(disk.name)'")
            guard let part = record.disks.first(where: { $0.name == disk.name }) else {
                // What the guest can only read is as it was.
                if disk.readOnly, Files.exists(disk.path) { try await copy(disk, files, to: new) }
                continue
            }
            let target = files.copyTarget(disk)
            switch part.mechanism {
            case .internal:
                try Files.remove(target)
                try await QCOW2File(disk.path, user: user).copy(snapshot: part.place, to: target)
            case .reflink, .btrfs, .copy:
                let source = "\(files.snapshotFiles(record.name))/\(part.place)"
                try await duplicate(source, to: target, user: user)
                try await strip(target, of: disk, user: user)
            case .zfs: continue
            }
            try moveOut(target, to: new.place(of: disk, in: files))
            Checkpoint.pass()
        }
        return CopiedContent(consistency: record.consistency, why: record.why)
    }

    /// Copies a disk that nobody writes to.
    private func copy(_ disk: VMDisk, _ files: VMLayout, to new: VMLayout) async throws {
        reporter.working(new.name, "copying '\(disk.name)'")
        let user = try allocateUser(files.name)
        let target = files.copyTarget(disk)
        try Files.remove(target)
        if try await blocking({ try Files.share(disk.path, as: target) }) {
            if let user { try Files.setOwner(target, user: user, group: user) }
            try await strip(target, of: disk, user: user)
        } else if disk.format == .qcow2 {
            try await QCOW2File(disk.path, user: user).copy(snapshot: nil, to: target)
        } else {
            try await blocking { try Files.copySparse(disk.path, to: target) }
        }
        try moveOut(target, to: new.place(of: disk, in: files))
        Checkpoint.pass()
    }

    /// Copies all disks as they are at one moment, while the guest goes on.
    private func copyLive(
        _ disks: [VMDisk], _ client: ControlClient, _ files: VMLayout, to new: VMLayout
    ) async throws -> CopiedContent {
        let user = try allocateUser(files.name)
        let stillness: Stillness
        if try await canShare(disks, files) {
            reporter.working(new.name, "sharing the blocks of its disks")
            stillness = try await client.holding(pause: true, limit: 60) {
                for disk in disks { try await share(disk.path, as: files.copyTarget(disk)) }
            }.stillness
            guard stillness.wasHeld else {
                throw SnapshotError.notHeld(
                    vm: files.name, reason: stillness.reason ?? "it was let go too early")
            }
            for disk in disks {
                let target = files.copyTarget(disk)
                if let user { try Files.setOwner(target, user: user, group: user) }
                try await strip(target, of: disk, user: user)
            }
        } else {
            let copies = try await openCopies(of: disks, client, files)
            Checkpoint.pass()
            stillness = try await client.holding(limit: 60) {
                _ = try await client.hypervisor(.transaction(copies.map(\.action)))
            }.stillness
            Checkpoint.pass()
            try await finish(copies, client, files)
        }
        for disk in disks {
            try moveOut(files.copyTarget(disk), to: new.place(of: disk, in: files))
            Checkpoint.pass()
        }
        return CopiedContent(
            consistency: stillness.isFrozen ? .frozen : .crash,
            why: stillness.isFrozen ? nil : stillness.reason)
    }

    /// Tries whether files can share blocks there, on all disks; what it made is gone again.
    private func canShare(_ disks: [VMDisk], _ files: VMLayout) async throws -> Bool {
        for disk in disks {
            let target = files.copyTarget(disk)
            try Files.remove(target)
            guard try await blocking({ try Files.share(disk.path, as: target) }) else {
                return false
            }
            try Files.remove(target)
        }
        return true
    }

    private func duplicate(_ source: String, to target: String, user: UInt32?) async throws {
        try Files.remove(target)
        try await blocking {
            if try !Files.share(source, as: target) { try Files.copySparse(source, to: target) }
        }
        if let user { try Files.setOwner(target, user: user, group: user) }
    }

    /// Takes the source's snapshots and bitmaps out of a copy of the whole file.
    private func strip(_ path: String, of disk: VMDisk, user: UInt32?) async throws {
        guard disk.format == .qcow2 else { return }
        let file = QCOW2File(path, user: user)
        for tag in try await file.info().snapshots { try await file.removeSnapshot(tag) }
        try await file.removeBitmaps("")
    }
}

extension VMLayout {
    /// Where a copy of a disk is written: the VM's own user can write there, and `.new` is garbage.
    func copyTarget(_ disk: VMDisk) -> String { "\(disks)/copy-\(disk.name).new" }

    /// Where another VM's disk has its place in this one.
    func place(of disk: VMDisk, in other: VMLayout) -> String {
        disks + disk.path.dropFirst(other.disks.count)
    }
}
