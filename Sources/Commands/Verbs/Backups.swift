// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Linux
import Planning
import Storage

/// `backup create`, `list`, `restore`, `verify` and `prune`.
enum BackupVerbs {
    static let name = Key<String>.argument("NAME", "The VM.", candidates: .vms)
    static let anyName = Key<String?>.argument(
        "NAME", "The VM; all of the fleet when omitted.", candidates: .vms)
    static let backup = Key<String?>.argument(
        "BACKUP", "The backup's name, or the path of its archive; the newest when omitted.")
    static let to = Key<String?>.option(
        "to", value: "TARGET",
        "A folder, or restic:REPOSITORY; else what the VM declares, else ROOT/backups.")
    static let from = Key<String?>.option(
        "from", value: "TARGET", "Where the backups are; else as for 'backup create'.")
    static let full = Key.flag("full", "Begin anew instead of adding to the last backup.")
    static let boot = Key.flag("boot", "Also restore it into a VM of its own and boot that.")
    static let identity = Key<String?>.option(
        "identity", value: "FILE",
        "The age identity for encrypted backups; else 'backups.identity'.",
        candidates: .files)
    static let asNew = Key<String?>.option(
        "as", value: "NEW", "Make a new VM of this name from it, and leave NAME as it is.")

    static let command = Command(
        "backup", "Make, list, restore, check and remove backups.",
        subcommands: [create, list, restore, verify, prune])

    private static let create = Command(
        "create", "Make a backup of a VM, running or not.",
        discussion: """
            A running guest is frozen for a moment only; its disks are read as they were then \
            while it goes on. The first backup is full, later ones hold what has changed since \
            the one before. Whatever leaves that in doubt (a crash, a restored snapshot, a raw \
            volume) makes the next one full, and so do 14 upon each other. It is encrypted for \
            'backups.encrypt'. Shares are not part of it.
            """,
        parameters: [name, to, full],
        examples: [
            .init("martlet backup create web", "To where the VM declares, or ROOT/backups."),
            .init("martlet backup create web --to /mnt/usb --full", "One that stands alone."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let target = try await session.target(arguments[name]).vm.name
        let (to, full) = (try arguments[to].map(place), arguments[full])
        try await session.act("backup", on: [target]) { engine, name in
            let record = try await engine.createBackup(name, to: to, full: full)
            return "made the backup \(record.id): " + record.summary
        }
    }

    private static let list = Command(
        "list", "List backups, the oldest first.", parameters: [anyName, from],
        examples: [.init("martlet backup list web", "Those of one VM.")]
    ) { arguments in
        let session = try Session(arguments)
        var all: [BackupRecord] = []
        for place in try await places(arguments, session) {
            all += try await place.target.list(place.vm)
        }
        if session.printer.isJSON {
            return session.printer.document(.array(all.map(\.row)))
        }
        var table = Table([
            "VM", "BACKUP", "CREATED", .number("SIZE"), "KIND", "CONSISTENCY", "ENCRYPTED",
            "VERIFIED",
        ])
        for record in all {
            let failed = record.verifiedAt == nil && record.verdict != nil
            table.add([
                .init(record.vm), .init(record.id), .init(Clock.iso8601(record.createdAt)),
                .init(Units.bytes(record.bytes)), .init(record.kind?.rawValue),
                .init(
                    record.consistency?.rawValue, record.consistency == .crash ? .warning : nil),
                .init(record.encrypted ? "yes" : "no"),
                .init(
                    failed ? "failed" : record.verifiedAt.map(Clock.iso8601),
                    failed ? .error : nil),
            ])
        }
        session.printer.table(table)
    }

    private static let restore = Command(
        "restore", "Bring back what a backup holds.",
        discussion: """
            The backup and all that it rests on are read and checked before anything is changed. \
            In place, the VM is stopped if it runs, what is replaced is kept in a snapshot, and \
            it starts again if it ran. A VM that is not there is made as the fleet file declares \
            it, with the disks and the identity of the backup: that needs the archives and the \
            fleet file only. Disks grow to the size that they had, and do not shrink; a device \
            of the host that is not blank is left as it is.
            """,
        parameters: [name, backup, asNew, identity, from],
        examples: [
            .init("martlet backup restore web", "The newest backup."),
            .init(
                "martlet backup restore web /mnt/usb/web/20261120-033000.tar.zst",
                "One that was carried here; those that it rests on lie beside it."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let (vm, fleet, place, key) = try await chosen(arguments, session)
        if let new = arguments[asNew] {
            // A VM has to be declared somewhere: without a fleet file, 'up' would not know it.
            let fleet = try session.fleet()
            return try await session.act("restore", on: [new]) { engine, name in
                let restored = try await engine.restoreBackup(
                    vm, place.id, from: place.target, identity: key, as: name, fleet: fleet
                ) { added in added.read(in: try session.fleet(adding: added)) }
                let now = try session.fleet()
                if let added = now.vm(name) { try await engine.adopt(added, of: now) }
                return restored.detail
            }
        }
        try await session.act("restore", on: [vm]) { engine, name in
            try await engine.restoreBackup(
                name, place.id, from: place.target, identity: key, fleet: fleet
            ).detail
        }
    }

    private static let verify = Command(
        "verify", "Check that a backup and all that it rests on are whole.",
        discussion: """
            Every checksum, every size and the whole chain back to the full backup are checked. \
            With --boot it is also restored into a VM of its own that reaches no network and no \
            share, which is booted, health checked and removed; the verdict is kept with the backup.
            """,
        parameters: [name, backup, boot, identity, from],
        examples: [
            .init("martlet backup verify web", "The newest backup."),
            .init("martlet backup verify web --boot", "The proof that it can be used."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let (vm, fleet, place, key) = try await chosen(arguments, session)
        let boots = arguments[boot]
        var findings = try await session.printer.withProgress { progress in
            let engine = session.engine.reporting(to: progress.reporter)
            var findings = try await engine.verifyBackup(
                vm, place.id, in: place.target, identity: key)
            if boots, let last = findings.last, findings.allSatisfy({ $0.error == nil }) {
                findings.removeLast()
                do {
                    let record = try await engine.verifyBackupByBoot(
                        vm, last.backup.id, in: place.target, identity: key, fleet: fleet)
                    findings.append(
                        BackupFinding(backup: record, error: nil, verdict: record.verdict))
                } catch {
                    findings.append(
                        BackupFinding(backup: last.backup, error: error, verdict: "\(error)"))
                }
            }
            return findings
        }
        try report(&findings, session.printer)
    }

    private static func report(_ findings: inout [BackupFinding], _ printer: Printer) throws {
        if printer.isJSON {
            printer.document(.array(findings.map(\.row)))
        } else {
            for finding in findings {
                let text = finding.error.map { "\($0)" } ?? finding.verdict ?? "whole"
                printer.line("\(finding.backup.vm) \(finding.backup.id): \(text)")
            }
        }
        let bad = findings.filter { $0.error != nil }
        guard let first = bad.first?.error else { return }
        let cause = Failure(first)
        throw Failure(
            .failed, "\(bad.count) of \(findings.count) backups cannot be relied on",
            hint: cause.hint, isReported: true)
    }

    private static let prune = Command(
        "prune", "Remove the backups that 'backups.keep' does not keep.",
        discussion: """
            What a backup rests on stays as long as it does, and the newest one always stays with \
            all that it rests on. Those made by hand count, too. Without 'keep', those of 7 days \
            and 4 weeks are kept.
            """,
        parameters: [anyName, from, Options.yes],
        examples: [.init("martlet backup prune web", "As the VM declares.")]
    ) { arguments in
        let session = try Session(arguments)
        let places = try await places(arguments, session)
        let doomed = try await losses(places)
        if !doomed.isEmpty {
            try await Confirmation("backup prune", losses: doomed).require(
                yes: arguments[Options.yes], session.printer)
        }
        let byName = Dictionary(places.map { ($0.vm, $0) }) { first, _ in first }
        try await session.act("prune", on: places.map(\.vm)) { engine, name in
            guard let place = byName[name] else { return "" }
            let gone = try await engine.pruneBackups(name, in: place.target, keep: place.keep)
            return gone.isEmpty ? "nothing to remove" : "removed " + gone.joined(separator: ", ")
        }
    }

    private static func losses(_ places: [Place]) async throws -> [String] {
        var losses: [String] = []
        for place in places {
            let all = try await place.target.list(place.vm)
            let pruning = BackupPruning(all, keep: place.keep, now: Clock.now())
            losses += all.filter { pruning.remove.contains($0.id) }.map {
                "the backup \($0.id) of \($0.vm) (\(Units.bytes($0.bytes)))"
            }
        }
        return losses
    }
}

// MARK: - Where backups are

extension BackupVerbs {
    private struct Place: Sendable {
        let vm: String
        let id: String?
        let target: any BackupTarget
        let keep: Retention
    }

    /// A relative folder is meant from where the person is.
    private static func path(_ text: String) throws -> String {
        text.hasPrefix("/") ? text : "\(Files.workingFolder())/\(text)"
    }

    private static func place(_ text: String) throws -> String {
        text.hasPrefix("restic:") ? text : try path(text)
    }

    private static func place(
        _ vm: String, _ arguments: Arguments, _ session: Session, _ fleet: Fleet?,
        takesBackup: Bool = true
    ) throws -> Place {
        let declared = fleet?.vm(vm)
        let applied = try? session.engine.store.current(vm)?.vm
        let keep = (declared ?? applied)?.backups?.keep ?? BackupPolicy().keep
        let id = takesBackup ? arguments[backup] : nil
        if let id, id.contains("/") {
            let file = try path(id)
            guard let (name, _) = BackupID.parse(fileName: Files.name(file)), Files.exists(file)
            else {
                throw Failure(
                    .notFound, "there is no archive \(file)",
                    hint: "Archives are called like 20261120-033000.tar.zst.")
            }
            let folder = FolderTarget(archivesIn: Files.parent(file))
            return Place(vm: vm, id: name, target: folder, keep: keep)
        }
        let target = try session.engine.backupTarget(
            of: vm, try arguments[from].map { try place($0) }, declared: declared)
        return Place(vm: vm, id: id, target: target, keep: keep)
    }

    /// The VM that is named, where its backups are, and the identity to read them with.
    private static func chosen(
        _ arguments: Arguments, _ session: Session
    ) async throws -> (vm: String, fleet: Fleet?, place: Place, identity: String?) {
        let fleet = try session.fleetIfAny()
        let vm = arguments[name]
        try await check(vm, session, fleet)
        let key = session.engine.backupIdentity(
            of: vm, try arguments[identity].map(path), declared: fleet?.vm(vm))
        return (vm, fleet, try place(vm, arguments, session, fleet), key)
    }

    /// Those of one VM, which may be gone, or of all of the fleet.
    private static func places(
        _ arguments: Arguments, _ session: Session
    ) async throws -> [Place] {
        let fleet = try session.fleetIfAny()
        var names = arguments[anyName].map { [$0] } ?? []
        if let name = names.first {
            try await check(name, session, fleet)
        } else {
            names = try await session.targets([]).map(\.vm.name)
            names += (fleet?.vms.map(\.name) ?? []).filter { !names.contains($0) }
        }
        return try names.map {
            try place($0, arguments, session, fleet, takesBackup: false)
        }
    }

    /// Refuses another fleet's VM, and a name that can be none.
    private static func check(_ vm: String, _ session: Session, _ fleet: Fleet?) async throws {
        guard isVMName(vm) else { throw Failure(.usage, "'\(vm)' cannot be the name of a VM") }
        guard let fleet, let owner = try? session.engine.store.fleet(of: vm), owner != fleet.name
        else { return }
        throw Failure(
            .notFound, "\(vm) belongs to the fleet '\(owner)', not to this one",
            hint: "Name that fleet's file with -f.")
    }
}

extension BackupRecord {
    /// What it is worth.
    fileprivate var summary: String {
        let quality =
            switch consistency {
            case .frozen: "the guest's file systems were frozen"
            case .stopped: "the VM was shut down"
            case .crash, nil:
                "as after a power cut, for " + (why ?? "nothing is known of its state")
            }
        let left = (secretsLeftOut ?? []).joined(separator: ", ")
        return [
            kind?.rawValue, Units.bytes(bytes), encrypted ? "encrypted" : nil, quality,
            secrets.map { "with the secrets " + $0.joined(separator: ", ") },
            left.isEmpty ? nil : "without the secrets \(left), for \(whyNoSecrets ?? "no reason")",
        ]
        .compactMap { $0 }.joined(separator: ", ")
    }

    fileprivate var row: JSONValue {
        [
            "vm": .string(vm), "name": .string(id), "kind": .text(kind?.rawValue),
            "parent": .text(parent), "createdAt": .string(Clock.iso8601(createdAt)),
            "bytes": .integer(bytes), "consistency": .text(consistency?.rawValue),
            "why": .text(why), "encrypted": .bool(encrypted),
            "secrets": .array((secrets ?? []).map(JSONValue.string)),
            "secretsLeftOut": .array((secretsLeftOut ?? []).map(JSONValue.string)),
            "verifiedAt": .text(verifiedAt.map(Clock.iso8601)), "verdict": .text(verdict),
        ]
    }
}

extension BackupFinding {
    fileprivate var row: JSONValue {
        [
            "vm": .string(backup.vm), "name": .string(backup.id), "ok": .bool(error == nil),
            "error": .text(error.map { "\($0)" }),
            "verifiedAt": .text(backup.verifiedAt.map(Clock.iso8601)), "verdict": .text(verdict),
        ]
    }
}

extension RestoredBackup {
    fileprivate var detail: String {
        var parts = ["is as in the backup \(backup.id)"]
        if let restored {
            parts.append("what it held before is in the snapshot '\(restored.safety.name)'")
            if let seconds = restored.seconds {
                parts.append("up after \(Units.duration(seconds: seconds))")
            }
        }
        return (parts + notes).joined(separator: "; ")
    }
}
