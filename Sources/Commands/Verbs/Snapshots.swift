// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Linux
import Planning
import Supervisor

/// `snapshot create`, `list`, `restore` and `remove`.
enum SnapshotVerbs {
    static let newName = Key<String?>.argument(
        "SNAP", "The snapshot's name; that of the time (UTC) when omitted.")
    static let name = Key<String>.argument("SNAP", "The snapshot.", candidates: .snapshots)
    static let vm = Key<String?>.argument("NAME", "The VM; all when omitted.", candidates: .vms)
    static let asNew = Key<String?>.option(
        "as", value: "NEW", "Make a new VM of this name from it, and leave NAME as it is.")

    static let snapshot = Command(
        "snapshot", "Make, list, restore and remove snapshots of VMs' disks.",
        subcommands: [create, list, restore, remove])

    private static let create = Command(
        "create", "Make a snapshot of a VM, running or not.",
        discussion: """
            A running guest's file systems are frozen for the moment that it takes; where its \
            agent does not answer, the snapshot is as after a power cut, and is called 'crash'.
            """,
        parameters: [Options.vm, newName],
        examples: [
            .init("martlet snapshot create web", "Named by the time."),
            .init("martlet snapshot create web before-import", "Named by you."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let target = try await session.target(arguments[Options.vm]).vm.name
        let wanted = arguments[newName]
        try await session.act("snapshot", on: [target]) { engine, name in
            let record = try await engine.createSnapshot(name, as: wanted)
            return "made the snapshot '\(record.name)': " + record.summary
        }
    }

    private static let list = Command(
        "list", "List snapshots, the oldest first.",
        discussion: """
            SIZE is what the disks took on the host when it was made; how much of that the \
            snapshot alone keeps depends on what has changed since, and no tool can tell.
            """,
        parameters: [vm],
        examples: [.init("martlet snapshot list web", "Those of one VM.")]
    ) { arguments in
        let session = try Session(arguments)
        let targets = try await session.targets(arguments[vm].map { [$0] } ?? [])
        let all = try targets.flatMap { target in
            try session.engine.snapshots(target.vm.name).map { (target.vm.name, $0) }
        }
        if session.printer.isJSON {
            return session.printer.document(.array(all.map { $0.1.row(of: $0.0) }))
        }
        var table = Table([
            "VM", "SNAPSHOT", "CREATED", .number("SIZE"), "CONSISTENCY", "REASON", "IMAGE",
        ])
        for (vm, record) in all {
            let crash = record.consistency == .crash
            table.add([
                .init(vm), .init(record.name), .init(Clock.iso8601(record.createdAt)),
                .init(Units.bytes(record.bytes)),
                .init(record.consistency.rawValue, crash ? .warning : nil),
                .init(record.reason.rawValue),
                .init(
                    "\(Engine.imageName(of: record.generation.vm)) "
                        + "(\(record.generation.imageDigest.prefix(12)))"),
            ])
        }
        session.printer.table(table)
    }

    private static let restore = Command(
        "restore", "Go back to a snapshot, or make a new VM from it.",
        discussion: """
            In place, the VM is stopped if it runs, what is replaced is kept in a snapshot of its \
            own, and disks and configuration become those of then; it starts again if it ran. The \
            fleet file stays as it is: 'martlet plan' shows what differs from it.
            """,
        parameters: [Options.vm, name, asNew],
        examples: [
            .init("martlet snapshot restore web before-import", "Undo what came after."),
            .init(
                "martlet snapshot restore web 20261120-033000 --as web-then",
                "Look at the data of then beside that of now."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let target = try await session.target(arguments[Options.vm]).vm.name
        let snapshot = arguments[name]
        if let new = arguments[asNew] {
            return try await CloneVerb.make(new, of: target, at: snapshot, session)
        }
        let declared = try session.fleetIfAny()?.vm(target)
        try await session.act("restore", on: [target]) { engine, name in
            let restored = try await engine.restoreSnapshot(name, snapshot)
            return restored.detail(declared: declared)
        }
    }

    private static let remove = Command(
        "remove", "Remove a snapshot.", parameters: [Options.vm, name, Options.yes],
        examples: [.init("martlet snapshot remove web before-import", "The VM stays as it is.")]
    ) { arguments in
        let session = try Session(arguments)
        let target = try await session.target(arguments[Options.vm]).vm.name
        let snapshot = arguments[name]
        let record = try session.engine.snapshot(target, snapshot)
        try await Confirmation(
            "remove the snapshot '\(snapshot)' of \(target)", losses: [record.loss(of: target)]
        ).require(yes: arguments[Options.yes], session.printer)
        try await session.act("snapshot", on: [target]) { engine, name in
            try await engine.deleteSnapshot(name, snapshot)
            return "removed the snapshot '\(snapshot)'"
        }
    }
}

extension SnapshotRecord {
    /// What it is worth, and what is not part of it.
    var summary: String {
        var text =
            switch consistency {
            case .frozen: "the guest's file systems were frozen"
            case .stopped: "the VM was shut down"
            case .crash: "as after a power cut, for " + (why ?? "nothing is known of its state")
            }
        if !leftOut.isEmpty { text += "; not part of it: " + leftOut.joined(separator: ", ") }
        return text
    }

    /// What is gone with it, in words for a confirmation.
    func loss(of vm: String) -> String {
        "the snapshot '\(name)' of \(vm), made \(Units.ago(createdAt, now: Clock.now()))"
    }

    func row(of vm: String) -> JSONValue {
        [
            "vm": .string(vm), "name": .string(name),
            "createdAt": .string(Clock.iso8601(createdAt)), "bytes": .integer(bytes),
            "consistency": .string(consistency.rawValue), "why": .text(why),
            "reason": .string(reason.rawValue), "verifiedAt": .null,
            "image": .string(Engine.imageName(of: generation.vm)),
            "imageDigest": .string(generation.imageDigest),
            "generation": JSONValue(generation.number),
            "disks": .array(
                disks.map {
                    [
                        "name": .string($0.name), "bytes": .integer($0.bytes),
                        "mechanism": .string($0.mechanism.rawValue),
                    ]
                }),
            "leftOut": .array(leftOut.map(JSONValue.string)),
        ]
    }
}

extension Restored {
    /// `declared` is the VM of the fleet file.
    func detail(declared: VM?) -> String {
        var parts = ["is as in the snapshot '\(snapshot.name)'"]
        parts.append("what it held before is in '\(safety.name)'")
        if let stopped, stopped.method == .kill || stopped.method == .quit {
            parts.append("it was stopped the hard way: \(stopped.detail)")
        }
        if let seconds { parts.append("up after \(Units.duration(seconds: seconds))") }
        if hasLostMemory {
            parts.append("it was suspended, and its memory, which knew other disks, is gone")
        }
        if isPinned {
            parts.append("it has the image of then, and stays on it until its next upgrade")
        }
        if let declared, declared != snapshot.generation.vm {
            parts.append("its configuration is not as declared: 'martlet plan' shows how")
        }
        return parts.joined(separator: "; ")
    }
}
