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
            The data volume is removed and made anew. Name, machine id, SSH host key and addresses \
            stay what they were. The VM starts again if it ran.
            """,
        parameters: [Options.someVMs, Options.yes],
        examples: [.init("martlet recreate web", "Begin again with an empty /var and /home.")]
    ) { arguments in
        try await lose("recreate", arguments, losses: data) { engine, name in
            try await engine.recreate(name)
        }
    }

    static let destroy = Command(
        "destroy", "Remove VMs and their disks; their identity stays.",
        discussion: "A VM that the fleet file still declares is made again by 'martlet up'.",
        parameters: [Options.someVMs, Options.yes],
        examples: [.init("martlet destroy web", "Remove it, and keep its keys for the next one.")]
    ) { arguments in
        try await lose("destroy", arguments, losses: data) { engine, name in
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
            losses: { data($0) + ["the identity of \($0.vm.name): machine id and SSH host key"] }
        ) { engine, name in
            try await engine.purge(name)
            return "purged"
        }
    }

    private static func data(_ report: VMReport) -> [String] {
        let size = report.vm.applied.map { " (\($0.vm.disk))" } ?? ""
        return ["the data volume of \(report.vm.name)\(size), with /var, /home and /root"]
    }

    private static func lose(
        _ action: String, _ arguments: Arguments, losses: (VMReport) -> [String],
        _ body: @escaping @Sendable (Engine, String) async throws -> String
    ) async throws {
        let session = try Session(arguments)
        let targets = try await session.targets(arguments[Options.someVMs])
        let names = targets.map(\.vm.name)
        try await Confirmation(
            "\(action) \(names.joined(separator: " "))", losses: targets.flatMap(losses)
        ).require(yes: arguments[Options.yes], session.printer)
        try await session.act(action, on: names, body)
    }
}
