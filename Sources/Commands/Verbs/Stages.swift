// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Glibc
import Linux
import Supervisor

/// `prepare`, `supervise`, `release`: the three steps of a start, for service managers.
enum StageVerbs {
    static let confine = Key.flag(
        "confine", "Put up the VM's walls first, where the service manager puts up none.")

    static let prepare = Command(
        "prepare", "Make what a VM needs to start (for service managers).",
        discussion: """
            The privileged step before 'supervise': disks, folders, credentials. For a unit of type \
            notify it also opens interfaces, devices and shares, and hands them to the service \
            manager's descriptor store.
            """,
        parameters: [Options.vm],
        examples: [.init("martlet prepare web", "As a unit's ExecStartPre=+ does.")]
    ) { arguments in
        let engine = try Session(arguments).engine
        let manager = Notify()
        if manager.isThere {
            try await engine.prepareUnit(arguments[Options.vm], manager: manager)
        } else {
            try await engine.prepare(arguments[Options.vm])
        }
    }

    static let supervise = Command(
        "supervise", "Run a VM in the foreground (for service managers).",
        discussion: """
            Owns the VM while it runs: starts its hypervisor, keeps its console, checks its health \
            and applies its restart policy. Needs no privilege; 'prepare' comes before it.

            With --confine it is for VMs of an ordinary user, whose units have no walls of \
            systemd's: it puts the same around itself that 'martlet start' puts around what it \
            starts, and is the same process afterwards.
            """,
        parameters: [confine, Options.vm],
        examples: [
            .init("martlet supervise web", "As a unit's ExecStart= does."),
            .init("martlet supervise --confine web", "As that of a user's own unit does."),
        ],
        exitCodes: [("0", "The VM was stopped, or powered itself off."), ("1", "It failed.")],
        handlesSignals: true
    ) { arguments in
        if arguments[confine] { try becomeConfined(arguments) }
        // No session: the VM's own user is not the owner of ROOT.
        let files = try Layout.standard(user: geteuid()).vm(arguments[Options.vm])
        guard Files.exists(files.launch) else {
            throw Failure(
                .notFound, "\(files.name) is not prepared", hint: "Run 'martlet prepare' first.")
        }
        return Supervisor.run(try SuperviseSpec.read(files.launch))
    }

    /// Starts anew inside the walls; returns where there are to be none.
    private static func becomeConfined(_ arguments: Arguments) throws {
        guard geteuid() != 0 else {
            throw Failure(
                .usage, "--confine is for VMs of an ordinary user",
                hint: "The units of the host have walls of their own, and 'martlet start' puts up "
                    + "some for what it starts.")
        }
        let session = try Session(arguments)
        let printer = session.printer
        let engine = session.engine.reporting(
            to: Reporter { if case .warning(let text) = $0 { printer.warning(text) } })
        try engine.becomeConfined(arguments[Options.vm])
    }

    /// What a unit has to do when its guest is up: forwards that need a process.
    static let started = Command(
        "__started", "Open the ports of a VM that need a process.", parameters: [Options.vm],
        isHidden: true
    ) { arguments in
        try await Session(arguments).engine.finishUnit(arguments[Options.vm])
    }

    static let release = Command(
        "release", "Take away what 'prepare' made for a run (for service managers).",
        parameters: [Options.vm],
        examples: [.init("martlet release web", "As a unit's ExecStopPost=+ does.")]
    ) { arguments in
        try await Session(arguments).engine.release(arguments[Options.vm])
    }
}
