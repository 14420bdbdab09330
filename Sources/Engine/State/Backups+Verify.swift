// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Glibc
import Images
import Linux
import Planning
package import Storage

/// What checking one backup found.
package struct BackupFinding: Sendable {
    package let backup: BackupRecord
    /// Why it cannot be relied on; nil when all of it is as it was written.
    package let error: (any Error)?
    /// What `--boot` found.
    package var verdict: String?

    package init(backup: BackupRecord, error: (any Error)?, verdict: String? = nil) {
        self.backup = backup
        self.error = error
        self.verdict = verdict
    }
}

extension Engine {
    /// Reads a backup and all that it rests on, and says of each whether it is whole.
    package func verifyBackup(
        _ name: String, _ id: String?, in target: any BackupTarget, identity: String?
    ) async throws -> [BackupFinding] {
        let record = try await target.find(id, of: name)
        let chain: BackupChain
        do {
            chain = try await self.chain(name, record.id, in: target, identity: identity)
        } catch {
            return [BackupFinding(backup: record, error: error)]
        }
        let reporter = reporter
        return try await cancellable { isCancelled in
            var findings: [BackupFinding] = []
            var last: CheckedArchive?
            for (index, record) in chain.records.enumerated() {
                reporter.working(name, "checking \(record.id)")
                var failure: (any Error)?
                do {
                    last = try chain.read(index, after: last, isCancelled: isCancelled)
                    try chain.checkFile(index)
                } catch StorageError.cancelled {
                    throw StorageError.cancelled
                } catch {
                    last = nil
                    failure = error
                }
                findings.append(BackupFinding(backup: record, error: failure))
            }
            return findings
        }
    }

    /// Restores a backup into a VM of its own that reaches nothing, boots it, waits for its health
    /// checks, and removes it again; the verdict is kept with the backup.
    package func verifyBackupByBoot(
        _ name: String, _ id: String?, in target: any BackupTarget, identity: String?,
        fleet: Fleet?
    ) async throws -> BackupRecord {
        await removeVerifiers()
        let chain = try await chain(name, id, in: target, identity: identity)
        guard var record = chain.records.last else { throw StorageError.missingBackup(name) }
        let trial = Engine.verifierPrefix + randomHex(8)
        var failure: (any Error)?
        do {
            let seconds = try await boot(chain, as: trial, fleet: fleet)
            record.verifiedAt = Clock.now()
            record.verdict = "up after \(tenths(seconds)) s, and healthy"
        } catch {
            failure = error
            record.verifiedAt = nil
            record.verdict = sentence(error)
        }
        // Also after an interrupt: what was promised to go, goes.
        await Task { await removeVerifier(trial) }.value
        if let failure {
            // What was never tried says nothing of the backup.
            if failure is CancellationError || failure as? StorageError == .cancelled {
                throw failure
            }
            try? await target.update(record)
            throw failure
        }
        try await target.update(record)
        return record
    }

    private func boot(
        _ chain: BackupChain, as trial: String, fleet: Fleet?
    ) async throws -> Double {
        try await changing(trial) { files in
            let unpacked = try await unpack(chain, files)
            let name = unpacked.header.vm
            guard let archived = unpacked.generation else {
                throw StorageError.damaged(
                    path: unpacked.header.id, reason: "its configuration cannot be read")
            }
            var digest = archived.imageDigest
            if try images.resolve(digest) == nil {
                guard let fleet, let declared = fleet.vm(name) else {
                    throw BackupError.noImage(vm: name, digest: digest)
                }
                digest = try await ensureImage(named: Engine.imageName(of: declared), in: fleet)
            }
            var vm = archived.vm.alone(named: trial)
            vm.keepSizes(
                Dictionary(unpacked.header.disks.map { ($0.name, $0.bytes) }) { first, _ in first })
            _ = try await makeVM(
                of: unpacked, vm, from: unpacked.header.id, keepIdentity: false, fleet: nil, files)
            try Files.remove(files.staging)
            try await declare(
                vm, fleet: nil, origin: unpacked.header.fleet, digest: digest, files)
            let seconds = try await launch(trial, files)
            try await awaitTurn(trial)
            return seconds
        }
    }

    static let verifierPrefix = "verify-"

    /// Whether a VM is one of ours for verifying: those reach nothing.
    func isVerifier(_ name: String) -> Bool {
        name.hasPrefix(Engine.verifierPrefix) && (try? store.record(name))??.fleet == nil
    }

    /// Removes the VMs of runs that were killed; one that is still at work has its change lock.
    package func removeVerifiers() async {
        for name in (try? store.names().vms) ?? [] where isVerifier(name) {
            await removeVerifier(name)
        }
    }

    private func removeVerifier(_ name: String) async {
        do {
            if try FileLock.isHeld(layout.vm(name).lock) { _ = try await kill(name) }
            try await purge(name)
        } catch StoreError.locked {
            // Somebody else's, and still needed.
        } catch {
            reporter.warning(
                "\(name) is still there: \(sentence(error)); the next verify removes it")
        }
    }
}

extension VM {
    /// The same VM without all by which it would reach, or be reached by, anything.
    fileprivate func alone(named trial: String) -> VM {
        var vm = self
        vm.name = trial
        vm.uuid = nil
        vm.restart = .no
        vm.autostart = false
        vm.after = []
        vm.interfaces = VM(name: trial).interfaces
        vm.interfaces[0].mac = Derived.mac(fleet: "", vm: trial, interface: 0)
        vm.dns = []
        vm.ports = []
        vm.publish = []
        // What asks elsewhere says nothing of the backup.
        vm.health.removeAll { check in
            check.dns != nil || check.http.map { !$0.isOfThisVM } ?? false
        }
        vm.shares = []
        vm.devices = []
        vm.vsock = .off
        // A device of the host is not ours to write to.
        vm.volumes = vm.volumes.map { volume in
            var volume = volume
            if volume.device != nil {
                volume.device = nil
                volume.size = ByteSize(bytes: 0)
            }
            return volume
        }
        vm.snapshots = nil
        vm.backups = nil
        return vm
    }
}
