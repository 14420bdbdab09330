// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Hypervisors
import Linux
import Planning
import Storage
import Supervisor

/// How a VM's disks can be reached at the moment.
struct DiskAccess {
    /// The configuration that decides which disks there are.
    let generation: GenerationRecord
    /// Nil when no hypervisor has them open.
    let client: ControlClient?
    /// What a snapshot of it is called when it does not run, and why not better.
    let consistency: SnapshotRecord.Consistency
    let why: String?
}

extension Engine {
    /// Makes a snapshot of all disks of a VM, running or not, at one point in time.
    ///
    /// The change lock is held. Nothing is kept when it fails.
    func takeSnapshot(
        _ name: String, as wanted: String?, reason: SnapshotRecord.Reason, _ files: VMLayout
    ) async throws -> SnapshotRecord {
        let access = try await diskAccess(name, files)
        let time = Clock.now()
        var record = SnapshotRecord(
            name: try snapshotName(wanted, at: time, files), createdAt: time,
            ordinal: try nextSnapshot(name), reason: reason, consistency: access.consistency,
            why: access.why, generation: access.generation,
            disks: [], leftOut: [])
        try Files.makeFolder(files.snapshots, mode: 0o700)
        // The intention first: whoever finds it removes what there is of the snapshot.
        try RecordFile.write(record, to: files.pendingSnapshot(record.name))
        Checkpoint.pass()
        do {
            try await planParts(of: &record, access, files)
            try RecordFile.write(record, to: files.pendingSnapshot(record.name))
            Checkpoint.pass()
            if let client = access.client {
                try await takeLive(&record, client, files)
            } else {
                try await keepingMemory(files) { try await takeStopped(record, files) }
            }
            Checkpoint.pass()
            try RecordFile.write(record, to: files.pendingSnapshot(record.name))
        } catch {
            await abandonUnfinishedCopies(files)
            await discard(record.name, files)
            throw error
        }
        Checkpoint.pass()
        try Files.rename(files.pendingSnapshot(record.name), files.snapshot(record.name))
        try Files.syncFolder(files.snapshots)
        return record
    }

    /// Whether the disks are in use, and what can be said of their content when not.
    func diskAccess(_ name: String, _ files: VMLayout) async throws -> DiskAccess {
        let report = await observer.observe(name)
        let phase = report.vm.phase
        guard let current = try store.current(name) else { throw LifecycleError.notCreated(name) }
        if phase == .running || phase == .paused {
            // What runs decides which disks the hypervisor has, not what was declared since.
            let running = try report.vm.running.flatMap { try store.generation(name, $0.number) }
            return DiskAccess(
                generation: running ?? current, client: ControlClient(files.controlSocket),
                consistency: .crash, why: nil)
        }
        guard try !FileLock.isHeld(files.lock) else {
            throw SnapshotError.busy(vm: name, phase: phase.rawValue)
        }
        let why: String? =
            if files.suspended.contains(where: Files.exists) {
                "it is suspended, and what its memory holds is not on its disks"
            } else if phase == .failed {
                "it did not shut down: \(report.vm.reason ?? "nothing is known of its end")"
            } else if let method = report.observation.exit?.stopMethod, method.cutsOff {
                "it was ended without shutting down"
            } else {
                nil
            }
        return DiskAccess(
            generation: current, client: nil, consistency: why == nil ? .stopped : .crash, why: why)
    }

    /// Decides for each disk how its content is kept.
    private func planParts(
        of record: inout SnapshotRecord, _ access: DiskAccess, _ files: VMLayout
    ) async throws {
        let vm = access.generation.vm
        let user = try allocateUser(vm.name)
        for disk in files.disks(of: vm) {
            if disk.readOnly {
                record.leftOut.append("the volume '\(disk.name)', which the guest can only read")
            } else if disk.format == .device {
                guard let volume = ZVolume(device: disk.path) else {
                    record.leftOut.append("the volume '\(disk.name)': \(disk.path) is a device")
                    continue
                }
                record.disks.append(
                    .init(
                        name: disk.name, format: .device, mechanism: .zfs,
                        place: volume.snapshot(record.tag), bytes: 0))
            } else if Files.exists(disk.path) {
                record.disks.append(try await part(disk, of: record, user: user, files))
            } else {
                record.leftOut.append("the volume '\(disk.name)', which is not made yet")
            }
        }
        record.leftOut += vm.shares.map { "the share of \($0.source)" }
        if record.disks.isEmpty { throw SnapshotError.nothing(vm: vm.name) }
    }

    private func part(
        _ disk: VMDisk, of record: SnapshotRecord, user: UInt32?, _ files: VMLayout
    ) async throws -> SnapshotRecord.DiskPart {
        let isQCOW2 = disk.format == .qcow2
        var part = SnapshotRecord.DiskPart(
            name: disk.name, format: isQCOW2 ? .qcow2 : .raw, mechanism: .internal,
            place: record.tag, bytes: try Files.status(disk.path).allocated)
        if isQCOW2 {
            let tags = try await QCOW2File(disk.path, user: user).info().snapshots
            if tags.contains(record.tag) {
                throw SnapshotError.exists(vm: files.name, snapshot: record.name)
            }
            // A file that holds snapshots is not shared as a whole: bringing that back later would
            // take away those inside that are newer, and bring back those that were removed.
            if tags.contains(where: { $0.hasPrefix(SnapshotRecord.tagPrefix) }) { return part }
        }
        let file = "\(disk.name).\(isQCOW2 ? "qcow2" : "raw")"
        let target = "\(files.snapshotFiles(record.name))/\(file)"
        try Files.makeFolder(Files.parent(target), mode: 0o700)
        // A rehearsal tells whether it works, and writes out what the guest would have to wait for.
        if try await blocking({ try Files.share(disk.path, as: target) }) {
            try Files.remove(target)
            (part.mechanism, part.place) = (.reflink, file)
        } else if !isQCOW2 {
            (part.mechanism, part.place) = (.copy, file)
        }
        return part
    }

    private func takeStopped(_ record: SnapshotRecord, _ files: VMLayout) async throws {
        let user = try allocateUser(files.name)
        let disks = files.disks(of: record.generation.vm)
        for part in record.disks {
            guard let disk = disks.first(where: { $0.name == part.name }) else { continue }
            let target = "\(files.snapshotFiles(record.name))/\(part.place)"
            reporter.working(files.name, "keeping the content of '\(disk.name)'")
            switch part.mechanism {
            case .internal:
                try await QCOW2File(disk.path, user: user).takeSnapshot(record.tag)
            case .reflink, .btrfs: try await share(disk.path, as: target)
            case .copy: try await blocking { try Files.copySparse(disk.path, to: target) }
            case .zfs: break
            }
            Checkpoint.pass()
        }
        try await takeZVolumes(record, disks)
    }

    /// Makes a file that shares the disk's blocks; the rehearsal has shown that it can.
    func share(_ path: String, as target: String) async throws {
        guard try await blocking({ try Files.share(path, as: target) }) else {
            throw SnapshotError.failed("\(path) cannot share its blocks with \(target) any more")
        }
    }
}

extension StopMethod {
    /// Whether the guest had no chance to shut down.
    fileprivate var cutsOff: Bool { self == .quit || self == .kill }
}
