// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux
package import Planning
import Supervisor

extension Engine {
    /// Carries a plan out as far as it can, and says of each VM what was done.
    ///
    /// VMs are changed side by side; one waits only for those that it names in `after`. `digests`
    /// holds the image of each VM, `failures` why one has none.
    package func apply(
        _ plan: Plan, of fleet: Fleet, digests: [String: String], failures: [String: any Error]
    ) async -> [Outcome] {
        let turns = Turns()
        let concerned = Set(plan.steps.map(\.vm))
        await releaseEnded(of: fleet.name)
        var networkFailure: (any Error)?
        do { try await declareNetworks(of: fleet) } catch { networkFailure = error }
        var secretFailure: (any Error)?
        do { try declareSecrets(of: fleet) } catch { secretFailure = error }
        let failures = failures.merging(
            failing(fleet.vms.filter(\.isOnNetwork), networkFailure)
                + failing(fleet.vms.filter { !$0.secretCredentials.isEmpty }, secretFailure)
        ) { old, _ in old }
        let outcomes = await withTaskGroup(of: Outcome.self) { group in
            for step in plan.steps {
                group.addTask {
                    let waits = fleet.vm(step.vm)?.after.filter { concerned.contains($0) } ?? []
                    let outcome =
                        if let failed = await turns.firstFailure(of: waits) {
                            Outcome(
                                vm: step.vm, action: step.name, seconds: 0,
                                result: .failure(PlanError.notTried(after: failed)))
                        } else {
                            await carryOut(
                                step, fleet: fleet, digest: digests[step.vm],
                                failure: failures[step.vm])
                        }
                    await turns.finish(step.vm, ok: outcome.ok)
                    reporter.finished(step.vm, ok: outcome.ok, outcome.detail)
                    return outcome
                }
            }
            var outcomes: [String: Outcome] = [:]
            for await outcome in group { outcomes[outcome.vm] = outcome }
            return plan.steps.compactMap { outcomes[$0.vm] }
        }
        do {
            try await declareUnits(of: fleet)
        } catch {
            reporter.warning(
                "not all VMs of '\(fleet.name)' start with the host as declared: \(error)")
        }
        return outcomes
    }

    /// What could not be made for all concerns the VMs that need it.
    private func failing(_ vms: [VM], _ error: (any Error)?) -> [(String, any Error)] {
        guard let error else { return [] }
        return vms.map { ($0.name, error) }
    }

    private func carryOut(
        _ step: Plan.Step, fleet: Fleet, digest: String?, failure: (any Error)?
    ) async -> Outcome {
        let start = Clock.monotonic()
        let result: Result<String, any Error>
        do {
            if let refusal = step.refusal { throw PlanError.refused(refusal.reason) }
            if let failure { throw failure }
            try await checkForwards(step, of: fleet)
            try await checkVolumes(step, of: fleet)
            try await checkShares(step, of: fleet)
            try await checkSecrets(step, of: fleet)
            let (vm, digest) = await kept(fleet.vm(step.vm), digest)
            let detail = try await changing(step.vm) { files in
                var detail = "done"
                for action in step.actions {
                    detail = try await perform(action, step, files, vm, of: fleet, digest: digest)
                    Checkpoint.pass()
                }
                return detail
            }
            result = .success(detail)
        } catch {
            result = .failure(error)
        }
        return Outcome(
            vm: step.vm, action: step.name,
            seconds: Double(Clock.monotonic() - start) / 1e9, result: result)
    }

    private func perform(
        _ action: Action, _ step: Plan.Step, _ files: VMLayout, _ vm: VM?, of fleet: Fleet,
        digest: String?
    ) async throws -> String {
        let name = step.vm
        switch action {
        case .create, .update:
            guard let vm, let digest else { throw LifecycleError.notCreated(name) }
            reporter.working(name, action == .create ? "creating" : "updating")
            try await declare(vm, fleet: fleet.name, digest: digest, files)
            if action == .create { return "created" }
            if step.actions.last == .update, await observer.observe(name).vm.phase.isLive {
                try await handOver(vm, files, changed: step.changes.compactMap(\.field))
            }
            return "updated"
        case .start:
            let started = try await bringUp(name, files)
            try await awaitTurn(name)
            return "up after \(tenths(started.bootSeconds)) s"
        case .restart:
            _ = try await halt(name, files)
            let started = try await bringUp(name, files)
            try await awaitTurn(name)
            return "restarted, up after \(tenths(started.bootSeconds)) s"
        case .rebuild:
            guard let vm, let digest else { throw LifecycleError.notCreated(name) }
            _ = try await settleUpgrade(name, files)
            return try await changeImage(vm, fleet: fleet.name, digest: digest, files)
        case .stop:
            return try await halt(name, files).detail
        case .refuse:
            return step.refusal?.reason ?? "refused"
        }
    }

    /// A declared VM and its image, with the applied image in its place where that is held.
    private func kept(_ vm: VM?, _ digest: String?) async -> (VM?, String?) {
        guard var vm else { return (nil, digest) }
        let observed = await observer.observe(vm.name).vm
        let desired = digest.map { DesiredImage.built(digest: $0) } ?? .unbuilt(name: "")
        guard let applied = observed.applied, observed.hold(vm, against: desired) != nil else {
            return (vm, digest)
        }
        vm.image = applied.vm.image
        return (vm, applied.imageDigest)
    }

    /// Writes whose VM it is, and its next generation unless it is the current one already.
    ///
    /// `origin` is the fleet of the VM that this one is a throw-away copy of.
    func declare(
        _ vm: VM, fleet: String?, origin: String? = nil, digest: String, _ files: VMLayout
    ) async throws {
        try setAsideDamaged(vm.name)
        if try store.record(vm.name) == nil {
            let record = VMRecord(
                name: vm.name, fleet: fleet, createdAt: Clock.now(), origin: origin)
            try RecordFile.write(record, to: files.record)
            Checkpoint.pass()
        }
        try keepAddresses(vm, files)
        let current = try store.current(vm.name)
        if current?.vm == vm, current?.imageDigest == digest { return }
        if let current { try await noteUpgrade(of: current, digest: digest) }
        _ = try store.add(vm, imageDigest: digest)
        Checkpoint.pass()
        // A VM that is made and not started has its disk and identity all the same.
        if current == nil { try await makeLasting(vm.name) }
    }

    /// Moves records that cannot be read to ROOT/quarantine, so that they can be written again.
    private func setAsideDamaged(_ name: String) throws {
        while case .unreadable(let path, let reason)? = damage(name) {
            let target = Files.exists(path) ? try store.quarantine(path) : nil
            if target == nil { try Files.remove(layout.vm(name).current) }
            reporter.warning(
                "\(path) cannot be read (\(reason))" + (target.map { ": it is now \($0)" } ?? ""))
        }
    }

    /// Why a VM's records cannot be read; nil when they can, or are not there.
    func damage(_ name: String) -> StoreError? {
        do throws(StoreError) {
            _ = try store.record(name)
            _ = try store.current(name)
            return nil
        } catch {
            return error
        }
    }

    /// Gives a running VM's supervisor the part of a new generation that it can take over.
    private func handOver(_ vm: VM, _ files: VMLayout, changed: [String]) async throws {
        guard let running = await observer.observe(vm.name).vm.running else {
            throw LifecycleError.failed(
                vm: vm.name, reason: "what it runs is not known: 'martlet restart \(vm.name)'")
        }
        // First, for a generation whose disks have not grown yet must not be reported as running.
        try await growLive(vm, running: running.vm, files)
        let user = try allocateUser(vm.name)
        var spec = try await launched(running, files, user: user)
        spec.apply(vm)
        // What the guest sees only after a restart is not yet there, and must not be reported.
        let waits = vm.differences(from: running.vm).contains {
            let isRouted = vm.isOnNetwork && running.vm.isOnNetwork
            return consequence(ofChanging: $0.field, onNetwork: isRouted) > .live
        }
        if !waits, let current = try store.current(vm.name),
            current.imageDigest == running.imageDigest
        {
            spec.generation = current.number
        }
        try write(files.launch, encoded(spec), ownedBy: user)
        try await ControlClient(files.controlSocket).reload()
        if changed.contains(where: { $0.hasPrefix("limits") }) {
            if let manager = try services(for: vm.name) {
                try await declareUnit(vm.name, manager)
                try await manager.limit(vm, disks: layout.root)
            } else {
                changeLimits(of: vm, files)
            }
        }
        try await handOverNetwork(vm, running: running.vm, files, changed: changed)
    }

    /// What a running VM's supervisor was started with; made again when the file is damaged.
    private func launched(
        _ running: ObservedVM.Generation, _ files: VMLayout, user: UInt32?
    ) async throws -> SuperviseSpec {
        if let spec = try? RecordFile.plain(SuperviseSpec.self, from: files.launch) { return spec }
        guard let generation = try store.generation(files.name, running.number) else {
            throw LifecycleError.notCreated(files.name)
        }
        let uuid = generation.vm.uuid?.text
        let identity = try await Identity.ensure(files, uuid: uuid, user: user)
        return try await superviseSpec(generation, identity, files).spec
    }
}

/// Why a step of a plan was not taken.
package enum PlanError: Error, Equatable, CustomStringConvertible {
    case refused(String)
    case notTried(after: String)

    package var description: String {
        switch self {
        case .refused(let reason): reason
        case .notTried(let name): "not tried: it comes after \(name), which failed"
        }
    }
}

extension Plan.Step {
    /// The word for all of it: the last action is what people asked for.
    package var name: String { actions.last?.rawValue ?? "none" }
}

/// Who of a plan is done, for those that come after.
private actor Turns {
    private var done: [String: Bool] = [:]
    private var waiting: [String: [CheckedContinuation<Bool, Never>]] = [:]

    func finish(_ name: String, ok: Bool) {
        done[name] = ok
        for continuation in waiting.removeValue(forKey: name) ?? [] {
            continuation.resume(returning: ok)
        }
    }

    /// Waits for all, and returns the first that failed.
    func firstFailure(of names: [String]) async -> String? {
        for name in names {
            let ok =
                if let known = done[name] {
                    known
                } else {
                    await withCheckedContinuation { waiting[name, default: []].append($0) }
                }
            if !ok { return name }
        }
        return nil
    }
}

/// A number of seconds with one decimal.
func tenths(_ seconds: Double) -> String {
    let tenths = Int((seconds * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)"
}
