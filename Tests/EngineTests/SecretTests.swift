// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Support
import Testing

/// Secrets on their way from where the fleet file says they are to one guest, and nowhere else.
@Suite(.timeLimit(.minutes(20))) struct SecretTests {
    /// Printed nowhere but on purpose, and found by looking for it.
    static let marker = "MARTLET-marker-of-the-drill"

    /// Two VMs, of which `web` is given secrets of several kinds.
    private func ready(_ more: String = "") async throws -> World {
        let world = try await World(inMemory: true)
        try Files.write("\(world.folder)/binary", [0, 255, 10, 0] + Array(Self.marker.utf8))
        try await sealed("age \(Self.marker)\n", as: "sealed.age", world)
        try declare(world, more)
        try await world.must("up")
        return world
    }

    private func declare(_ world: World, _ more: String = "") throws {
        let text = """
            fleet: test
            secrets:
              made: { generate: hex32 }
              bytes: { file: binary }
              sealed: { age: sealed.age, identity: key.txt }
            vms:
              web:
                memory: 256MiB
                credentials: { made: { secret: made }, bytes: { secret: bytes }, sealed: { secret: sealed } }
            \(more)
              other: { memory: 256MiB, credentials: { made: { text: nothing } } }
            """
        try Files.write("\(world.folder)/fleet.yaml", text + "\n")
    }

    /// Encrypts with age for the identity in `key.txt`, which is made the first time.
    private func sealed(_ text: String, as name: String, _ world: World) async throws {
        let shell =
            "[ -e key.txt ] || age-keygen -o key.txt 2>/dev/null; "
            + "age -r $(age-keygen -y key.txt) -o \(name) && chmod 600 key.txt"
        var program = Program("/bin/sh", ["-c", shell])
        program.folder = world.folder
        let output = try await program.capture(input: Array(text.utf8))
        try #require(output.exit.isSuccess, "\(output.errorText)")
    }

    /// The files that the hypervisor hands to a guest, by their content.
    private func given(_ world: World, _ name: String = "web") throws -> [[UInt8]] {
        let folder = world.layout.vm(name).credentials
        return try Files.list(folder).map { try Files.read("\(folder)/\($0)") }
    }

    // MARK: The drill

    @Test func aSecretIsFoundInItsGuestsFilesAndNowhereElse() async throws {
        let world = try await ready()
        let mine = try given(world)
        #expect(mine.contains([0, 255, 10, 0] + Array(Self.marker.utf8)))
        #expect(mine.contains(Array("age \(Self.marker)\n".utf8)))
        let made = try await world.must("secret", "show", "made", "--reveal").text
        #expect(made.utf8.count == 32 && mine.contains(Array(made.utf8)))
        let markers = [Self.marker, made]
        func holds(_ bytes: [UInt8]) -> Bool {
            let text = String(decoding: bytes, as: UTF8.self)
            return markers.contains { text.contains($0) }
        }
        // Everything below ROOT, and below RUN but for these files; the sealed ones do not show.
        let own = world.layout.vm("web").credentials
        let files = Set(try walk(world.layout.root) + walk(world.layout.run))
        #expect(files.count > 20)
        for path in files where !path.hasPrefix(own + "/") {
            #expect(!holds(try Files.read(path)), "\(path)")
        }
        for pid in world.processes {
            for what in ["cmdline", "environ"] {
                let bytes = (try? Files.read("/proc/\(pid)/\(what)")) ?? []
                #expect(!holds(bytes), "\(what) of \(pid)")
            }
            let limits = try Files.readText("/proc/\(pid)/limits")
            let core = limits.split(separator: "\n").first { $0.hasPrefix("Max core file size") }
            #expect(core?.split(separator: " ").dropFirst(4).first == "0", "\(pid)")
        }
        for words in [
            ["show", "web"], ["plan"], ["plan", "--json"], ["list", "--json"], ["status", "web"],
            ["status", "web", "--json"], ["events"], ["secret", "list"],
            ["secret", "list", "--json"],
            ["generations", "web", "--json"], ["logs", "web", "--boot"],
        ] {
            let output = try await world.program(words).capture()
            #expect(!holds(output.standardOutput + output.standardError), "\(words)")
        }
        // The VM's own user reads them, root aside, and the other VM's cannot.
        if getuid() == 0 {
            let user = try Files.status(world.layout.vm("web").sockets).owner
            let other = try Files.status(world.layout.vm("other").sockets).owner
            #expect(user != other && user != 0)
            for name in try Files.list(own) {
                var info = stat()
                #expect(stat("\(own)/\(name)", &info) == 0)
                #expect(info.st_uid == user && info.st_mode & 0o7777 == 0o400, "\(name)")
            }
        }
        // With the guest they are gone.
        try await world.must("stop", "web")
        #expect(!Files.exists(own))
    }

    private func walk(_ folder: String) throws -> [String] {
        try Files.list(folder).flatMap { name -> [String] in
            let path = "\(folder)/\(name)"
            if Files.isFolder(path, followLinks: false) { return try walk(path) }
            var info = stat()
            return lstat(path, &info) == 0 && info.st_mode & S_IFMT == S_IFREG ? [path] : []
        }
    }

    // MARK: Changing them

    @Test func anotherValueRestartsWhoeverHasIt() async throws {
        let world = try await ready()
        try await world.must("plan", "--check")
        let before = try await world.must("secret", "show", "made", "--reveal").text
        let said = try await world.must("secret", "rotate", "made")
        #expect((said.text + said.errorText).contains("web"))
        #expect(try await world.must("secret", "show", "made", "--reveal").text != before)
        let plan = try await world.mustFail("plan", "--check", code: 2)
        #expect(
            plan.contains("secrets.made") && plan.contains("restart") && !plan.contains("other"))
        #expect(try await world.must("secret", "list").text.contains("stale"))
        #expect(try given(world).contains(Array(before.utf8)))
        // One that is gone is made by the next start, and not by looking.
        let kept = world.layout.root + "/secrets/test/made.age"
        try Files.remove(kept)
        #expect(try await world.mustFail("plan", "--check", code: 2).contains("secrets.made"))
        #expect(!Files.exists(kept))
        let pid = try await world.list()["other"]?["pid"]
        try await world.must("up")
        #expect(try await world.list()["other"]?["pid"] == pid)
        #expect(try !given(world).contains(Array(before.utf8)))
        try await world.must("plan", "--check")

        // A file that was written again with the same content changes nothing.
        try Files.write("\(world.folder)/binary", try Files.read("\(world.folder)/binary"))
        try await world.must("plan", "--check")
        try await sealed("another\n", as: "sealed.age", world)
        #expect(try await world.mustFail("plan", "--check", code: 2).contains("secrets.sealed"))
        // One that cannot be read is said before anything is stopped.
        try Files.write("\(world.folder)/sealed.age", "garbage")
        try Files.write("\(world.folder)/binary", "new")
        let running = try await world.list()["web"]?["pid"]
        let refused = try await world.mustFail("up", code: 1)
        #expect(refused.contains("sealed"))
        #expect(try await world.list()["web"]?["pid"] == running)
    }

    @Test func itWaitsWhereNothingMayRestart() async throws {
        let world = try await ready("    restartIfChanged: false")
        try await world.must("secret", "set", "made", input: "chosen")
        try await world.must("plan", "--check")
        let before = try given(world)
        #expect(!before.contains(Array("chosen".utf8)))
        try await world.must("restart", "web")
        #expect(try given(world).contains(Array("chosen".utf8)))
        // Without the fleet file too: what it said was taken over.
        try await world.must("stop", "web")
        try Files.remove("\(world.folder)/fleet.yaml")
        try await world.must("start", "web")
        #expect(try given(world).contains(Array("chosen".utf8)))
    }

    // MARK: Refusals

    /// What is missing on the host is named with the package that brings it; no value is needed for
    /// that, and nothing else is refused for it.
    @Test(.enabled(if: geteuid() == 0, "only root makes mount namespaces"))
    func whatTheHostLacksIsNamedWithItsPackage() async throws {
        let world = try await World(inMemory: true)
        let sealer = try await Sealer()
        try Files.write(
            "\(world.folder)/s.yaml", try await sealer.yaml([("token", .sealed("hunter2"))]))
        try await sealed("x", as: "sealed.age", world)
        try Files.write(
            "\(world.folder)/fleet.yaml",
            """
            fleet: test
            secrets:
              sops: { sops: s.yaml, key: token, identity: \(sealer.identity) }
              age: { age: sealed.age, identity: key.txt }
              made: { generate: hex32 }
            vms:
              web: { memory: 256MiB, credentials: { a: { secret: sops } } }
              free: { memory: 256MiB }

            """)
        #expect(try await world.must("secret", "show", "sops", "--reveal").text == "hunter2")
        let library = try #require(
            ["/usr/lib/x86_64-linux-gnu/", "/lib/x86_64-linux-gnu/", "/usr/lib/aarch64-linux-gnu/"]
                .map { $0 + "libcrypto.so.3" }.first(where: Files.exists))
        try await world.must("up", "free")
        try await world.must("stop", "free")
        func hide(_ path: String) {
            world.wrapper = [
                "/usr/bin/unshare", "--mount", "/bin/sh", "-c",
                "mount --bind /dev/null \(path) && exec \"$@\"", "sh",
            ]
        }
        hide(library)
        let crypto = try await world.mustFail("secret", "show", "sops", "--reveal", code: 69)
        #expect(crypto.contains("libcrypto.so.3") && crypto.contains("libssl3"), "\(crypto)")
        let refused = try await world.mustFail("up", "web", code: 69)
        #expect(refused.contains("libssl3"), "\(refused)")
        #expect(try !world.isRunning("web"))
        // Images are hashed by our own code then.
        try await world.must("start", "free")
        try await world.must("stop", "free")

        for (name, program) in [("age", "age"), ("sops", "age"), ("made", "age")] {
            hide("/usr/bin/\(program)")
            let said = try await world.mustFail("secret", "show", name, "--reveal", code: 69)
            #expect(said.contains("'age'") && said.contains("apt"), "\(name): \(said)")
        }
    }

    @Test func whatCannotBeIsRefusedWithTheReason() async throws {
        let world = try await ready()
        #expect(
            try await world.mustFail("secret", "rotate", "bytes", code: 1).contains(
                "change it there"))
        #expect(
            try await world.mustFail("secret", "show", "mode", code: 66).contains(
                "Did you mean 'made'"))
        #expect(try await world.mustFail("secret", "show", "made", code: 64).contains("--reveal"))
        try await world.must("stop", "web")
        // A RUN on a disk would keep what is written to it.
        world.onlyEnvironment = world.program([]).environment?.map {
            $0.hasPrefix("MARTLET_RUN=") ? "MARTLET_RUN=\(world.folder)/run" : $0
        }
        #expect(try await world.mustFail("start", "web", code: 78).contains("not in memory"))
        #expect(try walk("\(world.folder)/run").allSatisfy { !$0.contains("/credentials/") })
        world.onlyEnvironment = nil
        try await world.must("up")
    }
}
