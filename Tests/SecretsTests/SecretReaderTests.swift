// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Secrets

@Suite(.timeLimit(.minutes(20))) struct SecretReaderTests {
    private let folder: TemporaryFolder
    private let reader: SecretReader

    init() throws {
        Signals.ignoreBrokenPipes()
        folder = try TemporaryFolder()
        reader = SecretReader(
            home: folder.path, searchPath: folder.path + ":" + Sealer.programs,
            variable: { _ in nil })
    }

    private func write(_ name: String, _ text: String, mode: UInt32 = 0o600) throws -> String {
        let path = "\(folder.path)/\(name)"
        try Files.makeFolder(Files.parent(path))
        try Files.write(path, text, mode: mode)
        return path
    }

    private func age(_ value: String, _ name: String, for recipient: String) async throws -> String
    {
        let lines = try await Sealer.armor(Array(value.utf8), recipient)
        return try write(name, lines.joined(separator: "\n") + "\n")
    }

    // MARK: age

    @Test func ageReadsWithTheIdentityThatIsNamedAndWithTheUsualOne() async throws {
        let key = folder.path + "/k.txt"
        let path = try await age("hunter2\n", "s.age", for: try await Sealer.makeIdentity(key))
        #expect(try await reader.read(.age(path: path, identity: key)).text == "hunter2\n")
        #expect(
            try await reader.read(.age(path: "~/s.age", identity: "~/k.txt")).text == "hunter2\n")
        #expect(
            await failure { _ = try await reader.read(.age(path: path, identity: nil)) }
                == .missing(
                    path: folder.path + "/.config/age/key.txt",
                    what: "the age identity that decrypts is expected there"))
        _ = try write(".config/age/key.txt", try Files.readText(key))
        #expect(try await reader.read(.age(path: path, identity: nil)).text == "hunter2\n")
    }

    @Test func anotherKeyADamagedFileAndABrokenIdentityAreToldApart() async throws {
        let key = folder.path + "/k.txt"
        let path = try await age("hunter2", "s.age", for: try await Sealer.makeIdentity(key))
        let other = folder.path + "/other.txt"
        _ = try await Sealer.makeIdentity(other)
        let line = try #require(
            try Files.readText(key).split(separator: "\n").last { $0.hasPrefix("AGE-") })
        let broken = try write("broken.txt", line.dropLast(3) + "QQQ\n")
        let cut = try write("cut.age", String(try Files.readText(path).dropLast(80)))
        func error(_ path: String, _ identity: String) async -> SecretError? {
            await failure { _ = try await reader.read(.age(path: path, identity: identity)) }
        }
        guard case .undecryptable(path, _)? = await error(path, other) else {
            Issue.record("another identity")
            return
        }
        guard case .unusable(broken, _)? = await error(path, broken) else {
            Issue.record("a broken identity")
            return
        }
        guard case .damaged(cut, _)? = await error(cut, key) else {
            Issue.record("a file that is cut off")
            return
        }
        let said = "\(String(describing: await error(path, broken)))"
        #expect(!said.contains(line.dropFirst(20).prefix(20)))
    }

    /// age quotes the beginning of what it did not encrypt.
    @Test func aFileThatNobodyEncryptedIsNotQuoted() async throws {
        let key = folder.path + "/k.txt"
        _ = try await Sealer.makeIdentity(key)
        let path = try write("s.age", "hunter2\n")
        let error = await failure { _ = try await reader.read(.age(path: path, identity: key)) }
        guard case .damaged(path, let reason)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(!reason.contains("hunter2") && reason.contains("age --encrypt"))
    }

    /// The words of age 1.1 to 1.3, of which one machine has one version.
    @Test(arguments: [
        ("no identity matched any of the recipients", "encrypted for other keys"),
        (
            "identity did not match any of the recipients: incorrect identity for recipient block",
            "encrypted for other keys"
        ),
        (
            "file is passphrase-encrypted but identities were specified with -i/--identity or -j",
            "locked with a passphrase"
        ),
        (
            "could not read passphrase: standard input is not a terminal, and /dev/tty is not there",
            "locked with a passphrase"
        ),
        ("yubikey plugin: couldn't start plugin: executable file not found", "needs a plugin"),
        (
            "reading \"k\": failed to read \"k\": error at line 3: malformed secret key: hunter2",
            "cannot read an identity"
        ),
        ("reading \"k\": unknown identity type: \"hunter2\"", "cannot read an identity"),
        (
            "failed to read header: parsing age header: unexpected intro: \"hunter2\\n\"",
            "nothing that age has encrypted"
        ),
        ("failed to decrypt and authenticate payload chunk", "cut off or was changed"),
    ])
    func whatAgeSaysIsUnderstoodAndNotPassedOn(said: String, meaning: String) {
        let text = "\(Tools.complaint("age: error: \(said)\n", identity: "/k", path: "/s"))"
        #expect(text.contains(meaning) && !text.contains("hunter2"), "\(text)")
    }

    @Test func nothingWaitsForAPassphrase() async throws {
        let key = folder.path + "/k.txt"
        _ = try await Sealer.makeIdentity(key)
        // What `age --passphrase` makes; the header alone says so.
        let path = try write(
            "s.age",
            """
            age-encryption.org/v1
            -> scrypt bBjlhJVYZeE4aqUdmtRHfw 15
            ZV/AhotwSGqaPCU43cepl4WYUouAa17a3xpu4G2yi5k
            --- fgMiVLJHMlg9fW7CVG/hPS5EAU4Zeg19LyCP7SoH5nA

            """)
        let error = await failure { _ = try await reader.read(.age(path: path, identity: key)) }
        guard case .undecryptable(path, let reason)? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(reason.contains("passphrase"))
    }

    // MARK: sops

    @Test func sopsReadsWithTheIdentityOfSops() async throws {
        let sealer = try await Sealer()
        let text = try await sealer.yaml([("dns", .map([("token", .sealed("hunter2"))]))])
        let path = try write("s.yaml", text)
        let identity = folder.path + "/.config/sops/age/keys.txt"
        #expect(
            await failure {
                _ = try await reader.read(.sops(path: path, key: "dns.token", identity: nil))
            }
                == .missing(
                    path: identity, what: "the age identity that decrypts is expected there"))
        _ = try write(".config/sops/age/keys.txt", try Files.readText(sealer.identity))
        // Our own reader, whatever is installed.
        _ = try write("sops", "#!/bin/sh\nexit 1\n", mode: 0o755)
        let source = Secret.Source.sops(path: path, key: "dns.token", identity: nil)
        #expect(try await reader.read(source).text == "hunter2")
    }

    @Test func sopsReadsWithTheIdentityThatIsNamed() async throws {
        let sealer = try await Sealer()
        let path = try write("s.yaml", try await sealer.yaml([("token", .sealed("hunter2"))]))
        _ = try write("my keys.txt", try Files.readText(sealer.identity))
        let named = Secret.Source.sops(path: path, key: "token", identity: "~/my keys.txt")
        #expect(try await reader.read(named).text == "hunter2")
        #expect(
            await failure {
                _ = try await reader.read(.sops(path: path, key: "token", identity: "/none"))
            } == .missing(path: "/none", what: "the age identity that decrypts is expected there"))
    }

    @Test(arguments: [
        ([:], "/h/.config/sops/age/keys.txt"), (["XDG_CONFIG_HOME": "/c"], "/c/sops/age/keys.txt"),
        (["XDG_CONFIG_HOME": ""], "/h/.config/sops/age/keys.txt"),
        (["XDG_CONFIG_HOME": "/c", "SOPS_AGE_KEY_FILE": "/k"], "/k"),
        (["HOME": "/other"], "/h/.config/sops/age/keys.txt"),
    ])
    func theIdentityOfSopsIsFoundAsSopsFindsIt(variables: [String: String], path: String) {
        #expect(SecretReader(home: "/h", variable: { variables[$0] }).sopsIdentity == path)
    }

    @Test func aServiceWithoutHomeReadsWhereRootDoes() {
        #expect(SecretReader(variable: { _ in nil }).ageIdentity == "/root/.config/age/key.txt")
    }

    // MARK: file

    @Test func theBytesOfAFileAreTheSecret() async throws {
        for content in ["hunter2\n", "\u{0}\u{1}", String(repeating: "x", count: 64 << 10)] {
            let path = try write("f", content)
            #expect(try await reader.read(.file(path: path)).text == content)
        }
        try Files.link(folder.path + "/f", at: folder.path + "/link")
        #expect(try await reader.read(.file(path: "~/link")).count == 64 << 10)
    }

    @Test func aFileThatIsNoSecretIsRefused() async throws {
        func error(_ path: String) async -> SecretError? {
            await failure { _ = try await reader.read(.file(path: path)) }
        }
        let (missing, pipe) = (folder.path + "/none", folder.path + "/pipe")
        mkfifo(pipe, 0o600)
        let (empty, large) = (
            try write("e", ""), try write("l", String(repeating: "x", count: 65537))
        )
        #expect(
            await error(missing) == .missing(path: missing, what: "a secret is to come from it"))
        #expect(await error(empty) == .empty(empty))
        #expect(await error(large) == .tooLarge(large, limit: 64 << 10))
        for path in [pipe, folder.path, "/dev/null"] {
            guard case .unusable(path, _)? = await error(path) else {
                Issue.record("\(path)")
                continue
            }
        }
        for mode: UInt32 in [0o620, 0o602, 0o666] {
            let path = try write("w", "hunter2", mode: mode)
            let said = "\(String(describing: await error(path)))"
            #expect(said.contains("chmod go-w \(path)") && !said.contains("hunter2"))
        }
    }

    // MARK: systemdCreds

    /// Runs the real program with a host key of its own: that of this host is left alone.
    private func useOwnHostKey() throws -> Bool {
        guard geteuid() == 0, let program = findProgram("systemd-creds") else { return false }
        try Files.makeFolder(folder.path + "/systemd")
        _ = try write(
            "systemd-creds",
            """
            #!/bin/sh
            exec unshare --mount sh -c 'mount --bind "$0" /var/lib/systemd && exec "$@"' \
            \(folder.path)/systemd \(program) "$@"

            """, mode: 0o755)
        return true
    }

    @Test func systemdCredsDecryptsUnderTheNameOfTheFile() async throws {
        // Without privilege there is no key of the host to be had; the stand-in below covers it.
        guard try useOwnHostKey() else { return }
        let path = folder.path + "/smtp.cred"
        let encrypt = try await Program(
            folder.path + "/systemd-creds",
            ["encrypt", "--with-key=host", "--name=smtp.cred", "-", path]
        ).capture(input: Array("hunter2\n".utf8))
        try #require(encrypt.exit.isSuccess, "\(encrypt.errorText)")
        #expect(try await reader.read(.systemdCreds(path: path)).text == "hunter2\n")
        try Files.rename(path, folder.path + "/other.cred")
        let error = await failure {
            _ = try await reader.read(.systemdCreds(path: "~/other.cred"))
        }
        guard case .undecryptable? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        let plain = try write("plain.cred", "hunter2\n")
        let said = await failure { _ = try await reader.read(.systemdCreds(path: plain)) }
        #expect(!"\(try #require(said))".contains("hunter2"))
    }

    @Test func systemdCredsGetsTheFileOnItsInput() async throws {
        _ = try write(
            "systemd-creds", "#!/bin/sh\nprintf '%s ' \"$@\"\nexec tr a-z A-Z\n", mode: 0o755)
        let path = try write("smtp", "hunter2")
        #expect(
            try await reader.read(.systemdCreds(path: path)).text
                == "decrypt --name=smtp - - HUNTER2")
        _ = try write(
            "systemd-creds", "#!/bin/sh\necho \"Embedded name 'x' does not match\" >&2; exit 1\n",
            mode: 0o755)
        let error = await failure { _ = try await reader.read(.systemdCreds(path: path)) }
        #expect("\(try #require(error))".contains("encrypt it with --name=smtp"))
    }

    @Test func aProgramThatIsMissingIsNamedWithItsPackage() async throws {
        let reader = SecretReader(home: folder.path, searchPath: folder.path)
        // Folders of the administrator are always searched: no such program may lie there.
        try #require(findProgram("age", path: folder.path) == nil)
        let path = try write("s.age", "x")
        _ = try write(".config/age/key.txt", "x")
        #expect(
            await failure { _ = try await reader.read(.age(path: path, identity: nil)) }
                == .missingTool(name: "age", package: "age"))
    }

    // MARK: generate

    @Test(arguments: [
        (GeneratedSecret.hex16, 16, "0123456789abcdef"), (.hex32, 32, "0123456789abcdef"),
        (.hex64, 64, "0123456789abcdef"),
        (.password, 24, "23456789abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"),
    ])
    func aGeneratedSecretHasItsForm(form: GeneratedSecret, count: Int, from: String) async throws {
        var seen: Set<Character> = []
        var values: Set<String> = []
        for _ in 0..<200 {
            let value = try await reader.read(.generate(form)).text
            #expect(value.count == count)
            seen.formUnion(value)
            values.insert(value)
        }
        #expect(seen == Set(from) && values.count == 200)
    }

    @Test func base64IsThatOf32RandomBytes() async throws {
        var values: Set<[UInt8]> = []
        for _ in 0..<200 {
            let text = try await reader.read(.generate(.base64)).text
            values.insert(try #require(Base64.decode(text)))
        }
        #expect(values.count == 200 && values.allSatisfy { $0.count == 32 })
        // Every bit is both 0 and 1 at some time.
        for index in 0..<32 {
            #expect(values.reduce(UInt8(0)) { $0 | $1[index] } == 255)
            #expect(values.reduce(UInt8(255)) { $0 & $1[index] } == 0)
        }
    }

    // MARK: SecretBytes

    @Test func aSecretNeverShowsItself() throws {
        struct Holder { let value: SecretBytes }
        let value = try SecretBytes(Array("hunter2".utf8), name: "x")
        var dumped = ""
        dump(Holder(value: value), to: &dumped)
        for text in [
            "\(value)", String(reflecting: value), "\(Holder(value: value))", "\([value])", dumped,
            String(describing: Optional(value)), String(reflecting: Mirror(reflecting: value)),
        ] {
            #expect(!text.contains("hunter2") && !text.contains("104"), "\(text)")
        }
        #expect(value.bytes == Array("hunter2".utf8) && value.count == 7)
    }

    @Test func secretsAreComparedByContent() throws {
        let value = secret("hunter2")
        #expect(value == secret("hunter2"))
        #expect(value != secret("hunter3") && value != secret("hunter22"))
        #expect(throws: SecretError.empty("x")) { try SecretBytes([], name: "x") }
        #expect(throws: SecretError.tooLarge("x", limit: 65536)) {
            try SecretBytes([UInt8](repeating: 1, count: 65537), name: "x")
        }
    }
}
