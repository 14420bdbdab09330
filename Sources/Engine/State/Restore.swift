// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors
import Linux
import Storage

/// A restore that has begun to write: `snapshots/restore.journal`.
///
/// While it is there, the disks may be a mixture, and the VM is not started. Whoever holds the change
/// lock next writes all of it again, which brings the same result.
struct RestoreJournal: Codable, Equatable {
    static let version = 1
    var version = RestoreJournal.version
    let snapshot: SnapshotRecord
    /// The snapshot of what is replaced.
    let safety: String
    /// Whether the snapshot's configuration becomes the current one, too.
    let takesGeneration: Bool
}

extension Engine {
    /// Puts back what the disks of a snapshot held, and returns the snapshot of what they held before.
    ///
    /// The change lock is held and the VM does not run. A failure leaves the disks as they were; a
    /// kill leaves a journal, and the next change completes it. The configuration stays.
    @discardableResult
    func restoreDisks(
        _ name: String, from record: SnapshotRecord, _ files: VMLayout
    ) async throws -> SnapshotRecord {
        try await restoreDisks(name, from: record, takesGeneration: false, files)
    }

    func restoreDisks(
        _ name: String, from record: SnapshotRecord, takesGeneration: Bool, _ files: VMLayout
    ) async throws -> SnapshotRecord {
        let access = try await diskAccess(name, files)
        guard access.client == nil else {
            throw SnapshotError.busy(vm: name, phase: "running")
        }
        try await checkParts(of: record, files)
        reporter.working(name, "keeping what is replaced")
        let safety = try await takeSnapshot(name, as: nil, reason: .restore, files)
        let journal = RestoreJournal(
            snapshot: record, safety: safety.name, takesGeneration: takesGeneration)
        try RecordFile.write(journal, to: files.restoreJournal)
        Checkpoint.pass()
        do {
            try await apply(record, files)
        } catch {
            try await putBack(safety, after: error, files)
            throw error
        }
        try await conclude(journal, files)
        return safety
    }

    /// Undoes a restore that failed half way.
    private func putBack(
        _ safety: SnapshotRecord, after failure: any Error, _ files: VMLayout
    ) async throws {
        reporter.working(files.name, "going back to what was there")
        do {
            try await apply(safety, files)
            try Files.remove(files.restoreJournal)
            try Files.syncFolder(files.snapshots)
        } catch {
            throw SnapshotError.halfRestored(
                vm: files.name, reason: "\(sentence(failure)); \(sentence(error))",
                safety: safety.name)
        }
    }

    private func conclude(_ journal: RestoreJournal, _ files: VMLayout) async throws {
        Checkpoint.pass()
        let restored = journal.snapshot.disks.map(\.name)
        try noteFilesystems(of: journal.snapshot.generation.vm, on: restored, files)
        if journal.takesGeneration { try takeGeneration(of: journal.snapshot) }
        Checkpoint.pass()
        try Files.remove(files.restoreJournal)
        try Files.syncFolder(files.snapshots)
    }

    /// Notes which file systems are on volumes that were not made here but restored or copied.
    func noteFilesystems(of vm: VM, on names: [String], _ files: VMLayout) throws {
        let volumes = vm.volumes.filter { $0.device == nil && names.contains($0.name) }
        if volumes.isEmpty { return }
        var record =
            try RecordFile.read(
                VolumeRecord.self, from: files.volumeRecord, newest: VolumeRecord.version)
            ?? VolumeRecord()
        for volume in volumes { record.filesystems[volume.name] = volume.filesystem }
        try RecordFile.write(record, to: files.volumeRecord)
    }

    /// Makes a snapshot's configuration the current one, and keeps the VM on its image.
    private func takeGeneration(of record: SnapshotRecord) throws {
        let vm = record.generation.vm
        let digest = record.generation.imageDigest
        let current = try store.current(vm.name)
        if current?.imageDigest != digest {
            var memory = try store.imageMemory(vm.name)
            memory.pinned = digest
            try store.remember(memory, of: vm.name)
        }
        if current?.vm == vm, current?.imageDigest == digest { return }
        _ = try store.add(vm, imageDigest: digest)
    }

    /// Refuses to keep or copy disks that are a mixture, because a restore could not be completed.
    func refuseHalfRestored(_ files: VMLayout) throws {
        guard Files.exists(files.restoreJournal) else { return }
        throw SnapshotError.failed(
            "a restore of \(files.name) is not complete, and its disks are a mixture: "
                + "'martlet start \(files.name)' completes it, or says why it cannot")
    }

    /// Completes the restores of these VMs that were killed: they change what there is to plan.
    ///
    /// What cannot be completed is said by what is done to the VM next.
    package func finishRestores(_ names: [String]) async {
        for name in names where Files.exists(layout.vm(name).restoreJournal) {
            _ = try? await changing(name) { _ in }
        }
    }

    /// Completes a restore that was killed while it wrote.
    func completeRestore(_ files: VMLayout) async {
        do {
            try await finishRestore(files)
        } catch SnapshotError.busy {
            // It cannot run with a journal; whoever has its lock is about to leave.
        } catch {
            reporter.warning(
                "\(files.name) was being restored, and that could not be completed: "
                    + sentence(error))
        }
    }

    /// Completes a restore that was killed while it wrote, or says why it cannot.
    func finishRestore(_ files: VMLayout) async throws {
        let path = files.restoreJournal
        guard
            let journal = try RecordFile.read(
                RestoreJournal.self, from: path, newest: RestoreJournal.version)
        else { return }
        guard try !FileLock.isHeld(files.lock) else {
            throw SnapshotError.busy(vm: files.name, phase: "running")
        }
        reporter.working(files.name, "completing the restore of '\(journal.snapshot.name)'")
        try await apply(journal.snapshot, files)
        try await conclude(journal, files)
    }

    /// Refuses a snapshot of which something is missing, before anything is touched.
    func checkParts(of record: SnapshotRecord, _ files: VMLayout) async throws {
        let user = try allocateUser(files.name)
        let disks = files.disks(of: record.generation.vm)
        for part in record.disks {
            func lost(_ why: String) -> SnapshotError {
                .lost(vm: files.name, snapshot: record.name, disk: part.name, why: why)
            }
            guard let disk = disks.first(where: { $0.name == part.name }) else {
                throw lost("nothing is declared in it")
            }
            switch part.mechanism {
            case .internal:
                guard Files.exists(disk.path) else { throw lost("the file is gone") }
                let tags = try await QCOW2File(disk.path, user: user).info().snapshots
                guard tags.contains(part.place) else { throw lost("its content is gone") }
            case .reflink, .btrfs, .copy:
                let path = "\(files.snapshotFiles(record.name))/\(part.place)"
                guard Files.exists(path) else { throw lost("the file \(path) is gone") }
            case .zfs: break
            }
        }
    }

    /// Writes the content of a snapshot to all its disks; doing it again brings the same result.
    private func apply(_ record: SnapshotRecord, _ files: VMLayout) async throws {
        let user = try allocateUser(files.name)
        // Memory that was put aside knows other disks: to resume it would destroy what is on these.
        try discardMemory(files)
        let disks = files.disks(of: record.generation.vm)
        let parts = record.disks.compactMap { part in
            disks.first { $0.name == part.name }.map { (part, $0) }
        }
        // A bitmap tells what changed since a backup, and that would no longer be so.
        for (_, disk) in parts where disk.format == .qcow2 && Files.exists(disk.path) {
            try await QCOW2File(disk.path, user: user).removeBitmaps(SnapshotRecord.tagPrefix)
        }
        for (part, disk) in parts {
            reporter.working(files.name, "restoring '\(part.name)'")
            let source = "\(files.snapshotFiles(record.name))/\(part.place)"
            switch part.mechanism {
            case .internal: try await QCOW2File(disk.path, user: user).apply(part.place)
            case .reflink, .btrfs, .copy:
                try await replace(disk, with: source, user: user)
            case .zfs: try await restore(ZVolume(device: disk.path), record.tag)
            }
            Checkpoint.pass()
        }
    }

    /// Puts a copy of a file in a disk's place.
    private func replace(_ disk: VMDisk, with source: String, user: UInt32?) async throws {
        let fresh = disk.path + ".new"
        try Files.remove(fresh)
        try await blocking {
            if try !Files.share(source, as: fresh) { try Files.copySparse(source, to: fresh) }
        }
        if let user { try Files.setOwner(fresh, user: user, group: user) }
        guard disk.format == .qcow2 else { return try move(fresh, to: disk.path) }
        try await QCOW2File(fresh, user: user).removeBitmaps(SnapshotRecord.tagPrefix)
        // Snapshots inside the disk came after this one, when ROOT had moved to a file system
        // without shared blocks: then the content alone is replaced.
        let file = QCOW2File(disk.path, user: user)
        if Files.exists(disk.path),
            try await file.info().snapshots.contains(where: {
                $0.hasPrefix(SnapshotRecord.tagPrefix)
            })
        {
            let bytes = try await QCOW2File(fresh, user: user).info().size
            if try await file.info().size < bytes {
                try await StoppedDisk(path: disk.path, isQCOW2: true, user: user).grow(to: bytes)
            }
            try await file.overwrite(with: fresh, format: .qcow2)
            try Files.remove(fresh)
        } else {
            try move(fresh, to: disk.path)
        }
    }

    private func move(_ fresh: String, to path: String) throws {
        try Files.rename(fresh, path)
        try Files.syncFolder(Files.parent(path))
    }

    private func restore(_ volume: ZVolume?, _ tag: String) async throws {
        guard let volume else { return }
        // One that was killed has left its clone.
        try await destroyZFS(volume.endRestore(tag))
        try await command(volume.beginRestore(tag))
        try await command(volume.copyBack(tag))
        try await command(volume.endRestore(tag))
    }
}
