// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Linux
import Planning
import Supervisor

/// `events`: what happened to VMs, those among them that have ended.
enum EventsVerb {
    static let command = Command(
        "events", "Show what happened to VMs.",
        discussion: """
            Starts, boots, health, stops and failures, in the order of time: also of VMs that have \
            ended, until 'purge' or 'destroy' removes them.
            """,
        parameters: [Options.vms, ConsoleVerbs.follow],
        examples: [
            .init("martlet events", "What happened to the VMs of the fleet."),
            .init("martlet events -f web --json", "What comes, one object a line."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let named = arguments[Options.vms]
        let fleet = try session.fleetIfAny()
        if !named.isEmpty { _ = try await session.targets(named) }
        var logs: [String: EventLog] = [:]
        repeat {
            let names = named.isEmpty ? try session.engine.names(of: fleet) : named
            var events: [VMEvent] = []
            for name in Set(names).sorted() {
                let path = session.engine.layout.vm(name).events
                events += logs[name, default: EventLog(vm: name, path: path)].next()
            }
            show(events, width: names.map(\.count).max() ?? 0, session.printer)
            if arguments[ConsoleVerbs.follow] { try await Task.sleep(for: .milliseconds(200)) }
        } while arguments[ConsoleVerbs.follow]
    }

    private static func show(_ events: [VMEvent], width: Int, _ printer: Printer) {
        // Two events of one second stay in the order in which they were written.
        let ordered = events.enumerated().sorted {
            ($0.element.at, $0.offset) < ($1.element.at, $1.offset)
        }
        for (_, event) in ordered {
            guard !printer.isJSON else {
                printer.object(event.json)
                continue
            }
            var line = "\(Clock.iso8601(event.at))  \(padded(event.vm, width))  "
            line +=
                event.detail.map { "\(padded(event.kind.rawValue, 10))  \($0)" }
                ?? event.kind.rawValue
            printer.line(visible(line))
        }
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }
}

extension VMEvent {
    fileprivate var json: JSONValue {
        [
            "at": .string(Clock.iso8601(at)), "vm": .string(vm), "kind": .string(kind.rawValue),
            "detail": .text(detail),
        ]
    }
}
