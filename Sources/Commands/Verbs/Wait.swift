// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Linux
import Planning
import Supervisor

/// `wait`: until VMs are as asked, or the time is up.
enum WaitVerb {
    enum Goal: String, ArgumentValue, CaseIterable {
        case running, healthy, stopped

        static var expected: String { "running, healthy or stopped" }
        static var spellings: [String] { allCases.map(\.rawValue) }
        init?(argument: String) { self.init(rawValue: argument) }
        var argument: String { rawValue }
    }

    static let goal = Key<Goal>.option(
        "for", value: "STATE", "What to wait for.", default: .running)
    static let timeout = Key<Period>.option(
        "timeout", value: "TIME", "How long to wait at the most.", default: .seconds(60))

    static let command = Command(
        "wait", "Wait until VMs are running, healthy or stopped.",
        discussion:
            "A VM that fails ends the wait at once. A guest without checks is healthy when it is up.",
        parameters: [Options.someVMs, goal, timeout],
        examples: [
            .init("martlet wait web --for healthy", "Go on when its health checks pass.")
        ]
    ) { arguments in
        let session = try Session(arguments)
        let targets = try await session.targets(arguments[Options.someVMs])
        let goal = arguments[goal]
        let end = Clock.monotonic() + UInt64(arguments[timeout].milliseconds) * 1_000_000
        try await session.act("wait", on: targets.map(\.vm.name)) { engine, name in
            while true {
                let report = await engine.observer.observe(name)
                if goal.isReached(by: report) { return goal.rawValue }
                if report.vm.phase == .failed, goal != .stopped {
                    throw Failure(.failed, "it failed: \(report.vm.reason ?? "no reason known")")
                }
                guard Clock.monotonic() < end else {
                    throw Failure(
                        .failed, "still \(report.vm.phase.rawValue) after the time given")
                }
                try await Task.sleep(for: .milliseconds(100))
            }
        }
    }
}

extension WaitVerb.Goal {
    fileprivate func isReached(by report: VMReport) -> Bool {
        let isUp = report.vm.phase == .running && report.observation.status?.bootSeconds != nil
        return switch self {
        case .running: isUp
        case .healthy:
            isUp && (report.observation.health == .healthy || report.observation.health == .none)
        case .stopped: !report.vm.phase.isLive
        }
    }
}
