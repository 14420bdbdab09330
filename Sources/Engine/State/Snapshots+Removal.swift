// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors
import Linux
import Storage
import Supervisor

extension Engine {
    /// Removes a snapshot, whether the VM runs or not; the change lock is held.
    func removeSnapshot(
        _ name: String, _ record: SnapshotRecord, _ files: VMLayout
    ) async throws {
        _ = try await diskAccess(name, files)
        let journal = try RecordFile.read(
            RestoreJournal.self, from: files.restoreJournal, newest: RestoreJournal.version)
        if let journal, [journal.snapshot.name, journal.safety].contains(record.name) {
            throw SnapshotError.failed(
                "'\(record.name)' is needed to complete the restore of \(name)")
        }
        // From here on it does not exist, and whoever comes next removes the rest of it.
        try Files.rename(files.snapshot(record.name), files.pendingSnapshot(record.name))
        try Files.syncFolder(files.snapshots)
        Checkpoint.pass()
        try await keepingMemory(files) { try await removeParts(record.name, files) }
    }

    /// Removes what a run that was killed or has failed left of its snapshots and copies.
    ///
    /// What cannot be removed now is tried again by the next change; it hinders nothing.
    func removeUnfinishedSnapshots(_ files: VMLayout) async {
        let suffix = ".json.pending"
        let names = ((try? Files.list(files.snapshots)) ?? []).filter { $0.hasSuffix(suffix) }
        for name in names { await discard(String(name.dropLast(suffix.count)), files) }
    }

    func discard(_ snapshot: String, _ files: VMLayout) async {
        do {
            try await keepingMemory(files) { try await removeParts(snapshot, files) }
        } catch SnapshotError.busy {
            // The next change finds it again.
        } catch {
            reporter.warning(
                "the unfinished snapshot '\(snapshot)' of \(files.name) is still there: \(error)")
        }
    }

    /// Removes the parts of a snapshot that has no manifest any more, or not yet.
    private func removeParts(_ snapshot: String, _ files: VMLayout) async throws {
        let pending = files.pendingSnapshot(snapshot)
        // A manifest under its own name is a snapshot, whatever else lies there.
        guard !Files.exists(files.snapshot(snapshot)) else { return try Files.remove(pending) }
        let record = try? RecordFile.read(
            SnapshotRecord.self, from: pending, newest: SnapshotRecord.version)
        let tag = SnapshotRecord.tag(snapshot)
        if Files.isFolder(files.disks, followLinks: false), try store.current(files.name) != nil {
            let access = try await diskAccess(files.name, files)
            if let client = access.client,
                record?.disks.contains(where: { $0.mechanism == .copy })
                    != false
            {
                try await abandonCopies(client)
            }
            let user = try allocateUser(files.name)
            // The hypervisor has no node of a volume that is not declared any more.
            let open = Set(files.disks(of: access.generation.vm).map(\.path))
            var disks = files.disks(of: access.generation.vm)
            disks += files.disks(of: record?.generation.vm ?? access.generation.vm)
                .filter { !disks.contains($0) }
            for disk in disks where disk.format == .qcow2 && Files.exists(disk.path) {
                try await drop(
                    tag, of: disk, open.contains(disk.path) ? access.client : nil, user: user)
                Checkpoint.pass()
            }
        }
        for part in record?.disks ?? [] where part.mechanism == .zfs {
            try await removeZVolume(part, tag)
        }
        try Files.remove(files.snapshotFiles(snapshot))
        Checkpoint.pass()
        try Files.remove(pending)
        try Files.syncFolder(files.snapshots)
    }

    /// Removes all snapshots together with what they are snapshots of.
    func removeAllSnapshots(_ files: VMLayout) async throws {
        for record in (try? snapshots(files.name)) ?? [] {
            for part in record.disks where part.mechanism == .zfs {
                try await removeZVolume(part, record.tag)
            }
        }
        // At once, so that no manifest is left whose files are gone; `.new` makes it garbage.
        guard Files.exists(files.snapshots) else { return }
        let garbage = files.snapshots + ".new"
        try Files.remove(garbage)
        try Files.rename(files.snapshots, garbage)
        try Files.remove(garbage)
    }

    private func removeZVolume(_ part: SnapshotRecord.DiskPart, _ tag: String) async throws {
        let dataset = part.place.prefix { $0 != "@" }
        guard let volume = ZVolume(device: "/dev/zvol/\(dataset)") else { return }
        try await destroyZFS(volume.remove(tag))
    }

    /// Destroys what a killed run may not have made, or has destroyed already.
    func destroyZFS(_ words: [String]) async throws {
        do {
            try await command(words)
        } catch StoreError.failed(let what, let reason) {
            let isGone = ["does not exist", "could not find any snapshots to destroy"]
                .contains(where: reason.contains)
            if !isGone { throw StoreError.failed(what: what, reason: reason) }
        }
    }

    /// Drops a tag inside a qcow2 file, if it is there: through the hypervisor when that has it open.
    private func drop(
        _ tag: String, of disk: VMDisk, _ client: ControlClient?, user: UInt32?
    ) async throws {
        let file = QCOW2File(disk.path, user: user)
        while try await file.info().snapshots.contains(tag) {
            if let client {
                _ = try await client.hypervisor(
                    .deleteSnapshot(node: disk.node, tag: tag), timeout: ControlClient.longWork)
            } else {
                try await file.removeSnapshot(tag)
            }
        }
    }
}
