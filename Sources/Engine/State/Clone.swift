// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Glibc
import Hypervisors
import Images
import Linux
import Storage
import Supervisor

/// What a clone was made from.
package struct Cloned: Sendable {
    /// What is known of its disks' content.
    package let consistency: SnapshotRecord.Consistency
    package let why: String?
    /// What was not taken over, each in words.
    package let dropped: [String]
}

extension VMLayout {
    /// A clone that is being made; complete, it is renamed to the new VM's folder.
    var unfinishedClone: String { path + "/clone.new" }
    /// The override of a VM that has just been made, on its way to ROOT/overrides.
    var firstOverride: String { path + "/override.yaml" }
}

extension Engine {
    /// The configuration that a clone, or a VM made from a snapshot, is to have.
    package func newVM(
        from source: String, at snapshot: String?, named name: String
    ) async throws -> AddedVM {
        guard isNameOfVM(name) else { throw CloneError.badName(name) }
        guard !Files.exists(layout.vm(name).path) else { throw CloneError.taken(name) }
        guard let fleet = try store.record(source)?.fleet else {
            throw CloneError.noFleet(source)
        }
        let (generation, origin) = try await self.generation(of: source, at: snapshot)
        guard try images.resolve(generation.imageDigest) != nil else {
            throw LifecycleError.missingImage(vm: source, digest: generation.imageDigest)
        }
        return AddedVM(generation.vm, named: name, fleet: fleet, origin: origin)
    }

    private func generation(
        of source: String, at snapshot: String?
    ) async throws -> (GenerationRecord, String) {
        if let snapshot {
            let record = try self.snapshot(source, snapshot)
            return (record.generation, "Made from the snapshot '\(snapshot)' of \(source).")
        }
        let access = try await diskAccess(source, layout.vm(source))
        return (access.generation, "Cloned from \(source) at \(Clock.iso8601(Clock.now())).")
    }

    /// Makes a new VM with copies of another one's disks, as they are or as they were at a snapshot.
    ///
    /// All of it is made beside the source and gets its place by one rename: killed before, there is
    /// no new VM; killed after, it is complete.
    package func clone(
        _ source: String, at snapshot: String?, as new: AddedVM
    ) async throws -> Cloned {
        let name = new.vm.name
        let cloned = try await changing(source) { files in
            // Between the look before and the lock, both may have changed.
            let (generation, _) = try await self.generation(of: source, at: snapshot)
            guard !Files.exists(layout.vm(name).path) else { throw CloneError.taken(name) }
            let staging = VMLayout(name: name, path: files.unfinishedClone, run: "")
            try Files.remove(staging.path)
            do {
                // The VM's own user passes through this one, and through no other.
                try Files.makeFolder(staging.path)
                try Files.makeFolder(staging.disks, mode: 0o700)
                let content = try await copyDisks(of: generation, at: snapshot, files, to: staging)
                try writeRecords(new, generation.imageDigest, of: source, staging)
                Checkpoint.pass()
                try setAsideOverride(name)
                try Files.renameNew(staging.path, layout.vm(name).path)
                try Files.syncFolder(layout.vms)
                Checkpoint.pass()
                return Cloned(
                    consistency: content.consistency, why: content.why,
                    dropped: new.dropped)
            } catch let error as SystemError where error.isExisting {
                try Files.remove(staging.path)
                throw CloneError.taken(name)
            } catch {
                await abandonUnfinishedCopies(files)
                try? Files.remove(staging.path)
                throw error
            }
        }
        // Also moves its override into place.
        _ = try await changing(name) { _ in try await makeLasting(name) }
        return cloned
    }

    private func writeRecords(
        _ new: AddedVM, _ digest: String, of source: String, _ staging: VMLayout
    ) throws {
        let fleet = try store.record(source)?.fleet
        let record = VMRecord(name: new.vm.name, fleet: fleet, createdAt: Clock.now())
        try RecordFile.write(record, to: staging.record)
        try Files.makeFolder(staging.generations)
        let generation = GenerationRecord(
            number: 1, appliedAt: Clock.now(), imageDigest: digest, vm: new.vm)
        try RecordFile.write(generation, to: staging.generation(1))
        try Files.link("1.json", at: staging.current)
        try noteFilesystems(of: new.vm, on: new.vm.volumes.map(\.name), staging)
        try Files.write(staging.firstOverride, new.text)
        try Files.syncFolder(staging.path)
    }

    /// An override of that name which belongs to no VM must not be mixed with the new one.
    private func setAsideOverride(_ name: String) throws {
        guard Files.exists(layout.override(name)) else { return }
        let kept = try store.quarantine(layout.override(name))
        reporter.warning("there was an override for '\(name)': it is now \(kept)")
    }

    /// Moves the override of a VM that has just been made to where the fleet's reader looks.
    func installOverride(_ files: VMLayout) throws {
        guard Files.exists(files.firstOverride) else { return }
        try Files.makeFolder(layout.overrides, mode: 0o700)
        // Not by rename: the VMs may lie on a file system of their own.
        try Files.write(layout.override(files.name), try Files.read(files.firstOverride))
        try Files.remove(files.firstOverride)
        try Files.syncFolder(files.path)
    }

    /// Records a VM that was added as the fleet reads it now: with addresses of its own.
    package func adopt(_ vm: VM, of fleet: Fleet) async throws {
        try await changing(vm.name) { files in
            guard let current = try store.current(vm.name) else { return }
            try await declare(vm, fleet: fleet.name, digest: current.imageDigest, files)
        }
    }
}

/// Why no VM can be made from another one.
package enum CloneError: Error, Equatable, CustomStringConvertible {
    case badName(String)
    case taken(String)
    case noFleet(String)

    package var description: String {
        switch self {
        case .badName(let name):
            "'\(name)' is no name for a VM: it takes a-z, 0-9 and inner '-', at most 32 characters"
        case .taken(let name):
            "'\(name)' exists already, or its identity is kept: choose another name, or remove it "
                + "with 'martlet purge \(name)'"
        case .noFleet(let source):
            "\(source) belongs to no fleet, so there is none that a VM could be added to"
        }
    }
}
