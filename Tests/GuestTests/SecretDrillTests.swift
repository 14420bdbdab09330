// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// Secrets of every kind, looked for wherever they must not be, with two real guests.
@Suite(
    .enabled(if: environment("MARTLET_TESTS") == "full", "needs MARTLET_TESTS=full"),
    .enabled(if: getuid() == 0, "users of their own need root"), .serialized,
    .timeLimit(.minutes(20)))
struct SecretDrillTests {
    /// Each by the name of its secret; `theirs` is the other VM's.
    private struct Markers {
        var all = ["aged", "sopsed", "binary"].reduce(into: [String: String]()) {
            $0[$1] = "drill-\($1)-\(randomHex(16))"
        }
        /// One a line, for `grep -f`: in no argument, so that it does not find itself.
        var patterns: String { all.values.sorted().joined(separator: "\n") + "\n" }
    }

    @Test func secretsAreFoundInTheirGuestAlone() async throws {
        let port = try freePort()
        let martlet = try await BootedGuest.make(port)
        // In memory, and no part of ROOT or RUN.
        let notes = try TemporaryFolder(in: "/dev/shm")
        let result: Result<Void, any Error>
        do {
            try await story(martlet, port, notes)
            result = .success(())
        } catch {
            result = .failure(error)
        }
        for name in ["guest", "other"] {
            _ = try await martlet("kill", name)
            _ = try await martlet("purge", name, "--yes")
        }
        try result.get()
    }

    private func story(_ martlet: Martlet, _ port: UInt16, _ notes: TemporaryFolder) async throws {
        var markers = Markers()
        let binary = try await prepare(martlet, port, markers)
        let up = try await martlet("up")
        try #require(up.exit == .code(0), "\(up.text)\(up.errorText)\(martlet.traces())")
        for name in ["made", "theirs"] {
            markers.all[name] = try await martlet("secret", "show", name, "--reveal").text
        }
        #expect(markers.all["made"]?.utf8.count == 32 && markers.all["theirs"]?.utf8.count == 64)
        let patterns = notes.path + "/patterns"
        try Files.write(patterns, markers.patterns)

        // Each guest has its own, byte for byte.
        try Files.write(notes.path + "/binary", binary)
        let digest = try SHA256.file(notes.path + "/binary")
        let sum = try await martlet.inGuest("systemd-creds --system cat HOST-binary | sha256sum")
        #expect(sum.hasPrefix(digest))
        for (name, newline) in [("made", ""), ("aged", "\n"), ("sopsed", "")] {
            let want = SHA256.hex(((markers.all[name] ?? "") + newline).utf8)
            let command = "systemd-creds --system cat HOST-\(name) | sha256sum"
            #expect(try await martlet.inGuest(command).hasPrefix(want), "\(name)")
        }
        try await lookInGuests(martlet, markers)
        try await lookOnTheHost(martlet, patterns)
        try await lookAtWhatIsSaid(martlet, markers)
        try await lookAtUsers(martlet)
        try await lookForCores(martlet, patterns)
    }

    /// Writes the sources and the fleet file; returns the content of the binary one.
    private func prepare(
        _ martlet: Martlet, _ port: UInt16, _ markers: Markers
    ) async throws -> [UInt8] {
        let folder = martlet.folder.path
        let sealer = try await Sealer()
        try Files.write(folder + "/key.txt", try Files.read(sealer.identity), mode: 0o400)
        let age = try await Sealer.armor(
            Array((markers.all["aged"] ?? "").utf8) + [10], sealer.recipient)
        try Files.write(folder + "/aged", age.joined(separator: "\n") + "\n")
        try Files.write(
            folder + "/sopsed.yaml",
            try await sealer.yaml([("a", .map([("b", .sealed(markers.all["sopsed"] ?? ""))]))]))
        // As long as a secret may be, with every byte in it.
        var bytes = (0..<(64 << 10)).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 2) }
        let marker = Array((markers.all["binary"] ?? "").utf8)
        bytes.replaceSubrange(40000..<(40000 + marker.count), with: marker)
        // Where a file's own plain content is no finding.
        try Files.write(martlet.run + "-binary", bytes)
        let fleet = BootedGuest.fleet(port: port)
            .replacing(
                "  made: { generate: hex32 }",
                with: """
                      made: { generate: hex32 }
                      theirs: { generate: hex64 }
                      aged: { age: aged, identity: key.txt }
                      sopsed: { sops: sopsed.yaml, key: a.b, identity: key.txt }
                      binary: { file: \(martlet.run)-binary }
                    """
            ).replacing(
                "credentials: { made: { secret: made } }",
                with: "credentials: { made: { secret: made }, aged: { secret: aged }, "
                    + "sopsed: { secret: sopsed }, binary: { secret: binary } }")
        let other = """
              other:
                memory: 384MiB
                disk: 1GiB
                boot: { deadline: 3m }
                credentials: { theirs: { secret: theirs } }

            """
        try BootedGuest.write(fleet + "\n" + other, for: martlet)
        return bytes
    }

    private func lookInGuests(_ martlet: Martlet, _ markers: Markers) async throws {
        let places = "/run /etc /var /tmp /sys/firmware/qemu_fw_cfg /proc/cmdline"
        let search = "grep -rlaF -f /dev/stdin \(places) 2>/dev/null; cat /proc/*/environ | "
        for (name, theirs) in [
            ("guest", ["theirs"]), ("other", ["made", "aged", "sopsed", "binary"]),
        ] {
            let foreign = theirs.compactMap { markers.all[$0] }.map { $0 + "\n" }.joined()
            let found = try await martlet(
                "exec", name, "--", "sh", "-c", search + "cat >/dev/null",
                input: Array(foreign.utf8))
            #expect(found.exit == .code(0) && found.text.trimmed == "", "\(name): \(found.text)")
        }
        // The search finds what is there.
        let own = try await martlet(
            "exec", "other", "--", "sh", "-c", search + "cat >/dev/null",
            input: Array(((markers.all["theirs"] ?? "") + "\n").utf8))
        #expect(own.text.contains("HOST-theirs"), "\(own.text)")
        // Whoever is not root reads nothing of it.
        let nobody = try await martlet(
            "exec", "guest", "--", "setpriv", "--reuid=65534", "--clear-groups", "--", "sh", "-c",
            "cat /run/credentials/@system/* /sys/firmware/qemu_fw_cfg/by_name/opt/*/*/raw")
        let said = nobody.text
        #expect(markers.all.values.allSatisfy { !said.contains($0) } && nobody.exit != .code(0))
    }

    private func lookOnTheHost(_ martlet: Martlet, _ patterns: String) async throws {
        // Images, disks, logs, consoles, events, records: in ROOT, links lead to the images of all
        // tests; elsewhere they lead in circles.
        var found: [Substring] = []
        for (how, places) in [
            ("-RlasF", [martlet.root]), ("-rlasF", [martlet.run, "/tmp", "/run"]),
        ] {
            let files = try await Program(
                "/bin/grep", [how, "-D", "skip", "-f", patterns] + places
            ).capture()
            found += files.text.split(separator: "\n")
        }
        let own = ["guest", "other"].map { "\(martlet.run)/\($0)/credentials/" }
        #expect(found.filter { line in !own.contains { line.hasPrefix($0) } } == [], "\(found)")
        #expect(own.allSatisfy { place in found.contains { $0.hasPrefix(place) } }, "\(found)")
        // Arguments and variables of everything that runs here.
        let lines = try Files.readText(patterns).split(separator: "\n")
        for pid in try Files.list("/proc") where Int32(pid) != nil {
            for what in ["cmdline", "environ"] {
                let text = (try? Files.readText("/proc/\(pid)/\(what)")) ?? ""
                #expect(!lines.contains { text.contains($0) }, "/proc/\(pid)/\(what)")
            }
        }
    }

    private func lookAtWhatIsSaid(_ martlet: Martlet, _ markers: Markers) async throws {
        for words in [
            ["show", "guest"], ["show", "guest", "--json"], ["plan", "--json"], ["list", "--json"],
            ["status", "guest"], ["status", "guest", "--json"], ["secret", "list"],
            ["secret", "list", "--json"], ["events"], ["logs", "guest", "--boot"],
            ["generations", "guest", "--json"],
        ] {
            let output = try await martlet.program(words).capture()
            let said = output.text + output.errorText
            #expect(
                !said.isEmpty && markers.all.values.allSatisfy { !said.contains($0) }, "\(words)")
        }
    }

    /// The files are the VM's own user's, and another VM's user reads none of them.
    private func lookAtUsers(_ martlet: Martlet) async throws {
        func user(_ name: String) throws -> UInt32 {
            try Files.status("\(martlet.root)/vms/\(name)/disks/data.qcow2").owner
        }
        let (mine, theirs) = (try user("guest"), try user("other"))
        #expect(mine != theirs && mine != 0 && theirs != 0)
        let folder = "\(martlet.run)/guest/credentials"
        #expect(try Files.isInMemory(folder))
        let setpriv = try #require(findProgram("setpriv"))
        for name in try Files.list(folder) {
            var info = stat()
            #expect(stat("\(folder)/\(name)", &info) == 0)
            #expect(info.st_uid == mine && info.st_mode & 0o7777 == 0o400, "\(name)")
            for (user, reads) in [(mine, true), (theirs, false)] {
                let output = try await Program(
                    setpriv,
                    [
                        "--reuid=\(user)", "--regid=\(user)", "--clear-groups", "--", "/bin/cat",
                        "\(folder)/\(name)",
                    ]
                ).capture()
                #expect(output.exit.isSuccess == reads, "\(name) by \(user)")
            }
        }
    }

    /// A hypervisor and a supervisor that crash leave no core file.
    private func lookForCores(_ martlet: Martlet, _ patterns: String) async throws {
        let hypervisor = Int32(try #require(try await martlet.listed()["pid"]?.integer))
        let status = try Files.readText("/proc/\(hypervisor)/status")
        let parent = try #require(
            status.split(separator: "\n").first { $0.hasPrefix("PPid:") }?
                .split(separator: "\t").last.flatMap { Int32($0) })
        for pid in [hypervisor, parent] {
            let limits = try Files.readText("/proc/\(pid)/limits")
            let core = limits.split(separator: "\n").first { $0.hasPrefix("Max core file size") }
            #expect(core?.split(separator: " ").dropFirst(4).prefix(2) == ["0", "0"], "\(pid)")
        }
        kill(hypervisor, SIGSEGV)
        // The runtime of a debug build handles the first one, and returns.
        for _ in 0..<2 {
            kill(parent, SIGABRT)
            try await Task.sleep(for: .milliseconds(200))
        }
        try await martlet.untilFailed()
        for folder in ["/", martlet.folder.path, martlet.root, martlet.run] {
            let cores = try Files.list(folder).filter { $0 == "core" || $0.hasPrefix("core.") }
            #expect(cores == [], "\(folder)")
        }
        // What is left of the run is where it was, and nowhere else.
        let files = try await Program(
            "/bin/grep", ["-rlasF", "-D", "skip", "-f", patterns, martlet.root]
        ).capture()
        #expect(files.text.trimmed == "")
    }
}
