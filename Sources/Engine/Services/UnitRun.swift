// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Planning
package import Supervisor

extension Layout {
    /// Locked while a run of martlet that has prepared a VM, and changes it, waits for its unit.
    ///
    /// No VM can have a name with a dot.
    func unitRequest(_ vm: String) -> String { "\(run)/\(vm).start" }
}

// MARK: - By the command line

extension Engine {
    /// Starts the unit of a VM that is prepared; returns when its guest is up.
    func startUnit(_ name: String, _ manager: ServiceManager) async throws {
        try await declareUnit(name, manager)
        let request = layout.unitRequest(name)
        guard let lock = try FileLock.attempt(request) else { throw StoreError.locked(vm: name) }
        do {
            try await manager.start(name)
        } catch {
            let reason = await observer.observe(name).vm.reason
            let words = await manager.lastWords(name)
            throw LifecycleError.failed(vm: name, reason: reason ?? words ?? "\(error)")
        }
        _ = consume lock
        try Files.remove(request)
    }
}

// MARK: - By the unit itself

extension Engine {
    /// What a unit does before its supervisor starts: `prepare`, and handing over what only root
    /// can open, by way of the service manager.
    package func prepareUnit(_ name: String, manager: Notify) async throws {
        let files = layout.vm(name)
        if try FileLock.isHeld(layout.unitRequest(name)) {
            // Who asked for the unit holds the VM's change lock, and has checked and prepared all.
            // A unit that was still stopping meanwhile has taken it away again.
            if !Files.exists(files.launch) {
                try await prepare(name, resuming: observer.savedMemory(files) != nil)
            }
            return try await handOver(name, files, to: manager)
        }
        try await awaitPredecessors(name)
        try await changingSoon(name) { files in
            if let memory = observer.savedMemory(files) {
                try await checkResumable(memory, files)
                try await prepare(name, resuming: true)
            } else {
                _ = try await settleUpgrade(name, files)
                guard let vm = try store.current(name)?.vm else {
                    throw LifecycleError.notCreated(name)
                }
                try await checkForwards(of: vm, besides: nil)
                try await checkShares(of: vm)
                try await prepare(name)
            }
            try await handOver(name, files, to: manager)
        }
    }

    /// What a unit does when its guest is up.
    package func finishUnit(_ name: String) async throws {
        let files = layout.vm(name)
        // A command that asked for the unit sees to it itself, when all are up.
        if try !FileLock.isHeld(layout.unitRequest(name)) {
            await refreshPublishing(starting: name)
        }
        guard let vm = try RecordFile.plain(VM.self, from: files.attachment) else { return }
        try await restartRelay(vm)
    }

    /// Opens what the supervisor of a VM needs and gives it to the service manager, the VM's lock
    /// first: from then on nobody takes the VM for one that does not run.
    private func handOver(_ name: String, _ files: VMLayout, to manager: Notify) async throws {
        guard let lock = try FileLock.attempt(files.lock) else {
            throw SupervisorError.alreadyRunning(name)
        }
        let vm = try store.current(name)?.vm ?? VM(name: name)
        var handed = Inheritance()
        defer { for one in handed.machine + [handed.shares].compactMap(\.self) { close(one) } }
        handed.machine = try await openTaps(
            vm, fleet: store.record(name)?.fleet, user: allocateUser(name))
        handed.machine += try openDevices(vm)
        handed.shares = try await startKeeper(vm, files)
        handed.lock = lock.raw
        if Reach(of: vm) != nil {
            let group = try? await unitGroup(name)
            closeReach(of: vm) {
                guard let group else {
                    throw SystemError("its unit has no group of the second version", ENODEV)
                }
                return group
            }
        }
        try handed.store(with: manager)
        // Closed and not unlocked: the manager holds it now, and hands it on.
        close(lock.release())
    }

    /// The control group of a VM's unit in the second version's tree; nil where it has none.
    private func unitGroup(_ name: String) async throws -> String? {
        guard let unified = ControlGroups.find().unified, let manager = try services(for: name)
        else { return nil }
        let words = ["show", "--property=ControlGroup", "--value", ServiceManager.unit(name)]
        let said = try await manager.call("ask for the group of \(name)", words).text
        let group = said.prefix { $0 != "\n" }
        return group.isEmpty ? nil : unified + group
    }

    /// Runs a change as soon as another run of martlet is through, within a minute.
    private func changingSoon(
        _ name: String, _ body: @Sendable (VMLayout) async throws -> Void
    ) async throws {
        let patience = Clock.monotonic() + 60_000_000_000
        while true {
            do {
                return try await changing(name, body)
            } catch StoreError.locked where Clock.monotonic() < patience {
                try await Task.sleep(for: .milliseconds(200))
            }
        }
    }

    /// Waits for the VMs that come before one, for as long as they are about to become healthy.
    ///
    /// The service manager has started them by now, as far as it was asked to; one that failed does
    /// not keep others from what they can do without it.
    private func awaitPredecessors(_ name: String) async throws {
        for other in try store.current(name)?.vm.after ?? [] {
            while true {
                let report = await observer.observe(other)
                let isComing =
                    report.vm.phase == .starting || report.observation.health == .starting
                guard report.vm.phase.isLive, isComing else { break }
                try await Task.sleep(for: .milliseconds(250))
            }
        }
    }
}
