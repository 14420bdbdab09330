// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Planning

/// `start`, `stop`, `restart`, `kill`, `pause`, `unpause`: one VM at a time, as it was last applied.
enum LifecycleVerbs {
    static let grace = Key<Period?>.option(
        "grace", value: "TIME",
        "How long a guest may take to shut down, such as 10s; else as declared.")

    static let discardMemory = Key<Bool>.flag(
        "discard-memory", "Boot a suspended VM afresh and lose its memory.")

    static let start = Command(
        "start", "Start VMs as they were last applied.",
        discussion: "The fleet file is not applied: that is what 'martlet up' does.",
        parameters: [Options.vms, discardMemory],
        examples: [.init("martlet start web", "Start one VM and wait until its guest is up.")]
    ) { arguments in
        let discards = arguments[discardMemory]
        try await each("start", arguments) { engine, name in
            let seconds = try await engine.start(name, discardingMemory: discards)
            return "up after \(Units.duration(seconds: seconds))"
        }
    }

    static let stop = Command(
        "stop", "Stop VMs, and say how each ended.",
        discussion: """
            The guest is asked to shut down; what has not ended in time is ended, and the result \
            says so: by its agent, by the power button (acpi), by quit, or by kill.
            """,
        parameters: [Options.vms, grace],
        examples: [
            .init("martlet stop web", "Stop one VM; its data stays."),
            .init("martlet stop --grace 5s", "Stop all VMs of the fleet and wait less."),
        ]
    ) { arguments in
        let grace = arguments[grace]?.seconds
        try await each("stop", arguments) { engine, name in
            try await engine.stop(name, grace: grace).detail
        }
    }

    static let restart = Command(
        "restart", "Stop VMs and start them again.", parameters: [Options.vms, grace],
        examples: [.init("martlet restart web", "Shut the guest down and start it again.")]
    ) { arguments in
        let grace = arguments[grace]?.seconds
        try await each("restart", arguments) { engine, name in
            let stopped = try await engine.stop(name, grace: grace)
            let seconds = try await engine.start(name)
            return "\(stopped.detail), up again after \(Units.duration(seconds: seconds))"
        }
    }

    static let kill = Command(
        "kill", "End VMs at once, as a power cut would.", parameters: [Options.someVMs],
        examples: [.init("martlet kill web", "End a guest that hangs.")]
    ) { arguments in
        try await each("kill", arguments, Options.someVMs) { engine, name in
            try await engine.kill(name).detail
        }
    }

    static let pause = Command(
        "pause", "Freeze running VMs in memory.", parameters: [Options.someVMs],
        examples: [.init("martlet pause web", "Let it take no CPU until 'martlet unpause web'.")]
    ) { arguments in
        try await each("pause", arguments, Options.someVMs) { engine, name in
            try await engine.pause(name)
            return "paused"
        }
    }

    static let unpause = Command(
        "unpause", "Let paused VMs go on.", parameters: [Options.someVMs],
        examples: [.init("martlet unpause web", "Go on where it was paused.")]
    ) { arguments in
        try await each("unpause", arguments, Options.someVMs) { engine, name in
            try await engine.unpause(name)
            return "running"
        }
    }

    static let down = Command(
        "down", "Stop the VMs of the fleet; their data stays.", parameters: [Options.vms, grace],
        examples: [.init("martlet down", "Stop everything that the fleet file declares.")]
    ) { arguments in
        let grace = arguments[grace]?.seconds
        let session = try Session(arguments)
        // The whole fleet goes, and with it its names; that of one VM says that it is not available.
        if arguments[Options.vms].isEmpty, let fleet = try session.fleetIfAny() {
            await session.engine.withdrawPublishing(of: fleet.name)
        }
        try await each("stop", arguments) { engine, name in
            try await engine.stop(name, grace: grace).detail
        }
    }

    static func each(
        _ action: String, _ arguments: Arguments, _ names: Key<[String]> = Options.vms,
        _ body: @escaping @Sendable (Engine, String) async throws -> String
    ) async throws {
        let session = try Session(arguments)
        let targets = try await session.targets(arguments[names])
        try await session.act(action, on: targets.map(\.vm.name), body)
    }
}
