// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Glibc
import Linux
import Secrets

/// `secret list`, `set`, `rotate` and `show`.
enum SecretVerbs {
    private static let name = Key<String>.argument(
        "NAME", "An entry of `secrets` in the fleet file.", candidates: .secrets)
    private static let reveal = Key.flag("reveal", "Print it also when nobody is looking.")

    static let secret = Command(
        "secret", "Show, set and rotate the fleet's secrets.",
        subcommands: [list, set, rotate, show])

    private static let list = Command(
        "list", "List secrets: where they come from, and which VMs are given them.",
        discussion: """
            The fleet file says where each comes from, and never holds a value. STATE is 'stale' \
            when a running guest still has an earlier value.
            """,
        parameters: [],
        examples: [.init("martlet secret list", "No value is shown.")]
    ) { arguments in
        let session = try Session(arguments)
        let rows = try await rows(session)
        if session.printer.isJSON {
            return session.printer.document(.array(rows.map(\.json)))
        }
        var table = Table(["SECRET", "SOURCE", "GIVEN TO", "STATE", "CHANGED"])
        for row in rows {
            table.add([
                .init(row.name), .init(row.source),
                .init(row.users.isEmpty ? "-" : row.users.joined(separator: ", ")),
                .init(
                    row.state,
                    row.state == "present" || row.state == "not made yet" ? nil : .warning),
                .init(row.changedAt.map { Units.ago($0, now: Clock.now()) }),
            ])
        }
        session.printer.table(table)
    }

    private static let set = Command(
        "set", "Give a generated secret a value of your own.",
        discussion: """
            Asks for it twice on a terminal, and reads all of standard input otherwise, byte for \
            byte. Only secrets that Martlet generates can be set.
            """,
        parameters: [name],
        examples: [.init("martlet secret set db-password < password", "From a file.")]
    ) { arguments in
        let session = try Session(arguments)
        let (fleet, secret) = try find(arguments[name], session)
        let value = try await blocking { try ask() }
        try await session.engine.setSecret(secret, of: fleet.name, to: value)
        said(secret, fleet, session)
    }

    private static let rotate = Command(
        "rotate", "Make a new value for a generated secret.",
        discussion: """
            The old value is gone. Guests that run have it until they restart: the next 'plan' \
            says which do, and 'up' restarts them, unless 'restartIfChanged' is false.
            """,
        parameters: [name],
        examples: [.init("martlet secret rotate db-password && martlet plan", "See what follows.")]
    ) { arguments in
        let session = try Session(arguments)
        let (fleet, secret) = try find(arguments[name], session)
        try await session.engine.rotateSecret(secret, of: fleet.name)
        said(secret, fleet, session)
    }

    private static let show = Command(
        "show", "Print the value of a secret.",
        discussion: "Only to a terminal, unless --reveal asks for it.",
        parameters: [name, reveal],
        examples: [
            .init("martlet secret show db-password", "On a terminal."),
            .init("martlet secret show db-password --reveal | wl-copy", "Byte for byte."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let (fleet, secret) = try find(arguments[name], session)
        guard isatty(1) == 1 || arguments[reveal] else {
            throw Failure(
                .usage, "a secret is printed to a terminal only",
                hint: "Add --reveal where it is to go elsewhere.")
        }
        let value = try await session.engine.secretValue(secret, of: fleet.name)
        if session.printer.isJSON {
            let text = String(validating: value.bytes, as: UTF8.self)
            guard let text else {
                throw Failure(
                    .failed, "'\(secret.name)' is no text, and JSON holds nothing else",
                    hint: "Leave --json out: then it is printed byte for byte.")
            }
            return session.printer.document(["name": .string(secret.name), "value": .string(text)])
        }
        try Linux.write(1, value.bytes + (isatty(1) == 1 && value.bytes.last != 10 ? [10] : []))
    }
}

extension SecretVerbs {
    private struct Row {
        let name: String
        let source: String
        let users: [String]
        let state: String
        let changedAt: Int64?

        var json: JSONValue {
            [
                "name": .string(name), "source": .string(source),
                "givenTo": .array(users.map { .string($0) }), "state": .string(state),
                "changedAt": .text(changedAt.map(Clock.iso8601)),
            ]
        }
    }

    private static func rows(_ session: Session) async throws -> [Row] {
        let fleet = try session.fleet()
        var stale: Set<String> = []
        for vm in fleet.vms {
            stale.formUnion(await session.engine.staleSecrets(vm.name, in: fleet))
        }
        return fleet.secrets.sorted { $0.name < $1.name }.map { secret in
            let changedAt = session.engine.secretChangedAt(secret, of: fleet.name)
            let isGenerated = secret.generate != nil
            let state =
                stale.contains(secret.name)
                ? "stale" : changedAt != nil ? "present" : isGenerated ? "not made yet" : "missing"
            return Row(
                name: secret.name, source: secret.place, users: fleet.users(of: secret),
                state: state, changedAt: changedAt)
        }
    }

    private static func find(_ name: String, _ session: Session) throws -> (Fleet, Secret) {
        let fleet = try session.fleet()
        guard let secret = fleet.secret(name) else {
            let near = nearest(name, among: fleet.secrets.map(\.name))
            throw Failure(
                .notFound, "the fleet file has no secret '\(name)'",
                hint: near.map { "Did you mean '\($0)'?" } ?? "'martlet secret list' shows them.")
        }
        return (fleet, secret)
    }

    private static func said(_ secret: Secret, _ fleet: Fleet, _ session: Session) {
        let users = fleet.users(of: secret)
        session.printer.note(
            "'\(secret.name)' has a new value."
                + (users.isEmpty
                    ? ""
                    : " 'martlet plan' says what that means for \(users.joined(separator: ", "))."))
    }

    private static func ask() throws -> SecretBytes {
        guard isatty(0) == 1 else {
            var bytes: [UInt8] = []
            while bytes.count <= SecretBytes.limit {
                let more = try Linux.read(0, 65536)
                if more.isEmpty { break }
                bytes += more
            }
            return try SecretBytes(bytes, name: "the value")
        }
        let first = Passwords.ask("New value: ")
        guard let first, !first.isEmpty else { throw Failure(.failed, "no value was given") }
        guard Passwords.ask("Again: ") == first else {
            throw Failure(.failed, "the two values differ; nothing was changed")
        }
        return try SecretBytes(first.utf8, name: "the value")
    }
}
