// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Secrets

@Suite(.timeLimit(.minutes(20))) struct SecretStoreTests {
    private let root: TemporaryFolder
    private let store: SecretStore

    init() throws {
        Signals.ignoreBrokenPipes()
        root = try TemporaryFolder()
        store = SecretStore(root: root.path, searchPath: Sealer.programs)
    }

    /// Everything that lies in the store's files.
    private func everything() throws -> [String: [UInt8]] {
        var all: [String: [UInt8]] = [:]
        for name in try Files.list(store.folder) {
            let path = "\(store.folder)/\(name)"
            if !Files.isFolder(path) {
                all[name] = try Files.read(path)
                continue
            }
            for file in try Files.list(path) {
                all["\(name)/\(file)"] = try Files.read("\(path)/\(file)")
            }
        }
        return all
    }

    @Test func aValueComesBackAndLiesEncrypted() async throws {
        #expect(try await store.value(fleet: "home", name: "smtp") == nil)
        #expect(try store.changedAt(fleet: "home", name: "smtp") == nil)
        let content = Array("hunter2\n\u{0}ü".utf8)
        try await store.set(fleet: "home", name: "smtp", secret(content))
        #expect(try await store.value(fleet: "home", name: "smtp")?.bytes == content)
        #expect(try await store.value(fleet: "other", name: "smtp") == nil)
        let files = try everything()
        #expect(files.keys.sorted() == ["home/smtp.age", "identity.key"])
        for bytes in files.values {
            #expect(!String(decoding: bytes, as: UTF8.self).contains("hunter2"))
        }
        let folder = store.folder
        #expect(try Files.status(folder).mode == 0o700)
        #expect(try Files.status(folder + "/home").mode == 0o700)
        #expect(try Files.status(folder + "/home/smtp.age").mode == 0o600)
        #expect(try Files.status(folder + "/identity.key").mode == 0o400)
        let changed = try #require(try store.changedAt(fleet: "home", name: "smtp"))
        #expect(try Files.status(folder + "/home/smtp.age").modified == changed)
    }

    @Test func plainTextStandsInNoArgumentAndNoVariable() async throws {
        let log = root.path + "/log"
        try Files.write(
            root.path + "/age",
            "#!/bin/sh\n{ printf '%s\\n' \"$@\"; env; } >>\(log)\nexec /usr/bin/age \"$@\"\n",
            mode: 0o755)
        let store = SecretStore(root: root.path, searchPath: root.path + ":" + Sealer.programs)
        try await store.set(fleet: "home", name: "smtp", secret("hunter2"))
        #expect(try await store.value(fleet: "home", name: "smtp") == secret("hunter2"))
        let seen = try Files.readText(log)
        #expect(seen.contains("--encrypt\n") && seen.contains("--decrypt\n"))
        #expect(seen.contains("PATH=") && !seen.contains("hunter2"))
    }

    @Test func anyLengthUpToTheLimitIsKept() async throws {
        let large = secret([UInt8](repeating: 7, count: SecretBytes.limit))
        try await store.set(fleet: "home", name: "large", large)
        #expect(try await store.value(fleet: "home", name: "large") == large)
    }

    @Test func aGeneratedValueIsMadeOnce() async throws {
        let first = try await store.generated(fleet: "home", name: "token", .hex32)
        #expect(try await store.generated(fleet: "home", name: "token", .hex64) == first)
        #expect(try await store.value(fleet: "home", name: "token") == first)
        let store = store
        let both = try await withThrowingTaskGroup(of: String.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    try await store.generated(fleet: "home", name: "raced", .base64).text
                }
            }
            return try await group.reduce(into: Set()) { $0.insert($1) }
        }
        #expect(both.count == 1)
    }

    @Test func severalThatStartAtOnceShareOneIdentity() async throws {
        let store = store
        try await withThrowingTaskGroup { group in
            for index in 0..<4 {
                group.addTask {
                    try await store.set(fleet: "home", name: "s\(index)", secret("value \(index)"))
                }
            }
            try await group.waitForAll()
        }
        for index in 0..<4 {
            #expect(
                try await store.value(fleet: "home", name: "s\(index)")?.text == "value \(index)")
        }
    }

    @Test func rotationKeepsNothingOfTheOldValue() async throws {
        let old = try await store.generated(fleet: "home", name: "token", .password)
        let before = try Files.read(store.folder + "/home/token.age")
        let new = try await store.rotate(fleet: "home", name: "token", .password)
        #expect(old != new)
        #expect(try await store.value(fleet: "home", name: "token") == new)
        let files = try everything()
        #expect(files.keys.sorted() == ["home/token.age", "identity.key"])
        #expect(!files.values.contains(before))
    }

    @Test func aRemovedValueIsGone() async throws {
        try await store.set(fleet: "home", name: "a", secret("1"))
        try await store.set(fleet: "home", name: "b", secret("2"))
        #expect(try store.names(fleet: "home") == ["a", "b"])
        try store.remove(fleet: "home", name: "a")
        try store.remove(fleet: "home", name: "a")
        try store.remove(fleet: "none", name: "a")
        #expect(try store.names(fleet: "home") == ["b"])
        #expect(try await store.value(fleet: "home", name: "a") == nil)
        try store.remove(fleet: "home", name: "b")
        #expect(try Files.list(store.folder) == ["identity.key"])
        #expect(try store.names(fleet: "home") == [])
    }

    /// What a killed run leaves is neither a value nor in the way, and goes away.
    @Test func aLeftoverTemporaryFileDoesNoHarm() async throws {
        try await store.set(fleet: "home", name: "smtp", secret("old"))
        let dead = try await Program("/bin/sh", ["-c", "echo $$"]).capture().text.dropLast()
        let left = [
            "home/smtp.age.new.\(dead)", "home/token.age.new.\(dead).0123456789",
            "identity.key.new.\(dead).0a.new.\(dead)", "salt.key.new.\(dead).0b",
        ].map { "\(store.folder)/\($0)" }
        for path in left { try Files.write(path, "half") }
        #expect(try store.names(fleet: "home") == ["smtp"])
        #expect(try await store.value(fleet: "home", name: "smtp")?.text == "old")
        try await store.set(fleet: "home", name: "smtp", secret("new"))
        _ = try await store.generated(fleet: "home", name: "token", .hex16)
        _ = try store.fingerprint(secret("x"))
        #expect(left.allSatisfy(Files.exists))
        try store.removeUnfinished()
        #expect(!left.contains(where: Files.exists))
        #expect(try await store.value(fleet: "home", name: "smtp")?.text == "new")
        #expect(try store.names(fleet: "home") == ["smtp", "token"])
    }

    @Test func aStoreWithoutItsIdentitySaysThatValuesAreLost() async throws {
        try await store.set(fleet: "home", name: "smtp", secret("hunter2"))
        let identity = store.folder + "/identity.key"
        try Files.remove(identity)
        for error in [
            await failure { _ = try await store.value(fleet: "home", name: "smtp") },
            await failure { try await store.set(fleet: "home", name: "other", secret("x")) },
        ] {
            guard case .missing(identity, _)? = error else {
                Issue.record("\(String(describing: error))")
                continue
            }
        }
        #expect(!Files.exists(identity))
    }

    @Test func aDamagedValueIsRefused() async throws {
        try await store.set(fleet: "home", name: "smtp", secret("hunter2"))
        let path = store.folder + "/home/smtp.age"
        let bytes = try Files.read(path)
        for damaged in [
            Array(bytes.dropLast()), bytes.dropLast() + [bytes[bytes.count - 1] ^ 1], [],
        ] {
            try Files.write(path, damaged)
            let error = await failure { _ = try await store.value(fleet: "home", name: "smtp") }
            guard case .damaged(path, _)? = error else {
                Issue.record("\(String(describing: error))")
                continue
            }
        }
    }

    @Test(arguments: ["", ".", "..", "../x", "a/b"])
    func aNameThatIsNoneIsRefused(name: String) async throws {
        // The dot is for files that belong to no fleet.
        for (fleet, name) in [(name, "x"), ("x", name), ("identity.key", "x"), ("A", "x")] {
            let error = await failure { try await store.set(fleet: fleet, name: name, secret("x")) }
            guard case .invalidName? = error else {
                Issue.record("\(fleet) \(name)")
                continue
            }
        }
        #expect(!Files.exists(store.folder))
    }

    /// A fleet may have the name of any file that a person would think of.
    @Test(arguments: ["identity", "salt", "secrets", "key"])
    func aFleetMayHaveAnyName(fleet: String) async throws {
        _ = try store.fingerprint(secret("x"))
        try await store.set(fleet: fleet, name: fleet, secret("x"))
        #expect(try store.names(fleet: fleet) == [fleet])
    }

    @Test func aFingerprintTellsAChangeAndNothingElse() async throws {
        let print = try store.fingerprint(secret("hunter2"))
        #expect(try store.fingerprint(secret("hunter2")) == print)
        #expect(try store.fingerprint(secret("hunter3")) != print)
        #expect(print.count == 64 && print != SHA256.hex(Array("hunter2".utf8)))
        #expect(try Files.status(store.folder + "/salt.key").mode == 0o400)
        let other = try TemporaryFolder()
        #expect(try SecretStore(root: other.path).fingerprint(secret("hunter2")) != print)
        try Files.write(store.folder + "/salt.key", "short")
        #expect(throws: SecretError.self) { try store.fingerprint(secret("hunter2")) }
    }

    /// RFC 4231, test case 2.
    @Test func theFingerprintIsAnHMAC() {
        let digest = secret("what do ya want for nothing?").withBytes {
            HMAC.sha256(key: Array("Jefe".utf8), $0)
        }
        #expect(
            digest == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    }
}
