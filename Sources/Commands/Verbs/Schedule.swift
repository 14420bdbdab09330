// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Linux
import Planning

/// `schedule`: work that is done by the clock.
enum ScheduleVerbs {
    static let loop = Key.flag(
        "loop", "Stay, and look every minute: for hosts without systemd.")

    static let schedule = Command(
        "schedule", "Show and do what is planned: snapshots, backups, certificates.",
        discussion: """
            Schedules are part of a VM's declaration and count as 'martlet up' applied them. On a \
            systemd host 'martlet-schedule.timer' runs what is due, elsewhere \
            'martlet schedule run --loop' does. What was missed is made up once. Certificates of \
            published names are renewed with a third of their time left: those by DNS by the same \
            timer, the others by the reverse proxy itself.
            """,
        groups: [.init("", [list, run])])

    private static let list = Command(
        "list", "List what is planned, how it went last, and when it is due.",
        parameters: [Options.vms],
        examples: [.init("martlet schedule list", "All VMs.")]
    ) { arguments in
        let session = try Session(arguments)
        let names = arguments[Options.vms]
        var wanted: [String]?
        if !names.isEmpty { wanted = try await session.targets(names).map(\.vm.name) }
        let planned = try session.engine.plannedWork(wanted)
        let renewals = try session.engine.renewals(wanted)
        if session.printer.isJSON {
            return session.printer.document(
                .array(planned.map(\.json) + renewals.map(\.json)))
        }
        var table = Table(["VM", "WHAT", "SCHEDULE", "LAST", "RESULT", "NEXT"])
        for work in planned {
            table.add([
                .init(work.vm), .init(work.work.rawValue), .init(work.schedule.text),
                .init(work.last.map(Clock.iso8601)),
                .init(work.detail, work.isDone == false ? .error : nil),
                .init(work.nextText(now: Clock.now())),
            ])
        }
        for renewal in renewals {
            table.add([
                .init(renewal.vm), .init("certificate"),
                .init("\(renewal.host) (\(renewal.kind))"),
                .init(renewal.last.map(Clock.iso8601)),
                .init(renewal.result, renewal.error != nil ? .error : nil),
                .init(renewal.nextText(now: Clock.now())),
            ])
        }
        session.printer.table(table)
    }

    private static let run = Command(
        "run", "Do all that is due, one after the other.",
        discussion: """
            What fails is tried again an hour later at the earliest. A VM that another run of \
            Martlet changes has its turn the next time.
            """,
        parameters: [loop],
        examples: [
            .init("martlet schedule run", "As the timer does."),
            .init("martlet schedule run --loop", "Where there is no timer."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        guard arguments[loop] else { return try session.printer.finish(try await session.runDue()) }
        while true {
            do {
                for outcome in try await session.runDue() where session.printer.isJSON {
                    session.printer.object(outcome.json)
                }
            } catch let error where !(error is CancellationError) {
                // The next turn may go better: what runs for months must not end for a full disk.
                session.printer.warning(Failure(error).message)
            }
            try await Task.sleep(for: .seconds(60))
        }
    }
}

extension Session {
    fileprivate func runDue() async throws -> [Outcome] {
        try await printer.withProgress { progress in
            try await engine.reporting(to: progress.reporter).runDue()
        }
    }
}

extension PlannedWork {
    /// When it is due, for people.
    func nextText(now: Int64) -> String {
        guard let next else { return "never" }
        return next <= now ? "due since \(Clock.iso8601(next))" : Clock.iso8601(next)
    }

    /// All of it but the VM's name, in one line.
    func summary(now: Int64) -> String {
        let last = last.map { last in
            "last \(Clock.iso8601(last)): " + (isDone == true ? "" : "failed: ") + (detail ?? "")
        }
        return "\(schedule.text); \(last ?? "not done yet"); next \(nextText(now: now))"
    }

    fileprivate var json: JSONValue {
        [
            "vm": .string(vm), "work": .string(work.rawValue), "schedule": .string(schedule.text),
            "last": .text(last.map(Clock.iso8601)), "ok": isDone.map { .bool($0) } ?? .null,
            "detail": .text(detail), "next": .text(next.map(Clock.iso8601)),
        ]
    }
}

extension CertificateRenewal {
    fileprivate var result: String? {
        error ?? ends.map { "holds until \(Clock.iso8601($0))" } ?? "no certificate yet"
    }

    fileprivate func nextText(now: Int64) -> String {
        guard let next else { return "the reverse proxy asks for it" }
        return next <= now ? "due since \(Clock.iso8601(next))" : Clock.iso8601(next)
    }

    fileprivate var json: JSONValue {
        [
            "vm": .string(vm), "work": "certificate", "schedule": .string(kind),
            "host": .string(host), "last": .text(last.map(Clock.iso8601)),
            "ok": .bool(error == nil && ends != nil), "detail": .text(result),
            "next": .text(next.map(Clock.iso8601)),
        ]
    }
}
