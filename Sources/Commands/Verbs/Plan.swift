// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Hypervisors
import Planning

/// `plan` and `up`: what would change, and making it so.
enum PlanVerb {
    static let check = Key.flag("check", "Exit with 2 when changes are pending.")

    static let command = Command(
        "plan", "State what 'up' would do, and what each change costs.",
        discussion: """
            Consequences: live (nothing stops), restart (the guest restarts), rebuild (it restarts \
            on another image), recreate (fresh disks), data-loss.
            """,
        parameters: [Options.vms, check],
        examples: [
            .init("martlet plan", "Every change with its reason."),
            .init("martlet plan --check", "Ask from a script whether something is pending."),
        ],
        exitCodes: [
            ("0", "Done, or with --check: nothing to do."),
            ("2", "With --check: changes are pending."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let plan = try await session.plan(only: arguments[Options.vms])
        if session.printer.isJSON {
            session.printer.document(plan.json)
        } else {
            show(plan, session.printer)
        }
        return arguments[check] && !plan.isEmpty ? ExitCode.changesPending.rawValue : 0
    }

    static func show(_ plan: Plan, _ printer: Printer) {
        defer { for note in plan.notes { printer.note("note: \(note.vm): \(note.text)") } }
        guard !plan.isEmpty else {
            return printer.line("Nothing to do: everything is as declared.")
        }
        for image in plan.builds { printer.line("build image \(image)") }
        var table = Table(["VM", "ACTION", "CONSEQUENCE", "FIELD", "FROM", "TO", "REASON"])
        for change in plan.changes {
            table.add([
                .init(change.vm),
                .init(change.action.rawValue, change.action == .refuse ? .error : nil),
                .init(change.consequence.rawValue, change.consequence > .live ? .warning : .good),
                .init(change.field), .init(change.from), .init(change.to), .init(change.reason),
            ])
        }
        if !plan.changes.isEmpty { printer.table(table) }
        let counts = plan.summary.filter { $0.count > 0 }.map {
            "\($0.count) to \($0.action.rawValue)"
        }
        printer.line(counts.joined(separator: ", "))
    }
}

enum UpVerb {
    static let noStart = Key.flag("no-start", "Make and change VMs, and start none.")
    static let allow = Key<[Consequence]>.options(
        "allow", value: "CONSEQUENCE", "Allow what is refused otherwise: data-loss.")

    static let command = Command(
        "up", "Build, create, start and change until the fleet is as declared.",
        discussion: """
            Only what changed is touched. VMs that are no longer declared are stopped; their data \
            stays. Interrupted at any point, the next 'up' goes on from there.
            """,
        parameters: [Options.vms, noStart, allow],
        examples: [
            .init("martlet up", "Make the whole fleet as declared."),
            .init("martlet up web", "One VM only."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let names = arguments[Options.vms]
        let fleet = try session.fleet()
        let outcomes = try await session.printer.withProgress { progress in
            let engine = session.engine.reporting(to: progress.reporter)
            let declared = fleet.vms.map(\.name).filter { names.isEmpty || names.contains($0) }
            await engine.finishRestores(declared)
            let finished = await engine.finishUpgrades(declared)
            let (digests, failures) = await engine.buildImages(for: fleet, only: names)
            let plan = try await session.plan(only: names, start: !arguments[noStart])
            if plan.startsEmulated(fleet), let reason = Accelerator.detect().reason {
                progress.note("VMs are emulated, many times slower than with KVM: \(reason)")
            }
            let outcomes = await engine.apply(
                plan, of: fleet, digests: digests, failures: failures)
            for note in plan.notes { progress.note("note: \(note.vm): \(note.text)") }
            let others = declared.filter { name in !outcomes.contains { $0.vm == name } }
            let started = await engine.awaitStarting(others)
            // At last, for a name leads nowhere until its VM is there.
            return finished + outcomes + started + (await engine.publish(fleet))
        }
        try session.printer.finish(outcomes)
        if outcomes.isEmpty, !session.printer.isJSON {
            session.printer.line("Nothing to do: everything is as declared.")
        }
    }
}

extension Consequence: ArgumentValue {
    package static var expected: String { "data-loss" }
    package static var spellings: [String] { ["data-loss"] }
    package init?(argument: String) {
        guard argument == "data-loss" else { return nil }
        self = .dataLoss
    }
    package var argument: String { rawValue }
}

extension Session {
    /// The plan for the named VMs, or for all.
    func plan(only names: [String], start: Bool = true) async throws -> Plan {
        let fleet = try fleet()
        for name in names where fleet.vm(name) == nil {
            let hint = nearest(name, among: fleet.vms.map(\.name)).map { "Did you mean '\($0)'?" }
            throw Failure(.notFound, "the fleet file declares no VM '\(name)'", hint: hint)
        }
        let (reports, warnings) = try await engine.observer.observeAll()
        for warning in warnings { printer.warning(warning) }
        var vms = reports.map(\.vm)
        for index in vms.indices where vms[index].phase.isLive {
            vms[index].staleSecrets = await engine.staleSecrets(vms[index].name, in: fleet)
        }
        // VMs of one image have the same: its initramfs is put together and hashed for the answer.
        var images: [String: DesiredImage] = [:]
        return Planning.plan(
            from: State(
                vms: vms, networks: try engine.store.networkSettings(fleet.name),
                publishing: try engine.store.publishingSettings(fleet.name),
                hasPrivilege: engine.isRoot), to: fleet,
            only: names.isEmpty ? nil : Set(names), start: start
        ) { vm in
            let name = Engine.imageName(of: vm)
            let image = images[name] ?? engine.desiredImage(of: vm, in: fleet)
            images[name] = image
            return image
        }
    }
}

extension Plan {
    /// Whether it starts a VM that would use KVM if it were there.
    fileprivate func startsEmulated(_ fleet: Fleet) -> Bool {
        steps.contains { step in
            !Set(step.actions).isDisjoint(with: [.start, .restart, .rebuild])
                && fleet.vm(step.vm)?.accelerator == .auto
        }
    }

    var json: JSONValue {
        [
            "changes": .array(
                builds.map { image in
                    [
                        "vm": .null, "image": .string(image), "action": "build",
                        "consequence": "live", "field": .null, "from": .null, "to": .null,
                        "reason": "the image is not built yet",
                    ]
                }
                    + changes.map { change in
                        [
                            "vm": .string(change.vm), "action": .string(change.action.rawValue),
                            "consequence": .string(change.consequence.rawValue),
                            "field": .text(change.field), "from": .text(change.from),
                            "to": .text(change.to), "reason": .string(change.reason),
                        ]
                    }),
            "summary": .object(
                [.init("build", JSONValue(builds.count))]
                    + summary.map { .init($0.action.rawValue, JSONValue($0.count)) }),
            "notes": .array(
                notes.map { ["vm": .string($0.vm), "text": .string($0.text)] }),
        ]
    }
}
