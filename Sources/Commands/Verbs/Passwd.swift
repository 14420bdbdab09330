// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Glibc
import Linux
import Planning

/// `passwd`: the console login of root.
enum PasswdVerb {
    static let command = Command(
        "passwd", "Set root's password for a VM's console.",
        discussion: """
            Asks for it twice, or reads one line from standard input. Only its hash is kept, as an \
            override of rootPasswordHash; the guest sees it after a restart.
            """,
        parameters: [Options.vm],
        examples: [
            .init("martlet passwd web", "Then 'martlet up web', and log in on the console.")
        ]
    ) { arguments in
        let session = try Session(arguments)
        let name = arguments[Options.vm]
        // A VM of the file that was never made may get one as well.
        if try session.fleetIfAny()?.vm(name) == nil { _ = try await session.target(name) }
        let password = try await blocking { try ask() }
        try await session.engine.override(
            name, key: "rootPasswordHash", text: try Passwords.hash(password))
        session.printer.note(
            "Recorded. 'martlet up \(name)' hands it to the guest, which restarts.")
    }

    private static func ask() throws -> String {
        let first = Passwords.ask("New password: ")
        guard let first, !first.isEmpty else { throw Failure(.failed, "no password was given") }
        guard isatty(0) == 1 else { return first }
        guard Passwords.ask("Again: ") == first else {
            throw Failure(.failed, "the two passwords differ; nothing was changed")
        }
        return first
    }
}
