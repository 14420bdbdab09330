// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Glibc
import Linux
import Planning

/// `console` and `logs`: what a guest says.
enum ConsoleVerbs {
    static let follow = Key.flag("follow", "f", "Go on with what comes.")
    static let boot = Key.flag("boot", "Show the console, from the first line of the kernel.")

    static let console = Command(
        "console", "Attach to a guest's serial console; Ctrl-] detaches.",
        discussion: "Several may attach at once. Logging in needs 'martlet passwd NAME' first.",
        parameters: [Options.vm],
        examples: [.init("martlet console web", "See and type what a serial cable would carry.")]
    ) { arguments in
        let session = try Session(arguments)
        let name = try await session.target(arguments[Options.vm]).vm.name
        let socket = try UnixSocket.connect(session.engine.layout.vm(name).consoleSocket)
        if isatty(0) == 1 { session.printer.note("Attached to \(name); Ctrl-] detaches.") }
        try await blocking { [socket = socket.release()] in
            try attach(Descriptor(owning: socket))
        }
    }

    static let logs = Command(
        "logs", "Show a guest's journal, or its console.",
        parameters: [Options.vm, follow, boot],
        examples: [
            .init("martlet logs web -f", "The journal, and what comes."),
            .init("martlet logs web --boot", "The console: also of a guest that did not come up."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let name = try await session.target(arguments[Options.vm]).vm.name
        guard !arguments[boot] else {
            return try await show(
                session.engine.layout.vm(name).consoleLog, follow: arguments[follow], session)
        }
        let command = ["journalctl", "--no-pager"] + (arguments[follow] ? ["--follow"] : [])
        do {
            try await session.engine.access(name).program(
                user: "root", command: command, terminal: false
            ).replaceProcess()
        } catch let error as LifecycleError {
            throw Failure(
                Failure(error).code, error.description,
                hint: "Its journal is inside: start it, or see its console with --boot.")
        }
    }

    private static func show(_ path: String, follow: Bool, _ session: Session) async throws {
        var shown: UInt64 = 0
        repeat {
            let bytes = (try? Files.readUntrusted(path, limit: 16 << 20)) ?? []
            // The log starts over when it is full.
            if bytes.count < shown { shown = 0 }
            session.printer.write(
                String(decoding: bytes[Int(shown)...], as: UTF8.self))
            shown = UInt64(bytes.count)
            if follow { try await Task.sleep(for: .milliseconds(200)) }
        } while follow
    }
}

/// Joins a terminal with a console until Ctrl-] or the end of either.
private func attach(_ socket: consuming Descriptor) throws {
    let raw = RawTerminal(0)
    defer { _ = raw != nil }
    var both = [
        pollfd(fd: 0, events: Int16(POLLIN), revents: 0),
        pollfd(fd: socket.raw, events: Int16(POLLIN), revents: 0),
    ]
    while true {
        try check("poll") { poll(&both, 2, -1) }
        if both[0].revents != 0 {
            let typed = try read(0, 4096)
            let end = typed.firstIndex(of: 0x1D)
            try socket.write(typed[..<(end ?? typed.endIndex)])
            if end != nil { return }
            // A pipe that has ended: go on showing what the guest says.
            if typed.isEmpty { both[0].fd = -1 }
        }
        if both[1].revents != 0 {
            let said = try socket.read(65536)
            if said.isEmpty { return }
            try write(1, said)
        }
    }
}
