// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// Backups in a restic repository: each archive is a file of a restic snapshot of its own, whose
/// tags say what it is.
package struct ResticTarget: BackupTarget {
    package let repository: String
    package var text: String { "restic:\(repository)" }
    /// Where archives are written before restic takes them.
    private let folder: String
    private let restic: String
    private let environment: [String]

    /// `passwordFile` counts where the environment says nothing of a password.
    package init(_ repository: String, spool: String, passwordFile: String) throws(StorageError) {
        guard let restic = findProgram("restic") else {
            throw .missingTool(name: "restic", package: "restic")
        }
        var environment = Program.ownEnvironment()
        let names = ["RESTIC_PASSWORD", "RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD_COMMAND"]
        if !names.contains(where: { Linux.environment($0) != nil }) {
            guard Files.exists(passwordFile) else {
                throw .failed(
                    what: "the restic repository \(repository) has a password",
                    output: "set RESTIC_PASSWORD_FILE, or write it into \(passwordFile) (mode 0600)"
                )
            }
            environment.append("RESTIC_PASSWORD_FILE=\(passwordFile)")
        }
        self.repository = repository
        self.restic = restic
        self.environment = environment
        folder = spool
    }

    private func program(_ words: [String]) -> Program {
        var program = Program(restic, ["-r", repository] + words)
        program.environment = environment
        return program
    }

    @discardableResult
    private func run(_ words: [String], doing what: String) async throws -> Output {
        let output = try await program(words).capture()
        guard output.exit.isSuccess else {
            let text = output.errorText.isEmpty ? "\(output.exit)" : output.errorText
            throw StorageError.failed(
                what: "\(what) in \(text.isEmpty ? "" : self.text)",
                output: text.split(separator: "\n").prefix(3).joined(separator: "; "))
        }
        return output
    }

    package func spool(_ vm: String) throws -> String {
        try storage(folder) { () throws(SystemError) in
            try Files.makeFolder("\(folder)/\(vm)", mode: 0o700)
        }
        return "\(folder)/\(vm)"
    }

    /// The snapshots of a VM that are ours, with restic's own names for them.
    private func snapshots(_ vm: String) async throws -> [(BackupRecord, snapshot: String)] {
        let output = try await run(
            ["snapshots", "--json", "--tag", "martlet,vm:\(vm)"], doing: "listing backups")
        let list = try? JSONValue(parsing: output.standardOutput)
        return (list?.elements ?? []).compactMap { snapshot in
            guard let name = snapshot["id"]?.string else { return nil }
            let tags = snapshot["tags"]?.elements.compactMap(\.string) ?? []
            return ResticTarget.record(tags: tags).map { ($0, name) }
        }.sorted { ($0.0.createdAt, $0.0.id) < ($1.0.createdAt, $1.0.id) }
    }

    package func list(_ vm: String) async throws -> [BackupRecord] {
        try await snapshots(vm).map(\.0)
    }

    /// What a record becomes as tags; a comma would part one in two.
    package static func tags(_ record: BackupRecord) -> [String] {
        func tag(_ key: String, _ value: String?) -> String? { value.map { "\(key):\($0)" } }
        return [
            "martlet", "vm:\(record.vm)", "id:\(record.id)", "at:\(record.createdAt)",
            "bytes:\(record.bytes)", record.encrypted ? "encrypted" : nil,
            tag("kind", record.kind?.rawValue), tag("parent", record.parent),
            tag("consistency", record.consistency?.rawValue), tag("fleet", record.fleet),
            tag("sha256", record.sha256), tag("manifest", record.manifest),
            tag("verified", record.verifiedAt.map(String.init)),
        ].compactMap { $0 }
    }

    package static func record(tags: [String]) -> BackupRecord? {
        func value(_ key: String) -> String? {
            tags.first { $0.hasPrefix("\(key):") }.map { String($0.dropFirst(key.count + 1)) }
        }
        guard let id = value("id"), BackupID.isValid(id), let vm = value("vm") else { return nil }
        var record = BackupRecord(
            id: id, vm: vm, createdAt: value("at").flatMap { Int64($0) } ?? BackupID.seconds(id),
            bytes: value("bytes").flatMap { Int64($0) } ?? 0, encrypted: tags.contains("encrypted"))
        record.kind = value("kind").flatMap { BackupKind(rawValue: $0) }
        record.parent = value("parent")
        record.consistency = value("consistency").flatMap { Consistency(rawValue: $0) }
        record.fleet = value("fleet")
        record.sha256 = value("sha256")
        record.manifest = value("manifest")
        record.verifiedAt = value("verified").flatMap { Int64($0) }
        return record
    }

    package func put(_ file: String, _ record: BackupRecord) async throws {
        defer { try? Files.remove(file) }
        let words = [
            "backup", "--quiet", "--host", record.vm, "--stdin", "--stdin-filename",
            record.fileName, "--tag", ResticTarget.tags(record).joined(separator: ","),
        ]
        let input = try Descriptor.open(file, O_RDONLY | O_NOFOLLOW)
        var program = program(words)
        program.descriptors[0] = input.raw
        let output = try await program.capture()
        guard output.exit.isSuccess else {
            throw StorageError.failed(
                what: "\(text) did not take the backup",
                output: output.errorText.isEmpty ? "\(output.exit)" : output.errorText)
        }
    }

    private func snapshot(_ record: BackupRecord) async throws -> String {
        let found = try await snapshots(record.vm).last { $0.0.id == record.id }
        guard let found else {
            throw StorageError.missingBackup("there is no backup '\(record.id)' in \(text)")
        }
        return found.snapshot
    }

    package func open(_ record: BackupRecord) throws -> ArchiveInput {
        // The newest snapshot that has it: a new verdict makes a new one.
        let tags = "martlet,vm:\(record.vm),id:\(record.id)"
        return try ArchiveInput(
            name: "\(text) \(record.id)",
            running: program([
                // Whoever reads only the beginning kills it, and its lock would stay.
                "dump", "--no-lock", "--quiet", "--tag", tags, "latest", "/\(record.fileName)",
            ]))
    }

    /// Removes locks whose processes are gone, such as that of a backup that was killed.
    ///
    /// restic itself waits for them, and for nobody.
    private func unlock() async throws {
        try await run(["unlock", "--quiet"], doing: "removing stale locks")
    }

    package func update(_ record: BackupRecord) async throws {
        try await unlock()
        try await run(
            [
                "tag", "--set", ResticTarget.tags(record).joined(separator: ","),
                try await snapshot(record),
            ], doing: "keeping the verdict")
    }

    package func remove(_ record: BackupRecord) async throws {
        try await unlock()
        try await run(
            ["forget", "--prune", "--quiet", try await snapshot(record)], doing: "removing a backup"
        )
    }

    package func removeLeftovers(_ vm: String, olderThan: Int64) throws -> [String] {
        try FolderTarget(folder).removeLeftovers(vm, olderThan: olderThan)
    }
}
