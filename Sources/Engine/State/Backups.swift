// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Glibc
import Hypervisors
import Linux
import Planning
import Secrets
package import Storage
import Supervisor
import Synchronization

/// Why a backup cannot be made, or not be used.
package enum BackupError: Error, Equatable, CustomStringConvertible {
    case badTarget(String)
    /// The VM is between two states.
    case busy(vm: String, phase: String)
    case noImage(vm: String, digest: String)
    case exists(String)
    case failed(String)

    package var description: String {
        switch self {
        case .badTarget(let text):
            "'\(text)' is no place for backups: name a folder by its whole path, or a repository "
                + "as restic:REPOSITORY"
        case .busy(let vm, let phase): "\(vm) is \(phase): try again when it is up, or stopped"
        case .noImage(let vm, let digest):
            "the image \(digest.prefix(12)) that \(vm) had is not here, and no fleet file says how "
                + "to build it: name the file with -f, or import the image"
        case .exists(let name):
            "there is a VM '\(name)' already: name another one with --as, or purge it"
        case .failed(let text): text
        }
    }
}

/// One backup that is being made.
struct BackupJob {
    let id: String
    let files: VMLayout
    let target: any BackupTarget
    let generation: GenerationRecord
    /// The lineage that it may rest on; nil: it is a full one.
    let parent: BackupLineage?
    let lineage: BackupLineage?
    let user: UInt32?

    var disks: [VMDisk] { files.disks(of: generation.vm) }
    var bitmap: String { BackupLineage.bitmap(id) }
    var parentBitmap: String? { parent.map { BackupLineage.bitmap($0.last) } }

    /// What the bitmaps of a disk mean for this backup.
    func plan(_ disk: VMDisk, _ found: [DirtyBitmap], bytes: Int64) -> BitmapPlan {
        let known = parent?.disks[disk.name].map { $0 <= bytes } ?? false
        return BitmapPlan(
            found: found, base: known ? parentBitmap : nil, retired: lineage?.retired ?? [])
    }
}

/// A disk as it will be read, with what it says of itself.
struct BackupDisk {
    let disk: VMDisk
    let bytes: Int64
    let plan: BitmapPlan
    var kind: BackupKind { plan.base == nil ? .full : .incremental }
    /// Whether it can take note of changes.
    var hasBitmap: Bool { disk.format == .qcow2 && !disk.readOnly }
}

extension Layout {
    package var backups: String { root + "/backups" }
}

extension Engine {
    /// The place that a text means: a folder, or `restic:REPOSITORY`; ROOT/backups without one.
    package func backupTarget(_ text: String?) throws -> any BackupTarget {
        guard let text else { return FolderTarget(layout.backups) }
        if text.hasPrefix("restic:"), text.utf8.count > 7 {
            return try ResticTarget(
                String(text.dropFirst(7)), spool: layout.root + "/spool",
                passwordFile: layout.root + "/restic-password")
        }
        guard text.hasPrefix("/") else { throw BackupError.badTarget(text) }
        return FolderTarget(text)
    }

    /// Where a VM's backups are: as told, else as declared, else in ROOT/backups.
    package func backupTarget(of name: String, _ text: String?, declared: VM?) throws
        -> any BackupTarget
    {
        let applied = try? store.current(name)?.vm
        return try backupTarget(text ?? (declared ?? applied)?.backups?.to)
    }

    /// Makes a backup of a VM, running or not; incremental where it can be.
    package func createBackup(
        _ name: String, to text: String? = nil, full: Bool = false
    ) async throws -> BackupRecord {
        try await changing(name) { files in
            try await makeBackup(name, to: text, full: full, files)
        }
    }

    /// The same for who holds the change lock.
    func makeBackup(
        _ name: String, to text: String?, full: Bool, _ files: VMLayout
    ) async throws -> BackupRecord {
        try refuseHalfRestored(files)
        let report = await observer.observe(name)
        guard let current = try store.current(name) else { throw LifecycleError.notCreated(name) }
        let isLive = report.vm.phase == .running || report.vm.phase == .paused
        if !isLive, try FileLock.isHeld(files.lock) {
            throw BackupError.busy(vm: name, phase: report.vm.phase.rawValue)
        }
        // What runs decides which disks the hypervisor has, not what was declared since.
        let running =
            try isLive
            ? report.vm.running.flatMap { try store.generation(name, $0.number) } : nil
        let target = try backupTarget(of: name, text, declared: current.vm)
        // One host writes a VM's backups to a folder, and we hold the VM's lock: what is unfinished
        // there is what a killed run left.
        _ = try target.removeLeftovers(name, olderThan: .max)
        reporter.working(name, "looking at earlier backups")
        let job = try await backupJob(
            target, full: full, running ?? current, try await target.list(name), files)
        Checkpoint.pass()
        if isLive {
            return try await backUpLive(job, ControlClient(files.controlSocket))
        }
        let why = try await diskAccess(name, files).why
        // New bitmaps are all that it writes into the files.
        return try await keepingMemory(files) { try await backUpStopped(job, why: why) }
    }

    private func backupJob(
        _ target: any BackupTarget, full: Bool, _ generation: GenerationRecord,
        _ existing: [BackupRecord], _ files: VMLayout
    ) async throws -> BackupJob {
        let lineage = try? RecordFile.read(
            BackupLineage.self, from: files.lineage, newest: BackupLineage.version)
        var parent: BackupLineage?
        if let lineage, !full, lineage.target == target.text,
            lineage.length < BackupLineage.longest,
            let last = existing.first(where: { $0.id == lineage.last }),
            last.manifest == nil || last.manifest == lineage.manifest,
            isWhole(last, existing)
        {
            parent = lineage
        }
        let id = BackupID.make(Clock.now()) { id in
            existing.contains { $0.id == id } || lineage?.last == id
                || lineage?.retired.contains(BackupLineage.bitmap(id)) == true
        }
        return BackupJob(
            id: id, files: files, target: target, generation: generation, parent: parent,
            lineage: lineage, user: try allocateUser(files.name))
    }

    /// Whether all that a backup rests on is there: what is made upon it could not be restored else.
    private func isWhole(_ backup: BackupRecord, _ existing: [BackupRecord]) -> Bool {
        var last = backup
        for _ in 0..<BackupLineage.longest {
            // An encrypted archive without its record does not say what it rests on.
            guard last.kind != nil else { return false }
            guard let parent = last.parent else { return true }
            guard let found = existing.first(where: { $0.id == parent }) else { return false }
            last = found
        }
        return false
    }

    /// Writes the archive from what serves the disks, and hands it to its target.
    func archive(
        _ job: BackupJob, _ disks: [BackupDisk], _ sources: [DiskSource],
        at moment: Int64, _ consistency: Consistency, why: String?,
        then release: () async throws -> Void
    ) async throws -> BackupRecord {
        let name = job.files.name
        let isIncremental = disks.contains { $0.kind == .incremental }
        let recipients = job.generation.vm.backups?.encrypt ?? []
        let secrets = try await secretsToBackUp(
            job.generation.vm, encrypted: !recipients.isEmpty)
        let header = BackupHeader(
            id: job.id, vm: name, fleet: try store.record(name)?.fleet, createdAt: moment,
            consistency: consistency, why: why,
            parent: isIncremental
                ? job.parent.map { .init(id: $0.last, manifest: $0.manifest) } : nil,
            generation: try JSONValue(parsing: encoded(job.generation)),
            disks: disks.map {
                .init(
                    name: $0.disk.name, format: $0.disk.format.rawValue, bytes: $0.bytes,
                    kind: $0.kind)
            }, hasSecrets: !secrets.values.isEmpty)
        let maker = ArchiveMaker(
            header: header, disks: sources, identity: identityFiles(job.files),
            secrets: secrets.values.map { ($0.name, $0.bytes.bytes) }, recipients: recipients)
        let path = "\(try job.target.spool(name))/\(job.id).tar.zst.new"
        do {
            let reporter = reporter
            var record = try await cancellable { isCancelled in
                var shown = -1
                return try maker.make(at: path, isCancelled: isCancelled) { done, total in
                    let percent = total > 0 ? Int(done * 100 / total) : 100
                    if percent / 5 == shown { return }
                    shown = percent / 5
                    reporter.working(name, "backing up: \(percent) %")
                }
            }
            if !secrets.leftOut.isEmpty {
                record.secretsLeftOut = secrets.leftOut
                record.whyNoSecrets = secrets.why
            }
            Checkpoint.pass()
            try await release()
            Checkpoint.pass()
            try await job.target.put(path, record)
            return record
        } catch {
            try? Files.remove(path)
            throw error
        }
    }

    /// The files that make a VM this VM, for its archive.
    ///
    /// Its user's number is this host's affair.
    private func identityFiles(_ files: VMLayout) -> [(name: String, path: String)] {
        let names = (try? Files.list(files.identity)) ?? []
        return names.filter { $0 != "uid" && !$0.contains(".new") }
            .map { ($0, "\(files.identity)/\($0)") }
            .filter { !Files.isFolder($0.1, followLinks: false) }
    }

    /// Records that a backup is the one to rest on.
    func commit(_ job: BackupJob, _ record: BackupRecord, _ disks: [BackupDisk]) throws {
        let isIncremental = record.kind == .incremental
        let lineage = BackupLineage(
            target: job.target.text, last: job.id, manifest: record.manifest ?? "",
            length: isIncremental ? (job.parent?.length ?? 0) + 1 : 1,
            disks: Dictionary(
                uniqueKeysWithValues: disks.filter(\.hasBitmap).map { ($0.disk.name, $0.bytes) }),
            retired: job.lineage.map { [BackupLineage.bitmap($0.last)] } ?? [])
        try RecordFile.write(lineage, to: job.files.lineage)
    }
}

/// Runs blocking work that a cancelled task asks to stop.
func cancellable<R: Sendable>(
    _ body: @escaping @Sendable (@escaping @Sendable () -> Bool) throws -> R
) async throws -> R {
    let flag = Flag()
    return try await withTaskCancellationHandler {
        try await blocking { try body { flag.isSet.withLock { $0 } } }
    } onCancel: {
        flag.isSet.withLock { $0 = true }
    }
}

private final class Flag: Sendable {
    let isSet = Mutex(false)
}
