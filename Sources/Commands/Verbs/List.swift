// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Linux
import Planning
import Supervisor

/// `list`: every VM as it is now.
enum ListVerb {
    static let command = Command(
        "list", aliases: ["ls", "ps"], "List VMs as they are now.",
        discussion: """
            States are observed, not remembered: absent, stopped, starting, running, stopping, \
            paused, suspended, failed. With a fleet file, its VMs; without one, all below ROOT.
            """,
        parameters: [Options.vms],
        examples: [
            .init("martlet list", "A table of all VMs."),
            .init("martlet list --json", "The same for a script."),
        ]
    ) { arguments in
        try await show(Session(arguments), arguments[Options.vms])
    }

    static func show(_ session: Session, _ names: [String]) async throws {
        let views = try await session.views(names)
        if session.printer.isJSON {
            session.printer.document(.array(views.map(\.json)))
        } else {
            session.printer.table(table(views))
        }
    }

    private static func table(_ views: [VMView]) -> Table {
        var table = Table([
            "NAME", "STATE", "HEALTH", "IMAGE", .number("CPU"), .number("MEMORY"), "PORTS", "UP",
            "REASON",
        ])
        let now = Clock.now()
        for view in views {
            table.add([
                .init(view.name),
                .init(view.phase.rawValue, view.phase.role),
                .init(view.health == .none ? nil : view.health.rawValue, view.health.role),
                .init(view.image + view.imageNote),
                .init(view.vm.map { String($0.vcpu) }),
                .init(view.vm.map { Units.bytes(Int64($0.memory.max.bytes)) }),
                .init(view.vm?.ports.map(\.description).joined(separator: " ")),
                .init(view.startedAt.map { Units.duration(seconds: Double(now - $0)) }),
                .init(view.reason),
            ])
        }
        return table
    }
}

/// `status`: one VM in full, or all in short.
enum StatusVerb {
    static let name = Key<String?>.argument("NAME", "The VM; all when omitted.", candidates: .vms)

    static let security = Key<Bool>.flag(
        "security", "What holds for the processes of a VM that runs, as the kernel says.")

    static let command = Command(
        "status", "Show what is known of a VM.",
        discussion: """
            With --security each line says of one process whether something holds, what was found, \
            and why that is not enough. All of it is read from the kernel, nothing from the fleet \
            file.
            """,
        parameters: [name, security],
        examples: [
            .init("martlet status web", "One VM, with its boots, checks and addresses."),
            .init("martlet status --security web", "What keeps its processes from the host."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        if arguments[security] {
            guard let name = arguments[name] else {
                throw Failure(
                    .usage, "--security is about one VM",
                    hint: "Name it: 'martlet status --security NAME'.")
            }
            return try await SecurityView.show(session, name)
        }
        guard let name = arguments[name] else { return try await ListVerb.show(session, []) }
        guard let view = try await session.views([name]).first else { return }
        if session.printer.isJSON { return session.printer.document(view.json) }
        let now = Clock.now()
        let planned = try session.engine.plannedWork([name]).map { work in
            (work.work.rawValue, work.summary(now: now))
        }
        let published = try await session.engine.publishedNames(view.name)
        for (term, text) in rows(view, now: now) + PublishView.rows(published, now: now) + planned {
            let gap = String(repeating: " ", count: max(1, 14 - term.count))
            session.printer.line(
                session.printer.terminal.paint(term, .strong) + gap + visible(text))
        }
    }

    private static func rows(_ view: VMView, now: Int64) -> [(String, String)] {
        var rows: [(String, String)] = [("name", view.name)]
        func add(_ term: String, _ text: String?) {
            if let text, !text.isEmpty { rows.append((term, text)) }
        }
        let status = view.status
        add("fleet", view.fleet)
        add("state", view.phase.rawValue + (view.reason.map { ": \($0)" } ?? ""))
        for (index, line) in view.lastLines.enumerated() {
            add(index == 0 ? "last lines" : "", line)
        }
        add("health", view.health == .none ? "no checks declared" : view.health.rawValue)
        for check in status?.failedChecks ?? [] { add("", check) }
        let digest = view.imageDigest.map(short) ?? "not built yet"
        let age = view.imageState.map { " (\($0))" } ?? ""
        add("image", "\(view.image) \(digest)\(age)")
        add("", view.imageHold)
        add(
            "",
            view.isUntried ? "the next start tries it, and goes back when it does not come up" : nil
        )
        add("generation", view.generation.map(String.init))
        add("hypervisor", view.isLive ? "\(view.hypervisor), \(view.accelerator ?? ""), q35" : nil)
        add("cpu, memory", view.vm.map { "\($0.vcpu), \(Units.bytes(Int64($0.memory.max.bytes)))" })
        add("process", view.pid.map { "\($0)" })
        add("started", view.startedAt.map { "\(Clock.iso8601($0)) (\(Units.ago($0, now: now)))" })
        add("boot", status?.bootSeconds.map { "\(Units.duration(seconds: $0)) until login" })
        add("boot misses", status.flatMap { $0.bootMisses > 0 ? "\($0.bootMisses)" : nil })
        add(
            "guest",
            status?.guestState.map { state in
                ([state] + (status?.failedUnits ?? [])).joined(separator: " ")
            })
        add("addresses", view.addresses.joined(separator: ", "))
        add("ports", view.vm?.ports.map(\.description).joined(separator: ", "))
        for (index, share) in (view.vm?.shares ?? []).enumerated() {
            add(
                index == 0 ? "shares" : "",
                "\(share.source) at \(share.mount)" + (share.readOnly ? ", read-only" : ""))
        }
        add("restarts", view.isLive ? "\(status?.restarts ?? 0)" : nil)
        return rows
    }
}

extension ObservedVM.Phase {
    var role: Terminal.Role? {
        switch self {
        case .running: .good
        case .failed: .error
        case .starting, .stopping, .paused, .suspended: .warning
        case .absent, .stopped: nil
        }
    }
}

extension Health {
    var role: Terminal.Role? {
        switch self {
        case .healthy: .good
        case .unhealthy: .error
        case .starting: .warning
        case .none: nil
        }
    }
}
