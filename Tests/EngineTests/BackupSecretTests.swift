// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Support
import Testing

/// The secrets that Martlet keeps, in backups and back from them.
@Suite(.timeLimit(.minutes(20))) struct BackupSecretTests {
    private func declare(_ world: World, encrypt: (path: String, recipient: String)? = nil) throws {
        let backups =
            encrypt.map { ", backups: {encrypt: [\($0.recipient)], identity: \($0.path)}" } ?? ""
        let text = """
            fleet: test
            secrets:
              made: { generate: hex32 }
              chosen: { generate: password }
              other: { generate: hex16 }
              plain: { file: plain }
            vms:
              web:
                { memory: 256MiB, disk: 64MiB\(backups), credentials: { made: { secret: made },
                  twice: { secret: made }, chosen: { secret: chosen }, plain: { secret: plain } } }
              else: { memory: 256MiB, disk: 64MiB, credentials: { other: { secret: other } } }

            """
        try Files.write("\(world.folder)/plain", "from a file")
        try Files.write("\(world.folder)/fleet.yaml", text)
    }

    private func value(_ world: World, _ name: String) async throws -> String {
        try await world.must("secret", "show", name, "--reveal").text
    }

    private func archive(_ world: World) throws -> String {
        let folder = "\(world.layout.backups)/web"
        let names = try Files.list(folder).filter { $0.contains(".tar.zst") }.sorted()
        return "\(folder)/\(try #require(names.last))"
    }

    private func shell(_ line: String) async throws -> [UInt8] {
        let output = try await Program("/bin/sh", ["-c", line]).capture()
        try #require(output.exit.isSuccess, "\(line): \(output.errorText)")
        return output.standardOutput
    }

    private func holds(_ bytes: [UInt8], _ text: String) -> Bool {
        String(decoding: bytes, as: UTF8.self).contains(text)
    }

    @Test func aPlainArchiveHoldsNoneAndTheReportSaysSo() async throws {
        let world = try await World("qemu boot=0.05 agent freeze", inMemory: true)
        try declare(world)
        try await world.must("up")
        try await world.must("stop", "web")
        let said = try await world.must("backup", "create", "web")
        let report = said.text + said.errorText
        #expect(
            report.contains("without the secrets chosen, made, for it is not encrypted"),
            "\(report)")
        let row = try #require(try await world.backups("web").last)
        #expect(row["secretsLeftOut"]?.elements.map(\.string) == ["chosen", "made"])
        #expect(row["secrets"]?.elements.isEmpty == true)
        let tar = try await shell("zstd -dc \(try archive(world)) | head -c 1000000")
        #expect(!holds(tar, "secrets/"))
        #expect(try await !holds(tar, value(world, "made")))
        // A restore without them leaves what is there.
        let before = try await value(world, "made")
        try await world.must("backup", "restore", "web")
        #expect(try await value(world, "made") == before)
    }

    @Test func anEncryptedArchiveBringsThemBackWhereThereAreNone() async throws {
        let world = try await World("qemu boot=0.05 agent freeze", inMemory: true)
        let key = try await world.makeKey("key")
        try declare(world, encrypt: key)
        try await world.must("up")
        try await world.must("secret", "set", "chosen", input: "by hand\n")
        try await world.must("stop", "web")
        let made = try await value(world, "made")
        let said = try await world.must("backup", "create", "web")
        let report = said.text + said.errorText
        #expect(report.contains("with the secrets chosen, made"), "\(report)")
        #expect(try await world.backups("web").last?["secrets"]?.elements.count == 2)
        let file = try archive(world)
        #expect(!holds(try Files.read(file), made))
        let members = try await shell("age -d -i \(key.path) \(file) | zstd -dc | tar -t")
        #expect(holds(members, "secrets/chosen\nsecrets/made\n") && !holds(members, "plain"))
        let inside = try await shell(
            "age -d -i \(key.path) \(file) | zstd -dc | tar -xO secrets/chosen secrets/made")
        #expect(String(decoding: inside, as: UTF8.self) == "by hand\n" + made)

        // One that is here stays, and one that is not comes back.
        try await world.must("secret", "rotate", "made")
        let rotated = try await value(world, "made")
        try Files.remove("\(world.layout.root)/secrets/test/chosen.age")
        let back = try await world.must("backup", "restore", "web")
        let told = back.text + back.errorText
        #expect(
            told.contains("the secret 'made' has another value here, which was kept"), "\(told)")
        #expect(told.contains("with its secrets chosen"), "\(told)")
        #expect(try await value(world, "made") == rotated)
        #expect(try await value(world, "chosen") == "by hand\n")
        // Nothing of it lies about.
        let found = try await Program(
            "/bin/grep", ["-rlF", "by hand", world.layout.root]
        ).capture()
        #expect(found.text.isEmpty, "\(found.text)")
    }

    /// Another machine, where the restore is killed at each of its steps: the guest that starts in
    /// the end is given what it had.
    @Test func aKilledRestoreElsewhereBringsThemAll() async throws {
        let world = try await World("qemu boot=0.05 agent freeze", inMemory: true)
        let key = try await world.makeKey("key")
        try declare(world, encrypt: key)
        try await world.must("up")
        try await world.must("stop", "web")
        let values = [try await value(world, "chosen"), try await value(world, "made")]
        try await world.must("backup", "create", "web")
        let file = try archive(world)
        let secrets = "\(world.layout.root)/secrets"
        for step in 1..<100 {
            try await world.must("purge", "web", "--yes")
            try Files.remove(secrets)
            let output = try await world.program(
                ["backup", "restore", "web", file], killAt: step
            ).capture()
            if output.exit != .signal(SIGKILL) {
                #expect(output.exit == .code(0), "\(output.errorText)")
                #expect(step > 8)
                break
            }
            try await world.must("backup", "restore", "web", file)
            #expect(
                try await [value(world, "chosen"), value(world, "made")] == values, "step \(step)")
            let left = try Files.list("\(secrets)/test").filter { $0.contains(".new") }
            #expect(left == [], "step \(step)")
            try world.expectNothingLeftOver("step \(step)")
        }
        try await world.must("start", "web")
        let folder = world.layout.vm("web").credentials
        let given = try Files.list(folder).map { try Files.readText("\(folder)/\($0)") }
        for value in values { #expect(given.contains(value)) }
    }
}
