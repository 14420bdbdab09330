// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Secrets

@Suite(.timeLimit(.minutes(20))) struct SopsTests {
    private static let secrets = ["correct horse", "battery staple", "s3cret-one", "s3cret-two"]

    private let entries: [(String, Tree)] = [
        ("dns", .map([("token", .sealed("correct horse")), ("port", .sealed("5353", "int"))])),
        ("list", .list([.sealed("s3cret-one"), .sealed("s3cret-two"), .sealed("third")])),
        ("on", .sealed("True", "bool")), ("off", .sealed("False", "bool")),
        ("ratio", .sealed("0.25", "float")), ("empty", .sealed("")),
        ("bytes", .sealed("a\u{0}b", "bytes")), ("lines", .sealed("one\ntwo\n")),
        ("dotted.name", .sealed("battery staple")), ("nothing", .plain("null", hashed: nil)),
        (
            "note_unencrypted",
            .map([
                ("hex", .plain("0x10", hashed: "16")), ("yes", .plain("true", hashed: "True")),
                ("half", .plain("1.50", hashed: "1.5")), ("text", .plain("\"07\"", hashed: "07")),
                ("day", .plain("2026-01-02", hashed: "2026-01-02T00:00:00Z")),
            ])
        ),
    ]

    private func read(
        _ sealer: Sealer, _ text: String, _ key: String, name: String = "s.yaml"
    ) async throws -> SecretBytes {
        let path = sealer.folder.path + "/" + name
        try Files.write(path, text)
        let file = try SopsFile(parsing: try Files.read(path), path: path)
        let place = try file.find(key)
        let tools = Tools(searchPath: Sealer.programs)
        return try file.value(
            at: place, try await file.dataKey(tools, identity: sealer.identity))
    }

    @Test(arguments: [
        ("dns.token", "correct horse"), ("dns.port", "5353"), ("list.0", "s3cret-one"),
        ("list[1]", "s3cret-two"), ("on", "true"), ("off", "false"), ("ratio", "0.25"),
        ("bytes", "a\u{0}b"), ("lines", "one\ntwo\n"), ("dotted.name", "battery staple"),
        ("empty", ""), ("note_unencrypted.hex", "0x10"),
    ])
    func aKeyPicksOneValue(key: String, value: String) async throws {
        let sealer = try await Sealer()
        let text = try await sealer.yaml(entries)
        #expect(try await read(sealer, text, key).text == value)
    }

    @Test(arguments: [
        ("dns.token", "correct horse"), ("dns.enabled", "true"), ("list.0", "first"),
        ("list.1.name", "second"), ("lines", "one\ntwo\n"), ("umlaut-ü", "ß"),
    ])
    func aFileOfAnotherWriterIsRead(key: String, value: String) async throws {
        let sealer = try await Sealer()
        let identity = sealer.folder.path + "/vector.txt"
        try Files.write(identity, Vector.identity + "\n")
        let file = try SopsFile(parsing: Array((Vector.yaml + "\n").utf8), path: "vector.yaml")
        let key = try file.find(key)
        let dataKey = try await file.dataKey(
            Tools(searchPath: Sealer.programs), identity: identity)
        #expect(try file.value(at: key, dataKey).text == value)
    }

    /// The one value that is wanted opens in nearly all of these: the damage is elsewhere.
    @Test(arguments: Damage.allCases)
    func aDamagedFileIsRefused(damage: Damage) async throws {
        let sealer = try await Sealer()
        let good = try await sealer.yaml(entries)
        let text = damage.apply(good, sealer)
        #expect(text != good)
        let error = try #require(
            await failure { _ = try await read(sealer, text, "dns.token") })
        let said = "\(error)"
        #expect(said.contains(damage.says), "\(said)")
        for secret in Self.secrets { #expect(!said.contains(secret)) }
    }

    enum Damage: String, CaseIterable, Sendable {
        case renamedKey, renamedParent, removedItem, swappedItems, addedValue, removedValue
        case changedPlain, emptied, madePlain, flippedBit, truncated, cutValue, swappedValues
        case brokenMAC, noMAC, otherTime, secondDocument, noSection, oldVersion, noVersion
        case keyGroups, noRecipients, otherRule, commentRule, brokenRegex, brokenKey

        var says: String {
            switch self {
            case .renamedKey: "'list[1].name' does not open"
            case .flippedBit: "'list[1]' does not open"
            case .renamedParent, .swappedValues: "does not open"
            case .removedItem, .swappedItems, .addedValue, .removedValue, .changedPlain, .emptied:
                "the MAC differs"
            case .madePlain, .cutValue: "should be encrypted and is not"
            case .truncated, .secondDocument: "is not what sops writes"
            case .brokenMAC, .otherTime: "'sops.mac' or 'sops.lastmodified'"
            case .noMAC: "it has no MAC"
            case .noSection: "it has no 'sops' section"
            case .oldVersion: "another version of sops than 3"
            case .noVersion: "which version of sops"
            case .keyGroups: "key groups"
            case .noRecipients: "no age recipient"
            case .otherRule: "two rules"
            case .commentRule: "depends on comments"
            case .brokenRegex: "regular expression"
            case .brokenKey: "is damaged"
            }
        }

        func apply(_ text: String, _ sealer: Sealer) -> String {
            var lines = text.split(separator: "\n", omittingEmptySubsequences: false)
                .map(String.init)
            func line(_ start: String) -> Int { lines.firstIndex { $0.hasPrefix(start) } ?? 0 }
            let items = lines.indices.filter { lines[$0].hasPrefix("    - ENC") }
            switch self {
            case .renamedKey: lines[items[1]].replace("ENC", with: "name: ENC")
            case .renamedParent: lines[line("ratio:")].replace("ratio", with: "ration")
            case .removedItem: lines.remove(at: items[1])
            case .swappedItems: lines.swapAt(items[0], items[1])
            case .addedValue: lines.insert("added: \(sealer.seal("x", "added:"))", at: items[0] - 1)
            case .removedValue: lines.remove(at: line("ratio:"))
            case .changedPlain: lines[line("    hex:")] = "    hex: 0x11"
            case .emptied: lines[line("ratio:")] = "ratio: \"\""
            case .madePlain: lines[line("ratio:")] = "ratio: battery staple"
            case .flippedBit:
                let change = lines[items[1]].contains("data:A") ? "data:B" : "data:A"
                let at = lines[items[1]].firstRange(of: "data:")?.upperBound
                if let at {
                    lines[items[1]] =
                        String(lines[items[1]][..<at].dropLast(5)) + change
                        + lines[items[1]][at...].dropFirst()
                }
            case .truncated:
                let cut = lines.prefix(line("ratio:"))
                return cut.joined(separator: "\n") + "\nratio: \"ENC[AES256_GCM,data:"
            case .cutValue: lines[line("ratio:")] = String(lines[line("ratio:")].dropLast(30))
            case .swappedValues:
                let (on, off) = (line("on:"), line("off:"))
                let value = lines[on].dropFirst(3)
                lines[on] = "on:" + lines[off].dropFirst(4)
                lines[off] = "off:" + value
            case .brokenMAC: lines[line("    mac:")] = "    mac: " + sealer.seal("AB", "other")
            case .noMAC: lines.remove(at: line("    mac:"))
            case .otherTime: lines[line("    lastmodified:")].replace("03:04:05", with: "03:04:06")
            case .secondDocument: lines.insert("---", at: items[0] - 1)
            case .noSection: return lines.prefix(line("sops:")).joined(separator: "\n")
            case .oldVersion: lines[line("    version:")] = "    version: 1.18"
            case .noVersion: lines.remove(at: line("    version:"))
            case .keyGroups: lines.append("    key_groups: [{ age: [] }]")
            case .noRecipients: lines[line("    age:")] = "    other:"
            case .otherRule: lines.append("    encrypted_regex: ^x$")
            case .commentRule: lines.append("    encrypted_comment_regex: sops:enc")
            case .brokenRegex:
                lines[line("    unencrypted_suffix:")] = "    encrypted_regex: '('"
            case .brokenKey:
                let start = line("            -----BEGIN")
                lines[start + 1] = "            " + lines[start + 1].dropFirst(16)
            }
            return lines.filter { !$0.isEmpty }.joined(separator: "\n") + "\n"
        }
    }

    @Test func anotherIdentityIsRefusedAndBothAreNamed() async throws {
        let sealer = try await Sealer()
        let text = try await sealer.yaml(entries)
        _ = try await Sealer.makeIdentity(sealer.folder.path + "/other.txt")
        let file = try SopsFile(parsing: Array(text.utf8), path: "/x/s.yaml")
        let error = await failure {
            _ = try await file.dataKey(
                Tools(searchPath: Sealer.programs), identity: sealer.folder.path + "/other.txt")
        }
        guard case .undecryptable("/x/s.yaml", let reason)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(reason.contains(sealer.recipient) && reason.contains("/other.txt opens none"))
    }

    @Test func oneOfSeveralRecipientsIsEnough() async throws {
        let sealer = try await Sealer()
        let other = try await Sealer.makeIdentity(sealer.folder.path + "/other.txt")
        let armored = try await Sealer.armor(sealer.dataKey, other)
        let first =
            "        - recipient: \(other)\n          enc: |\n"
            + armored.map { "            \($0)\n" }.joined()
        var text = try await sealer.yaml(entries)
        text.replace("    age:\n", with: "    age:\n" + first)
        #expect(try await read(sealer, text, "dns.token").text == "correct horse")
    }

    @Test(arguments: [
        ("unencrypted_suffix: _u", ["plain_u"]), ("encrypted_suffix: _e", ["plain", "plain_u"]),
        ("unencrypted_regex: ^pl(ai|x)n", ["plain", "plain_u"]),
        ("encrypted_regex: '^(secret_e|deep)$'", ["plain", "plain_u"]), ("kms: []", []),
    ])
    func theRuleTellsWhatIsEncrypted(rule: String, plain: [String]) async throws {
        for macOnlyEncrypted in [false, true] {
            var sealer = try await Sealer()
            sealer.rule = rule
            sealer.macOnlyEncrypted = macOnlyEncrypted
            func value(_ name: String) -> Tree {
                plain.contains(name) ? .plain("0b11", hashed: "3") : .sealed("hidden")
            }
            let text = try await sealer.yaml([
                ("plain", value("plain")), ("plain_u", value("plain_u")),
                ("secret_e", .map([("inner", .sealed("deep in it"))])),
            ])
            #expect(try await read(sealer, text, "secret_e.inner").text == "deep in it")
            // What is not encrypted is guarded by the MAC only if that covers it.
            guard !plain.isEmpty else { continue }
            let changed = text.replacing("0b11", with: "0b10")
            let error = await failure { _ = try await read(sealer, changed, "secret_e.inner") }
            #expect((error == nil) == macOnlyEncrypted)
        }
    }

    /// Tabs, slashes and escapes as sops's writer of JSON has them; all numbers have a fraction.
    @Test func JSONIsReadInTheOrderOfItsMembers() async throws {
        let sealer = try await Sealer()
        let hashed = "zsecret" + "1" + "1000000000000000000000" + "True" + "<é/>" + "as"
        let mac = sealer.seal(try Crypto().sha512([secret(hashed)]), sealer.lastModified)
        let armored = try await Sealer.armor(sealer.dataKey, sealer.recipient)
        let text = """
            {
            \t"z": "\(sealer.seal("zsecret", "z:"))",
            \t"n_unencrypted": [1.0, 1e21, true, null, "\\u003c\\u00e9\\/\\u003e"],
            \t"a": {"b": "\(sealer.seal("as", "a:b:"))"},
            \t"sops": {
            \t\t"kms": null,
            \t\t"age": [{"recipient": "\(sealer.recipient)",
            \t\t\t"enc": "\(armored.joined(separator: "\\n"))\\n"}],
            \t\t"lastmodified": "\(sealer.lastModified)",
            \t\t"mac": "\(mac)",
            \t\t"version": "3.7.1"
            \t}
            }

            """
        for name in ["s.json", "binary"] {
            #expect(try await read(sealer, text, "a.b", name: name).text == "as")
        }
        let moved = text.replacing("1.0, 1e21", with: "1e21, 1.0")
        let error = await failure { _ = try await read(sealer, moved, "a.b", name: "s.json") }
        #expect("\(String(describing: error))".contains("the MAC differs"))
    }

    @Test(arguments: [
        ("dns.tokn", "did you mean 'token'? (below 'dns')"), ("dsn.token", "did you mean 'dns'?"),
        ("list.3", "has 3 values, from 0 on"), ("list.first", "has 3 values"),
        ("dns.token.x", "'dns.token' is one value"), ("dns", "such as 'dns.token'"),
        ("list", "such as 'list.0'"), ("", "known: "), ("sops.mac", "known: "),
    ])
    func aKeyThatIsNotThereNamesTheNearest(key: String, hint: String) async throws {
        let sealer = try await Sealer()
        let text = try await sealer.yaml(entries)
        let error = try #require(await failure { _ = try await read(sealer, text, key) })
        guard case .noSuchKey = error else {
            Issue.record("\(error)")
            return
        }
        #expect("\(error)".contains(hint), "\(error)")
    }

    @Test func aValueThatIsNothingIsRefused() async throws {
        let sealer = try await Sealer()
        let text = try await sealer.yaml(entries)
        let error = await failure { _ = try await read(sealer, text, "nothing") }
        guard case .empty? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    /// The reader of YAML names what it stumbles over, which here is the secret.
    @Test(arguments: ["token: *hunter2\n", "token: !hunter2 x\n", "hunter2", "[hunter2"])
    func aFileThatNobodyEncryptedIsNotQuoted(text: String) throws {
        let error = #expect(throws: SecretError.self) {
            try SopsFile(parsing: Array(text.utf8), path: "/x/s.yaml")
        }
        let said = "\(try #require(error))"
        #expect(said.contains("/x/s.yaml") && !said.contains("hunter2"))
    }

    @Test(arguments: [
        ("0x1F", "31"), ("-0x10", "-16"), ("0o17", "15"), ("017", "15"), ("0b101", "5"),
        ("1_000", "1000"), ("+5", "5"), ("08", "8"), ("0", "0"), ("-0", "0"), (".5", "0.5"),
        ("1.", "1"), ("1e3", "1000"), ("1.5e-7", "0.00000015"), ("1e22", "10000000000000000000000"),
        ("123456789.25", "123456789.25"), ("-0.0", "-0"), ("1.10", "1.1"), (".inf", "+Inf"),
        ("-.inf", "-Inf"), (".nan", "NaN"), ("yes", "yes"), ("TRUE", "True"), ("false", "False"),
        ("1.2.3", "1.2.3"), ("0x", "0x"), ("+", "+"), ("12ab", "12ab"), ("e3", "e3"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("9223372036854775807", "9223372036854775807"),
    ])
    func aValueInPlainYAMLIsHashedAsSopsReadsIt(text: String, hashed: String) {
        #expect(SopsScalar(text, isPlain: true, .yaml).hashed == hashed)
        #expect(SopsScalar(text, isPlain: false, .yaml).hashed == text)
    }

    @Test func aTimeInAFormOfItsOwnIsNotGuessed() {
        for text in ["2026-1-2", "2026-01-02 03:04:05", "2026-01-02t03:04:05+01:00"] {
            #expect(SopsScalar(text, isPlain: true, .yaml) == .time)
        }
        for text in ["", "~", "null"] { #expect(SopsScalar(text, isPlain: true, .yaml) == .null) }
    }

    @Test(arguments: [
        "", "A", "AAA", "AAAA=", "A===", "AB==", "AAB=", "AA=A", "A A=", "AAA\n", "====", "AA-_",
    ])
    func brokenBase64IsRefused(text: String) {
        #expect(Base64.decode(text) == nil)
    }

    @Test func base64ComesBack() {
        for count in 1...40 {
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255) }
            #expect(Base64.decode(encode(bytes)) == bytes)
        }
    }
}

/// The error of a room that a piece of work ends with; nil when it ends well.
func failure(_ body: () async throws -> Void) async -> SecretError? {
    do {
        try await body()
        return nil
    } catch let error as SecretError {
        return error
    } catch {
        Issue.record("\(error)")
        return nil
    }
}
