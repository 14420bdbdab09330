// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Hypervisors
import Images
import Linux
import Planning
import Supervisor

/// What the memory of a suspended VM belongs to: `suspended.json`.
///
/// It is written down before anything happens, and counts only with an exit record of the same run
/// that says `suspended`: that one the supervisor writes when all is on disk, and removes before a
/// CPU runs again. So there is one moment at which a VM becomes suspended, and one at which it ends.
struct SuspendRecord: Codable, Equatable {
    static let version = 1
    var version = SuspendRecord.version
    /// The supervisor's word for its run.
    let run: String
    let at: Int64
    let generation: Int
    let imageDigest: String
    /// The version of the hypervisor whose memory it is.
    let hypervisor: String
    /// Of the machine, as `Engine.machineDigest` makes it.
    let machine: String
    /// The disks after something that leaves their content as it was; else the exit record has them.
    var disks: [String: DiskStamp]?
}

/// Memory that waits for `resume`.
struct WaitingMemory {
    let record: SuspendRecord
    let saved: SavedMemory
    var disks: [String: DiskStamp] { record.disks ?? saved.disks }
}

/// What `suspend` did.
package struct Suspended: Sendable, Equatable {
    /// Size of the memory on disk.
    package let bytes: Int64
    package let seconds: Double
}

extension Observer {
    /// What a VM that does not run is to go on from; nil when it is not suspended.
    func savedMemory(_ files: VMLayout) -> WaitingMemory? {
        guard
            let record = try? RecordFile.read(
                SuspendRecord.self, from: files.suspendRecord, newest: SuspendRecord.version),
            let exit = RecordFile.untrusted(ExitRecord.self, from: files.exitRecord),
            exit.ending == .suspended, exit.run == record.run, let saved = exit.saved,
            let size = files.savedMemories.lazy.compactMap({ try? Files.status($0).size }).first,
            size == saved.bytes
        else { return nil }
        return WaitingMemory(record: record, saved: saved)
    }
}

// MARK: - Suspending

extension Engine {
    /// Writes the memory of a running VM to disk and ends it; its networks are released.
    package func suspend(_ name: String) async throws -> Suspended {
        let start = Clock.monotonic()
        return try await changing(name) { files in
            let report = await observer.observe(name)
            guard report.vm.phase == .running, let running = report.vm.running, let run = report.run
            else {
                throw LifecycleError.cannotSuspend(
                    vm: name, reason: "it is \(report.vm.phase.rawValue), not running")
            }
            try checkSuspendable(running.vm)
            let client = ControlClient(files.controlSocket)
            let version = try await client.hypervisor("query-version")["qemu"]
            guard let major = version?["major"]?.integer, let minor = version?["minor"]?.integer
            else {
                throw LifecycleError.cannotSuspend(
                    vm: name, reason: "its hypervisor does not tell its version")
            }
            let record = SuspendRecord(
                run: run.run, at: Clock.now(), generation: running.number,
                imageDigest: running.imageDigest, hypervisor: "\(major).\(minor)",
                machine: try await machineDigest(running, files))
            reporter.working(name, "writing its memory to disk")
            try makeMemoryFile(record, files)
            Checkpoint.pass()
            do {
                try await client.suspend(memory: files.memory)
            } catch ControlError.notRunning {
                // Its supervisor has left, and what it wrote says how.
            } catch {
                try discardMemory(files)
                throw LifecycleError.cannotSuspend(vm: name, reason: "\(error)")
            }
            try await awaitRelease(name, files)
            Checkpoint.pass()
            try await endRun(name)
            guard let memory = observer.savedMemory(files) else {
                throw LifecycleError.cannotSuspend(vm: name, reason: "it ended meanwhile")
            }
            return Suspended(
                bytes: memory.saved.bytes, seconds: Double(Clock.monotonic() - start) / 1e9)
        }
    }

    private func checkSuspendable(_ vm: VM) throws {
        func refuse(_ reason: String) -> LifecycleError {
            .cannotSuspend(vm: vm.name, reason: reason)
        }
        if let share = vm.shares.first {
            throw refuse(
                "the share \(share.tag) is served by a process whose state cannot be saved: "
                    + "'martlet pause \(vm.name)', or declare it without shares")
        }
        if !vm.devices.isEmpty {
            throw refuse(
                "it has devices of the host, whose state cannot be saved: "
                    + "'martlet pause \(vm.name)', or declare it without them")
        }
    }

    /// The record first, and an empty file that the VM's own user can fill.
    private func makeMemoryFile(_ record: SuspendRecord, _ files: VMLayout) throws {
        try discardMemory(files)
        try RecordFile.write(record, to: files.suspendRecord)
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW
        let user = try allocateUser(files.name)
        // A VM that was started before there was such a folder has none.
        try makeFolder(files.saved, ownedBy: user)
        let memory = try Descriptor.open(files.memory, flags, mode: 0o600)
        // By descriptor: the folder is the VM's own, and what is under the name may be another file.
        if let user { try check("chown \(files.memory)") { fchown(memory.raw, user, user) } }
        try Files.syncFolder(files.saved)
    }

    /// A digest of the machine that a generation makes, without the files that only a boot reads.
    private func machineDigest(
        _ generation: ObservedVM.Generation, _ files: VMLayout
    ) async throws -> String {
        guard let record = try store.generation(files.name, generation.number) else {
            throw LifecycleError.notCreated(files.name)
        }
        return try await machineDigest(record, files)
    }

    private func machineDigest(
        _ generation: GenerationRecord, _ files: VMLayout
    ) async throws -> String {
        let vm = generation.vm
        guard let image = try images.resolve(generation.imageDigest) else {
            throw LifecycleError.missingImage(vm: vm.name, digest: generation.imageDigest)
        }
        let identity = try await Identity.ensure(
            files, uuid: vm.uuid?.text, user: try allocateUser(vm.name))
        let plan = MachinePlan(
            generation: generation, files: files, uuid: identity.uuid,
            accelerator: accelerator(for: vm), hypervisor: "", boot: images.bootFiles(image),
            entries: [], oemStringFiles: [])
        var launch = plan.superviseSpec().launch
        // How code is translated is no part of the machine, and a limit changes it.
        launch.translationCacheBytes = nil
        launch.splitTranslation = false
        var digest = SHA256()
        digest.update(try encoded(launch))
        return digest.finish()
    }
}

// MARK: - Resuming

extension Engine {
    /// Lets a suspended VM go on; returns the seconds from the hypervisor's start to that.
    package func resume(_ name: String) async throws -> Double {
        try await changing(name) { files in
            let phase = await observer.observe(name).vm.phase
            guard phase == .suspended, let memory = observer.savedMemory(files) else {
                throw LifecycleError.failed(
                    vm: name,
                    reason: "it is \(phase.rawValue), not suspended"
                        + (phase.isLive ? "" : ": 'martlet start \(name)' boots it"))
            }
            try await checkResumable(memory, files)
            reporter.working(name, "loading its memory")
            if let vm = try store.current(name)?.vm {
                try await checkForwards(of: vm, besides: nil)
            }
            try await prepare(name, resuming: true)
            Checkpoint.pass()
            do {
                try await startPrepared(name, files)
            } catch {
                try? await endRun(name)
                throw error
            }
            Checkpoint.pass()
            // Its supervisor has made it worthless before the guest went on; this frees the space.
            try discardMemory(files)
            return try await awaitBoot(name)
        }
    }

    /// Refuses memory that does not fit what it would be loaded into.
    func checkResumable(_ memory: WaitingMemory, _ files: VMLayout) async throws {
        func refuse(_ reason: String) -> LifecycleError {
            .cannotResume(vm: files.name, reason: reason)
        }
        let record = memory.record
        guard let current = try store.current(files.name) else {
            throw LifecycleError.notCreated(files.name)
        }
        guard current.imageDigest == record.imageDigest else {
            throw refuse("it was suspended with another image, \(short(record.imageDigest))")
        }
        let before = try store.generation(files.name, record.generation)?.vm
        let changed = current.vm.differences(from: before ?? current.vm).filter {
            let isRouted = current.vm.isOnNetwork && before?.isOnNetwork == true
            return consequence(ofChanging: $0.field, onNetwork: isRouted) > .live
        }
        if let first = changed.first {
            throw refuse("`\(first.field)` has changed since it was suspended")
        }
        let version = try await QEMU.version(of: try hypervisor())?.description
        guard version == record.hypervisor else {
            throw refuse(
                "it was suspended by QEMU \(record.hypervisor), and \(version ?? "another program") "
                    + "is installed")
        }
        guard try await machineDigest(current, files) == record.machine else {
            throw refuse("this host would make another machine of it than the one it was")
        }
        for (path, stamp) in memory.disks.sorted(by: { $0.key < $1.key })
        where (try? DiskStamp.of(path)) != stamp {
            throw refuse("\(path) was changed since it was suspended")
        }
    }
}

// MARK: - Losing and keeping it

extension Engine {
    /// Moves memory that an earlier version has saved to where it is looked for now.
    func moveEarlierMemory(_ files: VMLayout) throws {
        guard Files.exists(files.earlierMemory), !Files.exists(files.memory) else { return }
        try Files.rename(files.earlierMemory, files.memory)
        try Files.syncFolder(files.saved)
    }

    /// Makes what is saved of a VM worthless, for good, and removes it.
    ///
    /// To be called before anything is done to the disks of a VM that may be suspended: memory that
    /// meets other disks than its own destroys what is on them.
    func discardMemory(_ files: VMLayout) throws {
        for path in files.suspended where Files.exists(path) {
            try Files.remove(path)
            try Files.syncFolder(Files.parent(path))
        }
    }

    /// Runs what changes files of disks and leaves their content as it is, such as taking a snapshot: the
    /// memory of a suspended VM goes with them afterwards as well.
    ///
    /// Killed in between, the VM is still suspended and `resume` refuses, as it cannot know.
    func keepingMemory<R>(_ files: VMLayout, _ body: () async throws -> R) async throws -> R {
        let memory = observer.savedMemory(files)
        let paths = memory.map { Array($0.disks.keys) } ?? []
        let fits = memory.map { memory in
            paths.allSatisfy { (try? DiskStamp.of($0)) == memory.disks[$0] }
        }
        func stamp() throws {
            guard var record = memory?.record, fits == true else { return }
            record.disks = try DiskStamp.all(paths)
            try RecordFile.write(record, to: files.suspendRecord)
        }
        let result: R
        do {
            result = try await body()
        } catch {
            // What fails half way has left the content as it was, too.
            try? stamp()
            throw error
        }
        try stamp()
        return result
    }

    /// Removes what a `suspend` or `resume` that was killed left and nobody goes on from.
    func removeStaleMemory(_ files: VMLayout) async throws {
        guard files.suspended.contains(where: { Files.exists($0) }) else { return }
        if try FileLock.isHeld(files.lock) {
            // Its supervisor may be writing there, whoever asked for it.
            let status = try? await ControlClient(files.controlSocket).status()
            guard let state = status?.state, state == .running || state == .paused else { return }
        } else if observer.savedMemory(files) != nil {
            return
        }
        try discardMemory(files)
    }
}
