// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Glibc
import Linux
import Planning

/// `exec`, `ssh` and `cp`: into a guest, over a way that needs no network.
enum AccessVerbs {
    static let terminal = Key.flag("tty", "t", "Give the command a terminal.")
    static let words = Key.rest("CMD", "The command and its arguments.", required: true)
    static let optionalWords = Key.rest("CMD", "A command instead of a shell.")
    static let account = Key<String>.argument(
        "[USER@]NAME", "The VM, and the account if not the declared one.", candidates: .vms)
    static let source = Key<String>.argument("SRC", "What to copy: a path, or NAME:path.")
    static let target = Key<String>.argument("DST", "Where to: a path, or NAME:path.")

    static let exec = Command(
        "exec", "Run a command in a guest, as root.",
        discussion: """
            Standard input, output and errors are passed on as they come, bytes and all. No \
            network is needed in the guest.
            """,
        parameters: [terminal, Options.vm, words],
        examples: [
            .init("martlet exec web -- systemctl status caddy", "One command."),
            .init("martlet exec -t web -- bash", "A shell on a terminal."),
            .init("tar c site | martlet exec web -- tar x -C /srv", "Bytes through a pipe."),
        ],
        exitCodes: passedOn
    ) { arguments in
        let session = try Session(arguments)
        let name = try await session.target(arguments[Options.vm]).vm.name
        try await session.engine.access(name).program(
            user: "root", command: arguments[words], terminal: arguments[terminal]
        ).replaceProcess()
    }

    static let ssh = Command(
        "ssh", "Log in to a guest.",
        discussion: "Enters as the account that the VM declares (admin), and needs no network.",
        parameters: [account, optionalWords],
        examples: [
            .init("martlet ssh web", "A shell as the declared account."),
            .init("martlet ssh root@web -- journalctl -b", "One command as another account."),
        ],
        exitCodes: passedOn
    ) { arguments in
        let session = try Session(arguments)
        let parts = arguments[account].split(separator: "@", maxSplits: 1).map(String.init)
        let target = try await session.target(parts.last ?? "")
        let user = parts.count == 2 ? parts[0] : target.vm.applied?.vm.ssh.user ?? "admin"
        let command = arguments[optionalWords]
        try await session.engine.access(target.vm.name).program(
            user: user, command: command, terminal: isatty(0) == 1
        ).replaceProcess()
    }

    static let copy = Command(
        "cp", "Copy files and folders between host and guest.",
        parameters: [source, target],
        examples: [
            .init("martlet cp site web:/srv/", "A folder into the guest."),
            .init("martlet cp web:/var/log/syslog .", "A file out of it."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let ends = [arguments[source], arguments[target]].map(Place.init)
        let names = Set(ends.compactMap(\.vm))
        guard names.count == 1, let name = names.first else {
            throw Failure(
                .usage, "exactly one of SRC and DST must be in a guest: NAME:path",
                hint: "Between two guests, copy to the host first.")
        }
        let target = try await session.target(name)
        let access = try await session.engine.access(target.vm.name)
        try access.copyProgram(from: [ends[0].text], to: ends[1].text).replaceProcess()
    }

    /// What OpenSSH calls to reach the guest's sshd.
    static let connect = Command(
        "__connect", "Join standard input and output with a guest's sshd.",
        parameters: [Options.vm], isHidden: true, handlesSignals: true
    ) { arguments in
        let layout = try Layout.standard(user: geteuid())
        try GuestPort.serve(layout.vm(arguments[Options.vm]).sshSocket)
    }

    private static let passedOn: [(term: String, text: String)] = [
        ("0-255", "The command's own exit code; 128 plus the signal that ended it.")
    ]
}

/// One end of a copy: in a guest, or a path of the host made absolute, for scp runs elsewhere.
private struct Place {
    let vm: String?
    let text: String

    init(_ word: String) {
        // `./a:b` and `/a:b` are files, as they are for scp.
        if let colon = word.firstIndex(of: ":"), !word[..<colon].contains("/") {
            vm = String(word[..<colon])
            text = word
        } else {
            vm = nil
            text = word.hasPrefix("/") ? word : "\(Files.workingFolder())/\(word)"
        }
    }
}
