// SPDX-License-Identifier: Apache-2.0
package import Fleets
import FoundationEssentials
import Glibc
import Hypervisors
import Images
import Linux
package import Storage

/// What restoring a backup did.
package struct RestoredBackup: Sendable {
    package let backup: BackupRecord
    /// In place: what was replaced is in a snapshot.
    package let restored: Restored?
    /// What is not as it was, in words.
    package let notes: [String]
}

/// What a backup holds, put together and checked, in a folder that nobody else uses.
struct UnpackedBackup {
    let archive: CheckedArchive
    let generation: GenerationRecord?
    /// A raw file for each disk; `.new`, so that it is garbage when we are killed.
    let folder: String

    var header: BackupHeader { archive.header }
    func raw(_ disk: BackupHeader.Disk) -> String { BackupChain.file(disk.name, in: folder) }
}

extension VMLayout {
    /// Where a backup is put together; the next change removes it.
    var staging: String { path + "/restore.new" }
    /// The backup that the disks of a VM without a configuration are from.
    var restoredBackup: String { path + "/restored" }
}

extension Engine {
    /// A backup with all that it rests on.
    func chain(
        _ name: String, _ id: String?, in target: any BackupTarget, identity: String?
    ) async throws -> BackupChain {
        let record = try await target.find(id, of: name)
        let all = try await target.list(name)
        if let identity, !Files.exists(identity) {
            throw StorageError.undecryptable(
                path: record.id, reason: "there is no file \(identity)")
        }
        return try await blocking {
            try BackupChain(record, in: target, among: all, identity: identity)
        }
    }

    /// The key that a VM's backups are decrypted with.
    package func backupIdentity(of name: String, _ given: String?, declared: VM?) -> String? {
        given ?? (declared ?? (try? store.current(name))?.vm)?.backups?.identity
    }

    /// Reads and checks everything that a backup needs, before anything is changed.
    func unpack(_ chain: BackupChain, _ files: VMLayout) async throws -> UnpackedBackup {
        let folder = files.staging
        try Files.remove(folder)
        try Files.makeFolder(folder, mode: 0o700)
        let reporter = reporter
        let archive = try await cancellable { isCancelled in
            try chain.unpack(into: folder, isCancelled: isCancelled) {
                reporter.working(files.name, $0)
            }
        }
        Checkpoint.pass()
        var generation = try? JSONDecoder().decode(
            GenerationRecord.self, from: Data(archive.header.generation.text().utf8))
        generation?.vm.name = files.name
        return UnpackedBackup(archive: archive, generation: generation, folder: folder)
    }

    /// Restores a backup: over the VM that is there, or as the VM that the fleet file declares.
    package func restoreBackup(
        _ name: String, _ id: String?, from target: any BackupTarget, identity: String?,
        fleet: Fleet?
    ) async throws -> RestoredBackup {
        let chain = try await chain(name, id, in: target, identity: identity)
        guard let record = chain.records.last else { throw StorageError.missingBackup(name) }
        return try await changing(name) { files in
            defer { try? Files.remove(files.staging) }
            let unpacked = try await unpack(chain, files)
            if try store.current(name) == nil {
                let notes = try await restoreAnew(unpacked, record, fleet: fleet, files)
                return RestoredBackup(backup: record, restored: nil, notes: notes)
            }
            let (restored, notes) = try await restoreInPlace(
                unpacked, record, fleet: fleet, files)
            return RestoredBackup(backup: record, restored: restored, notes: notes)
        }
    }

    /// Makes a new VM of a backup, beside the one that it is of; `check` sees its declaration first,
    /// and gives it as the fleet reads it.
    ///
    /// It gets an identity of its own, and nothing that two VMs cannot both have.
    package func restoreBackup(
        _ name: String, _ id: String?, from target: any BackupTarget, identity: String?,
        as new: String, fleet: Fleet, check: (AddedVM) throws -> AddedVM
    ) async throws -> RestoredBackup {
        guard isNameOfVM(new) else { throw CloneError.badName(new) }
        guard try store.current(new) == nil, fleet.vm(new) == nil else {
            throw CloneError.taken(new)
        }
        let chain = try await chain(name, id, in: target, identity: identity)
        guard let record = chain.records.last else { throw StorageError.missingBackup(name) }
        let notes = try await changing(new) { files in
            do {
                return try await makeNew(chain, record, as: new, fleet: fleet, check, files)
            } catch {
                // Nothing but what this has made; a VM of which more is known stays.
                if !Files.exists(files.record), !Files.exists(files.restoredBackup) {
                    try? Files.remove(files.path)
                }
                throw error
            }
        }
        // Also moves its override into place.
        _ = try await changing(new) { _ in try await makeLasting(new) }
        return RestoredBackup(backup: record, restored: nil, notes: notes)
    }

    private func makeNew(
        _ chain: BackupChain, _ record: BackupRecord, as new: String, fleet: Fleet,
        _ check: (AddedVM) throws -> AddedVM, _ files: VMLayout
    ) async throws -> [String] {
        let unpacked = try await unpack(chain, files)
        let (generation, note) = try await configuration(
            unpacked, fleet: fleet, preferDeclared: false, record.vm)
        let added = try check(
            AddedVM(
                generation.vm, named: new, fleet: fleet.name,
                origin: "Made from the backup \(record.id) of \(record.vm)."))
        var notes = [note].compactMap { $0 }
        notes += try await makeVM(
            of: unpacked, added.vm, from: record.id, keepIdentity: false, fleet: fleet.name, files)
        try Files.remove(files.staging)
        try Files.write(files.firstOverride, added.text)
        try await declare(
            added.vm, fleet: fleet.name, digest: generation.imageDigest, files)
        Checkpoint.pass()
        try Files.remove(files.restoredBackup)
        if !added.dropped.isEmpty {
            notes.append("without \(added.dropped.joined(separator: ", "))")
        }
        return notes + ["'martlet start \(new)' starts it"]
    }

    /// The configuration that a restored VM gets, with an image that is there.
    ///
    /// That of the backup, where its image is still here; else the declared one.
    private func configuration(
        _ unpacked: UnpackedBackup, fleet: Fleet?, preferDeclared: Bool, _ name: String
    ) async throws -> (generation: GenerationRecord, note: String?) {
        let archived = unpacked.generation
        let declared = fleet?.vm(name)
        let isHere = try archived.map { try images.resolve($0.imageDigest) != nil } ?? false
        if let archived, isHere, !preferDeclared || declared == nil { return (archived, nil) }
        guard let declared, let fleet else {
            throw BackupError.noImage(vm: name, digest: archived?.imageDigest ?? "")
        }
        let digest = try await ensureImage(named: Engine.imageName(of: declared), in: fleet)
        let generation = GenerationRecord(
            number: 1, appliedAt: Clock.now(), imageDigest: digest, vm: declared)
        let isOther = archived?.imageDigest != digest
        return (
            generation,
            isOther ? "its image is the one that the fleet file gives, not that of then" : nil
        )
    }

    /// Replaces the content of the disks by way of a snapshot: the restore of one keeps what is
    /// replaced, goes on after a kill, and leaves the snapshots inside the disks alone.
    private func restoreInPlace(
        _ unpacked: UnpackedBackup, _ record: BackupRecord, fleet: Fleet?, _ files: VMLayout
    ) async throws -> (Restored, notes: [String]) {
        var (generation, note) = try await configuration(
            unpacked, fleet: fleet, preferDeclared: false, files.name)
        var notes = [note].compactMap { $0 }
        let pairs = unpacked.header.disks.compactMap { part in
            files.disks(of: generation.vm).first { $0.name == part.name }.map { (part, $0) }
        }
        for part in unpacked.header.disks where !pairs.contains(where: { $0.0 == part }) {
            notes.append("its volume '\(part.name)' is not declared, and was left out")
        }
        let sizes = try await sizes(pairs, files)
        notes += try await fillDevices(pairs, unpacked)
        generation.vm.keepSizes(sizes)
        var snapshot = SnapshotRecord(
            name: SnapshotRecord.importPrefix + record.id, createdAt: record.createdAt,
            ordinal: try nextSnapshot(files.name), reason: .restore,
            consistency: .init(unpacked.header.consistency),
            why: unpacked.header.why, generation: generation, disks: [], leftOut: [])
        let pending = files.pendingSnapshot(snapshot.name)
        try Files.makeFolder(files.snapshotFiles(snapshot.name), mode: 0o700)
        try RecordFile.write(snapshot, to: pending)
        Checkpoint.pass()
        for (part, disk) in pairs where disk.format != .device {
            snapshot.disks.append(
                try await take(
                    part, as: disk, unpacked, bytes: sizes[disk.name] ?? part.bytes, snapshot, files
                ))
            Checkpoint.pass()
        }
        try RecordFile.write(snapshot, to: pending)
        notes += try await takeSecrets(unpacked, fleet: try store.record(files.name)?.fleet)
        try Files.rename(pending, files.snapshot(snapshot.name))
        try Files.syncFolder(files.snapshots)
        Checkpoint.pass()
        let restored = try await goBack(files.name, to: snapshot, files)
        Checkpoint.pass()
        try await removeSnapshot(files.name, snapshot, files)
        return (restored, notes)
    }

    /// Puts what a backup has of devices onto those that are blank, and says which are not.
    ///
    /// A device may hold what nobody wants to lose, and there is no snapshot of it to go back to.
    private func fillDevices(
        _ pairs: [(BackupHeader.Disk, VMDisk)], _ unpacked: UnpackedBackup
    ) async throws -> [String] {
        var notes: [String] = []
        for (part, disk) in pairs where disk.format == .device {
            if disk.readOnly {
                notes.append("\(disk.path) is declared read-only, and was left as it is")
            } else if try await !BlockDevice(disk.path).fill(from: unpacked.raw(part)) {
                notes.append(
                    "\(disk.path) is not blank, and was left as it is: what the backup has of "
                        + "'\(part.name)' goes to a blank device alone")
            }
            Checkpoint.pass()
        }
        return notes
    }

    /// How large the disks will be that are written over: as large as that of the backup, and they
    /// do not shrink.
    private func sizes(
        _ pairs: [(BackupHeader.Disk, VMDisk)], _ files: VMLayout
    ) async throws -> [String: Int64] {
        let user = try allocateUser(files.name)
        var sizes: [String: Int64] = [:]
        for (part, disk) in pairs where Files.exists(disk.path) && disk.format != .device {
            let bytes = try await stoppedDisk(disk, user: user).info(isInUse: true).size
            sizes[disk.name] = max(bytes, part.bytes)
        }
        return sizes
    }

    /// Makes a disk of the backup a file of a snapshot.
    private func take(
        _ part: BackupHeader.Disk, as disk: VMDisk, _ unpacked: UnpackedBackup, bytes: Int64,
        _ snapshot: SnapshotRecord, _ files: VMLayout
    ) async throws -> SnapshotRecord.DiskPart {
        let isQCOW2 = disk.format == .qcow2
        let file = "\(disk.name).\(isQCOW2 ? "qcow2" : "raw")"
        let path = "\(files.snapshotFiles(snapshot.name))/\(file)"
        reporter.working(files.name, "putting '\(disk.name)' together")
        try await place(unpacked.raw(part), path, isQCOW2: isQCOW2)
        if bytes > part.bytes {
            try await StoppedDisk(path: path, isQCOW2: isQCOW2, user: nil).grow(to: bytes)
        }
        return SnapshotRecord.DiskPart(
            name: disk.name, format: isQCOW2 ? .qcow2 : .raw, mechanism: .copy, place: file,
            bytes: try Files.status(path).allocated)
    }

    /// Removes the snapshots that backups became while they were restored; there are none
    /// but those of a run that was killed.
    func removeImported(_ files: VMLayout) async {
        guard !Files.exists(files.restoreJournal) else { return }
        let names = (try? Files.list(files.snapshots)) ?? []
        guard names.contains(where: { $0.hasPrefix(SnapshotRecord.importPrefix) }) else { return }
        for record in (try? snapshots(files.name)) ?? []
        where record.name.hasPrefix(SnapshotRecord.importPrefix) {
            try? await removeSnapshot(files.name, record, files)
        }
    }

    /// Makes a disk's file from a raw one, which it may become.
    private func place(_ raw: String, _ path: String, isQCOW2: Bool) async throws {
        guard isQCOW2 else { return try Files.rename(raw, path) }
        try await StoppedDisk(path: path, isQCOW2: true, user: nil).create(from: raw)
        try Files.remove(raw)
        try Descriptor.open(path, O_RDONLY).sync()
    }

    /// Makes the VM that the fleet file declares, with the disks and the identity of a backup.
    private func restoreAnew(
        _ unpacked: UnpackedBackup, _ record: BackupRecord, fleet: Fleet?, _ files: VMLayout
    ) async throws -> [String] {
        let (generation, note) = try await configuration(
            unpacked, fleet: fleet, preferDeclared: true, files.name)
        var notes = [note].compactMap { $0 }
        notes += try await makeVM(
            of: unpacked, generation.vm, from: record.id, keepIdentity: true, fleet: fleet?.name,
            files)
        try await declare(
            generation.vm, fleet: fleet?.name, digest: generation.imageDigest, files)
        Checkpoint.pass()
        // Its first start may come before an `up`.
        if let fleet { try declareSecrets(of: fleet) }
        try Files.remove(files.restoredBackup)
        notes.append("'martlet start \(files.name)' starts it")
        return notes
    }

    /// Gives a VM that is still to be declared its disks, all at once.
    ///
    /// Secrets come before its first start, which would generate others.
    func makeVM(
        of unpacked: UnpackedBackup, _ vm: VM, from id: String, keepIdentity: Bool,
        fleet: String?, _ files: VMLayout
    ) async throws -> [String] {
        let user = try allocateUser(files.name)
        let mark = try? Files.readText(files.restoredBackup)
        if mark == id, Files.exists(files.disks) { return [] }
        guard try Files.list(files.disks).isEmpty else {
            throw BackupError.failed(
                "\(files.disks) holds disks, and nothing says whose: 'martlet up \(files.name)' "
                    + "makes a VM of them, 'martlet purge \(files.name)' removes them")
        }
        var notes: [String] = []
        var devices: [(BackupHeader.Disk, VMDisk)] = []
        let staged = VMLayout(name: files.name, path: files.staging, run: files.run)
        try Files.makeFolder(staged.disks, mode: 0o700)
        for part in unpacked.header.disks {
            guard let disk = staged.disks(of: vm).first(where: { $0.name == part.name }) else {
                notes.append("its volume '\(part.name)' is not declared, and was left out")
                continue
            }
            if let declared = disk.bytes, declared < part.bytes {
                throw BackupError.failed(
                    "the disk '\(part.name)' of the backup has \(part.bytes) bytes, and "
                        + "\(declared) are declared: declare as much")
            }
            reporter.working(files.name, "putting '\(disk.name)' together")
            if disk.format == .device {
                devices.append((part, disk))
                continue
            }
            try await place(unpacked.raw(part), disk.path, isQCOW2: disk.format == .qcow2)
            if let user { try Files.setOwner(disk.path, user: user, group: user) }
            Checkpoint.pass()
        }
        notes += try await fillDevices(devices, unpacked)
        if let user { try Files.setOwner(staged.disks, user: user, group: user) }
        notes += try await takeSecrets(unpacked, fleet: fleet)
        if keepIdentity { try takeIdentity(unpacked.archive.identity, files) }
        Checkpoint.pass()
        try Files.write(files.restoredBackup, id)
        try Files.remove(files.disks)
        Checkpoint.pass()
        try Files.rename(staged.disks, files.disks)
        try Files.syncFolder(files.path)
        Checkpoint.pass()
        return notes
    }
}

extension SnapshotRecord {
    /// What a backup is called while it is restored by way of a snapshot.
    static let importPrefix = "restoring-backup-"
}

extension VM {
    /// Declares disks at least as large as they are.
    mutating func keepSizes(_ sizes: [String: Int64]) {
        func larger(_ declared: ByteSize, _ name: String) -> ByteSize {
            let bytes = sizes[name] ?? 0
            return bytes > Int64(declared.bytes) ? ByteSize(bytes: UInt64(bytes)) : declared
        }
        disk = larger(disk, "data")
        for index in volumes.indices {
            volumes[index].size = volumes[index].size.map { larger($0, volumes[index].name) }
        }
    }
}

extension SnapshotRecord.Consistency {
    init(_ consistency: Consistency) {
        self =
            switch consistency {
            case .frozen: .frozen
            case .stopped: .stopped
            case .crash: .crash
            }
    }
}
