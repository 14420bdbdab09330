// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Planning

/// `recreate`, `destroy`, `purge`: what they take away, from fresh disks to nothing left but backups.
enum DestroyVerbs {
    static let recreate = Command(
        "recreate", "Give VMs fresh disks; their identity stays.",
        discussion: """
            The data volume and the volumes that are files are removed and made anew, and with them \
            go the VM's snapshots. Block devices are not touched. Name, machine id, SSH host key \
            and addresses stay what they were. The VM starts again if it ran.
            """,
        parameters: [Options.someVMs, Options.yes],
        examples: [.init("martlet recreate web", "Begin again with an empty /var and /home.")]
    ) { arguments in
        let fleet = try Session(arguments).fleetIfAny()
        try await lose("recreate", arguments) { engine, name in
            try await engine.recreate(name, in: fleet)
        }
    }

    static let destroy = Command(
        "destroy", "Remove VMs and their disks; their identity stays.",
        discussion: """
            The snapshots go as well, block devices are not touched. A VM that the fleet file still \
            declares is made again by 'martlet up'.
            """,
        parameters: [Options.someVMs, Options.yes],
        examples: [.init("martlet destroy web", "Remove it, and keep its keys for the next one.")]
    ) { arguments in
        try await lose("destroy", arguments) { engine, name in
            try await engine.destroy(name)
            return "destroyed; its identity is kept"
        }
    }

    static let purge = Command(
        "purge", "Remove everything of VMs but their backups.",
        parameters: [Options.someVMs, Options.yes],
        examples: [.init("martlet purge web", "Nothing stays: the next one has new keys.")]
    ) { arguments in
        try await lose(
            "purge", arguments,
            also: { ["the identity of \($0): machine id and SSH host key"] }
        ) { engine, name in
            try await engine.purge(name)
            return "purged"
        }
    }

    /// Snapshots go with the disks that they are of.
    private static func snapshots(of name: String, _ session: Session) -> [String] {
        do {
            return try session.engine.snapshots(name).map { $0.loss(of: name) }
        } catch {
            return ["the snapshots of \(name), which cannot be read (\(error))"]
        }
    }

    private static func lose(
        _ action: String, _ arguments: Arguments, also: (String) -> [String] = { _ in [] },
        _ body: @escaping @Sendable (Engine, String) async throws -> String
    ) async throws {
        let session = try Session(arguments)
        let targets = try await session.targets(arguments[Options.someVMs])
        var losses: [String] = []
        for target in targets {
            let (lost, kept) = try session.engine.losses(target.vm)
            losses += lost + snapshots(of: target.vm.name, session) + also(target.vm.name)
            for one in kept { session.printer.note("Not touched: \(one).") }
        }
        let names = targets.map(\.vm.name)
        try await Confirmation("\(action) \(names.joined(separator: " "))", losses: losses)
            .require(yes: arguments[Options.yes], session.printer)
        try await session.act(action, on: names, body)
    }
}
