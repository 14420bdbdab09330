// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux
package import Planning
package import Supervisor

/// One VM as found: what planning needs, and what the supervisor says beyond that.
package struct VMReport: Sendable {
    package var vm: ObservedVM
    package var observation: Observation
    package var run: RunRecord?
}

/// Looks at the host: records, locks, sockets.
///
/// Nothing here changes anything.
package struct Observer: Sendable {
    package let store: Store

    package init(store: Store) { self.store = store }

    /// Every VM below ROOT, by name, and warnings about what else is there.
    package func observeAll() async throws -> (reports: [VMReport], warnings: [String]) {
        let names = try store.names()
        let reports = await withTaskGroup(of: VMReport.self) { group in
            for name in names.vms { group.addTask { await observe(name) } }
            return await group.reduce(into: []) { $0.append($1) }
        }
        let warnings = names.foreign.map { "\($0) is no VM of martlet's: left alone" }
        return (reports.sorted { $0.vm.name < $1.vm.name }, warnings)
    }

    /// One VM; one that nothing is known of is absent.
    package func observe(_ name: String) async -> VMReport {
        let files = store.layout.vm(name)
        let runRecord = RecordFile.untrusted(RunRecord.self, from: files.runRecord)
        var exitRecord = RecordFile.untrusted(ExitRecord.self, from: files.exitRecord)
        // Asked first: a VM that ends between the two looks is then seen as ended, with its record.
        let status = try? await ControlClient(files.controlSocket).status()
        let held = (try? FileLock.isHeld(files.lock)) ?? false
        if !held, exitRecord?.run != runRecord?.run {
            // It has left since the first look, or was killed: its record is its last word.
            exitRecord = RecordFile.untrusted(ExitRecord.self, from: files.exitRecord)
        }
        let observation = Observation.observe(
            lockHeld: held, runRecord: runRecord, exitRecord: exitRecord,
            bootID: Clock.bootID(), controlStatus: held ? status : nil)
        var vm = ObservedVM(
            name: name, phase: .init(observation.state), reason: observation.reason)
        if !held, savedMemory(files) != nil {
            vm.phase = .suspended
            vm.reason = nil
        }
        readRecords(into: &vm, running: status?.generation ?? runRecord?.generation)
        readUpgrade(into: &vm, files)
        return VMReport(vm: vm, observation: observation, run: held ? runRecord : nil)
    }

    private func readRecords(into vm: inout ObservedVM, running: Int?) {
        do throws(StoreError) {
            vm.fleet = try store.record(vm.name)?.fleet
            vm.applied = try store.current(vm.name).map(ObservedVM.Generation.init)
            if vm.phase.isLive, let running {
                vm.running =
                    running == vm.applied?.number
                    ? vm.applied
                    : try store.generation(vm.name, running).map(ObservedVM.Generation.init)
            }
            if vm.applied == nil, vm.phase == .stopped { vm.phase = .absent }
        } catch {
            if case .unreadable(let path, let reason) = error {
                vm.damaged = path
                vm.reason = "\(path) cannot be read: \(reason)"
            } else {
                vm.problem = error.description
                vm.reason = error.description
            }
            if !vm.phase.isLive { vm.phase = .failed }
        }
    }
}

extension Observer {
    /// What is remembered of the VM's images, and whether an upgrade of it has no verdict yet.
    private func readUpgrade(into vm: inout ObservedVM, _ files: VMLayout) {
        do throws(StoreError) {
            let memory = try store.imageMemory(vm.name)
            vm.pinned = memory.pinned
            vm.failedImages = memory.failed
            guard let record = try store.upgradeRecord(vm.name), let current = vm.applied else {
                return
            }
            let isHeld = (try? FileLock.isHeld(files.changeLock)) ?? false
            switch record.step(current: current.number) {
            case .forget where !record.starts: break
            case .wait where !record.starts:
                // A service manager may have started it without asking.
                if vm.running?.number != current.number { vm.upgrade = .untried }
            default: vm.upgrade = isHeld ? .underWay : .interrupted
            }
        } catch {
            if case .newer = error { vm.problem = vm.problem ?? error.description }
            vm.reason = vm.reason ?? error.description
        }
        switch vm.upgrade {
        case .underWay: vm.reason = vm.reason ?? "it is being upgraded"
        case .interrupted:
            vm.reason =
                vm.reason
                ?? "an upgrade of it was interrupted: 'martlet up \(vm.name)' finishes it"
        case .untried, nil: break
        }
    }
}

extension Engine {
    /// The names of a fleet's VMs that are below ROOT; without a fleet, of all.
    package func names(of fleet: Fleet?) throws -> [String] {
        try store.names().vms.filter { name in
            guard let fleet else { return true }
            return (try? store.record(name))??.fleet == fleet.name
        }
    }
}

extension ObservedVM.Generation {
    init(_ record: GenerationRecord) {
        self.init(number: record.number, vm: record.vm, imageDigest: record.imageDigest)
    }
}

extension ObservedVM.Phase {
    init(_ state: VMState) {
        self =
            switch state {
            case .stopped: .stopped
            case .starting: .starting
            case .running: .running
            case .stopping: .stopping
            case .paused: .paused
            case .failed: .failed
            }
    }
}
