// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// What is known of the image that a VM names.
package enum DesiredImage: Sendable, Equatable {
    case built(digest: String)
    /// It has to be built first; its digest is known only then.
    case unbuilt(name: String)
}

/// States what would change to turn what was observed into what is declared.
///
/// Pure and total: every state and every fleet have a plan, and what cannot be done is in it as a
/// refusal with its reason. `names` are the VMs that are concerned, nil for all; naming a VM also
/// starts one that does not start by itself. `start: false` leaves stopped what is stopped.
/// `image` is the image of a VM as the image store knows it.
package func plan(
    from state: State, to fleet: Fleet, only names: Set<String>? = nil, start: Bool = true,
    image: (VM) -> DesiredImage
) -> Plan {
    var builds: [String] = []
    var steps: [Plan.Step] = []
    var notes: [Plan.Note] = []
    for declared in inOrder(fleet.vms) where names?.contains(declared.name) ?? true {
        let observed = state.vms[declared.name] ?? ObservedVM(name: declared.name, phase: .absent)
        let (vm, desired, hold) = kept(declared, image(declared), observed)
        if let hold, vm.enable {
            notes.append(Plan.Note(vm: vm.name, text: hold.sentence(vm.name)))
        }
        let planner = Planner(
            vm: vm, fleet: fleet, image: desired, observed: observed, networks: state.networks,
            publishing: state.publishing, hasPrivilege: state.hasPrivilege,
            mayStart: start && (names != nil || vm.autostart))
        guard let step = planner.step() else { continue }
        steps.append(step)
        if case .unbuilt(let name) = desired, step.refusal == nil, vm.enable,
            !builds.contains(name)
        {
            builds.append(name)
        }
    }
    for observed in state.vms.values.sorted(by: { $0.name < $1.name })
    where fleet.vm(observed.name) == nil && observed.fleet == fleet.name
        && observed.phase.isLive && names?.contains(observed.name) ?? true
    {
        steps.append(
            stop(observed.name, reason: "no longer declared; its disks and its identity are kept"))
    }
    return Plan(builds: builds, steps: steps, notes: notes)
}

/// A declared VM and its image, with the applied image in its place where that is held.
private func kept(
    _ vm: VM, _ desired: DesiredImage, _ observed: ObservedVM
) -> (VM, DesiredImage, ImageHold?) {
    guard let applied = observed.applied, let hold = observed.hold(vm, against: desired) else {
        return (vm, desired, nil)
    }
    var vm = vm
    vm.image = applied.vm.image
    return (vm, .built(digest: applied.imageDigest), hold)
}

private func stop(_ name: String, reason: String) -> Plan.Step {
    Plan.Step(
        vm: name, actions: [.stop],
        changes: [Change(vm: name, action: .stop, consequence: .restart, reason: reason)])
}

/// The VMs so that each comes after those that it waits for, else as the file has them.
///
/// Validation has excluded cycles; a VM that is met again is not followed.
package func inOrder(_ vms: [VM]) -> [VM] {
    let byName = Dictionary(vms.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    var result: [VM] = []
    var seen: Set<String> = []
    func visit(_ vm: VM) {
        guard seen.insert(vm.name).inserted else { return }
        for name in vm.after { if let earlier = byName[name] { visit(earlier) } }
        result.append(vm)
    }
    for vm in vms { visit(vm) }
    return result
}

/// The plan for one declared VM.
private struct Planner {
    let vm: VM
    let fleet: Fleet
    let image: DesiredImage
    let observed: ObservedVM
    let networks: NetworkSettings
    let publishing: Publishing?
    let hasPrivilege: Bool
    let mayStart: Bool

    func step() -> Plan.Step? {
        let refusals = self.refusals()
        guard refusals.isEmpty else {
            return Plan.Step(vm: vm.name, actions: [.refuse], changes: refusals)
        }
        guard vm.enable else {
            return observed.phase.isLive ? stop(vm.name, reason: "enable is false") : nil
        }
        guard let applied = observed.applied else { return create() }
        if observed.upgrade == .interrupted || observed.upgrade == .underWay { return unfinished() }
        // What runs is what counts: a generation that waits for a restart is not yet a fact.
        let base = observed.phase.isLive ? observed.running ?? applied : applied
        let changes = changes(from: base)
        return observed.phase.isLive
            ? live(
                changes + networkChanges() + publishingChanges() + secretChanges(),
                applied: applied)
            : stopped(changes)
    }

    private func refusals() -> [Change] {
        func refuse(_ reason: String, field: String? = nil) -> Change {
            Change(
                vm: vm.name, action: .refuse, consequence: .live, field: field, reason: reason)
        }
        if let problem = observed.problem { return [refuse(problem)] }
        if let owner = observed.fleet, owner != fleet.name {
            return [
                refuse(
                    "it belongs to the fleet '\(owner)' under the same ROOT: "
                        + "give this VM another name")
            ]
        }
        var refusals = unavailable(vm, in: fleet).map { refuse($0.reason, field: $0.field) }
        if vm.isOnNetwork, !hasPrivilege {
            refusals.append(
                refuse(
                    "only root can make networks of the host: use sudo, or the network 'user', "
                        + "which needs no privilege", field: "interfaces"))
        }
        if let applied = observed.applied?.vm { refusals += diskRefusals(of: vm, from: applied) }
        return refusals
    }

    /// Makes the VM, or makes its records again around the disks that are there.
    private func create() -> Plan.Step {
        let isLive = observed.phase.isLive
        let reason =
            if let damaged = observed.damaged {
                "\(damaged) cannot be read: it is moved to ROOT/quarantine and written again"
            } else {
                mayStart ? "declared and not there" : "declared and not there; not started"
            }
        let then: [Action] = isLive ? [.restart] : mayStart ? [.start] : []
        return Plan.Step(
            vm: vm.name, actions: [.create] + then,
            changes: [
                Change(
                    vm: vm.name, action: .create, consequence: isLive ? .restart : .live,
                    reason: reason)
            ])
    }

    /// Before anything else an upgrade gets its verdict; what differs then is the next plan's.
    private func unfinished() -> Plan.Step {
        let reason =
            observed.upgrade == .underWay
            ? "it is being upgraded by another run" : "an upgrade was interrupted: it is finished"
        return Plan.Step(
            vm: vm.name, actions: [.rebuild],
            changes: [
                Change(vm: vm.name, action: .rebuild, consequence: .rebuild, reason: reason)
            ])
    }

    /// One change for every key that differs, with what that key costs.
    private func changes(from base: ObservedVM.Generation) -> [Change] {
        var changes = vm.differences(from: base.vm).map { field in
            let isRouted = vm.isOnNetwork && base.vm.isOnNetwork
            let consequence = consequence(ofChanging: field.field, onNetwork: isRouted)
            return Change(
                vm: vm.name, action: action(for: consequence), consequence: consequence,
                field: field.field, from: field.from, to: field.to,
                reason: diskExplanation(of: field, in: vm) ?? explanation(consequence))
        }
        // The image itself says more than its recipe: a change may well give the same digest.
        changes.removeAll { $0.consequence == .rebuild }
        let newImage: String? =
            switch image {
            case .built(let digest): digest == base.imageDigest ? nil : short(digest)
            case .unbuilt(let name): "\(name), to be built"
            }
        if let newImage {
            changes.append(
                Change(
                    vm: vm.name, action: .rebuild, consequence: .rebuild, field: "image",
                    from: short(base.imageDigest), to: newImage,
                    reason: "the guest restarts on the new image; its data stays"))
        }
        return changes
    }

    /// What differs of the networks that the VM is on: a start takes it over by itself.
    private func networkChanges() -> [Change] {
        Planning.networkChanges(for: vm, from: networks, to: fleet.networkSettings).map { change in
            Change(
                vm: vm.name, action: action(for: change.consequence),
                consequence: change.consequence, field: change.field, from: change.from,
                to: change.to, reason: explanation(change.consequence))
        }
    }

    /// What differs of how published VMs are reached: the reverse proxy takes it over.
    private func publishingChanges() -> [Change] {
        guard !vm.publish.isEmpty, let publishing else { return [] }
        return Planning.publishingChanges(from: publishing, to: fleet.publishing).map { change in
            Change(
                vm: vm.name, action: .update, consequence: .live, field: change.field,
                from: change.from, to: change.to,
                reason: "the reverse proxy takes it over without dropping a request")
        }
    }

    /// A guest gets its credentials at its start.
    private func secretChanges() -> [Change] {
        observed.staleSecrets.sorted().map { name in
            Change(
                vm: vm.name, action: .restart, consequence: .restart, field: "secrets.\(name)",
                reason: "it has a new value, and " + explanation(.restart))
        }
    }

    private func live(_ changes: [Change], applied: ObservedVM.Generation) -> Plan.Step? {
        guard let most = changes.map(\.consequence).max() else { return nil }
        if most > .live, !vm.restartIfChanged {
            // Applied once, it waits: a second `up` has nothing to do.
            let waiting = applied.vm == vm && image == .built(digest: applied.imageDigest)
            guard !waiting else { return nil }
            return Plan.Step(
                vm: vm.name, actions: [.update],
                changes: changes.map {
                    Change(
                        vm: vm.name, action: .update, consequence: .live, field: $0.field,
                        from: $0.from, to: $0.to,
                        reason: $0.consequence == .live
                            ? $0.reason : "waits for the next restart: restartIfChanged is false")
                })
        }
        let actions: [Action] =
            switch most {
            case .live: [.update]
            // An upgrade switches the generation itself, and back again when it fails.
            case .rebuild: [.rebuild]
            case .restart, .recreate, .dataLoss: [.update, .restart]
            }
        return Plan.Step(vm: vm.name, actions: actions, changes: changes)
    }

    private func stopped(_ changes: [Change]) -> Plan.Step? {
        if observed.phase == .suspended, changes.contains(where: { $0.consequence > .live }) {
            return suspended(changes)
        }
        let starts = mayStart && observed.phase != .suspended
        if starts, changes.contains(where: { $0.action == .rebuild }) {
            return Plan.Step(vm: vm.name, actions: [.rebuild], changes: changes)
        }
        var actions: [Action] = changes.isEmpty ? [] : [.update]
        var all = changes.map {
            Change(
                vm: vm.name, action: .update, consequence: .live, field: $0.field, from: $0.from,
                to: $0.to, reason: "taken over by the next start")
        }
        if starts {
            actions.append(.start)
            let why =
                switch observed.phase {
                case .failed: "it failed" + (observed.reason.map { ": \($0)" } ?? "")
                default: "declared and not running"
                }
            all.append(Change(vm: vm.name, action: .start, consequence: .live, reason: why))
        }
        return actions.isEmpty ? nil : Plan.Step(vm: vm.name, actions: actions, changes: all)
    }

    /// The memory fits only the machine that it was in, so nothing of it is changed meanwhile.
    private func suspended(_ changes: [Change]) -> Plan.Step {
        let name = vm.name
        return Plan.Step(
            vm: name, actions: [.refuse],
            changes: changes.filter { $0.consequence > .live }.map {
                Change(
                    vm: name, action: .refuse, consequence: .restart, field: $0.field,
                    from: $0.from, to: $0.to,
                    reason: "it is suspended, and its memory would be lost: first 'martlet resume "
                        + "\(name)', or 'martlet start --discard-memory \(name)'")
            })
    }

    private func action(for consequence: Consequence) -> Action {
        switch consequence {
        case .live: .update
        case .rebuild: .rebuild
        case .restart, .recreate, .dataLoss: .restart
        }
    }

    private func explanation(_ consequence: Consequence) -> String {
        consequence == .live
            ? "taken over while it runs" : "the guest sees it only after a restart"
    }
}

/// The first twelve digits of a digest, as people see it.
package func short(_ digest: String) -> String {
    let bare = digest.hasPrefix("sha256:") ? digest.dropFirst(7) : digest[...]
    return String(bare.prefix(12))
}

/// What it costs to change a key, by its dotted path.
///
/// The host alone uses the first group: the supervisor reads it again while the guest runs.
package func consequence(ofChanging field: String, onNetwork: Bool = false) -> Consequence {
    let hostOnly = [
        "after", "autostart", "backups", "boot", "enable", "health", "profiles", "publish",
        "restart", "restartIfChanged", "snapshots", "stop",
    ]
    let key = field.prefix { $0 != "." && $0 != "[" }
    if key == "image" { return .rebuild }
    // Only growing gets here: shrinking is refused.
    if isDiskSize(field) { return .live }
    // There it is the host that forwards and limits, and not the VM's own process.
    if onNetwork, ["ports", "firewall", "limits"].contains(key) { return .live }
    // The kernel holds those, whatever the guest does.
    if key == "limits", field != "limits.network" { return .live }
    return hostOnly.contains(String(key)) ? .live : .restart
}
