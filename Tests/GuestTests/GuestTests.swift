// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// What holds in a guest that `martlet up` started, without restarting it.
@Suite(
    "RealGuest", .enabled(if: getuid() == 0, "building images needs root"),
    BootedGuest(),
    .serialized, .timeLimit(.minutes(20)))
struct GuestTests {
    let martlet: Martlet

    init() throws { martlet = try #require(BootedGuest.martlet) }

    @Test func isListedAsItIs() async throws {
        let wait = try await martlet("wait", "guest", "--for", "healthy")
        #expect(wait.exit == .code(0), "\(wait.errorText)")
        let listed = try await martlet.listed()
        #expect(listed["state"] == "running")
        #expect(listed["health"] == "healthy")
        #expect(listed["imageState"] == "current")
        #expect(listed["addresses"] == ["10.0.2.15"])
        #expect(listed["ports"]?.elements.first?["host"] == "127.0.0.1:\(BootedGuest.port)")
        let pid = try #require(listed["pid"]?.integer)
        #expect(try Files.readText("/proc/\(pid)/cmdline").contains("guest=guest"))
        #expect(try #require(listed["bootSeconds"]?.number) > 0)
        #expect(try await martlet("plan", "--check").exit == .code(0))
    }

    @Test func execPassesCodesSignalsAndStreams() async throws {
        let output = try await martlet(
            "exec", "guest", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
        #expect(output.exit == .code(7))
        #expect(output.text == "out\n")
        #expect(output.errorText == "err\n")
        let killed = try await martlet("exec", "guest", "--", "sh", "-c", "kill -9 $$")
        #expect(killed.exit == .code(137))
        let words = try await martlet("exec", "guest", "--", "printf", "%s|", "a b", "", "$HOME'\"")
        #expect(words.text == "a b||$HOME'\"|")
    }

    @Test func execCarriesMegabytesBothWays() async throws {
        let bytes = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) }
        let output = try await martlet("exec", "guest", "--", "cat", input: bytes)
        #expect(output.standardOutput == bytes)
    }

    @Test func execStreamsAsItComes() async throws {
        let (reader, writer) = try Pipe().split()
        let output = Descriptor(owning: reader)
        var program = martlet.program(["exec", "guest", "--", "sh", "-c", "echo one; sleep 60"])
        program.descriptors[1] = writer
        let child = try program.spawn()
        close(writer)
        // The first line is here while the command still runs: nobody has waited for its end.
        try await readable(output.raw)
        #expect(try output.read(100) == Array("one\n".utf8))
        child.signal(SIGTERM)
        _ = try await child.wait()
    }

    @Test func suspendedAndResumedItGoesOn() async throws {
        let boot = try #require(try await martlet.listed()["bootSeconds"]?.number)
        let program = try await martlet.inGuest(
            "echo kept >/run/mark; setsid sleep 3600 >/dev/null 2>&1 & echo $!")
        let suspend = try await martlet("suspend", "guest")
        try #require(suspend.exit == .code(0), "\(suspend.text)\(suspend.errorText)")
        #expect(try await martlet.listed()["state"] == "suspended")
        // Its clock would be late by so much.
        try await Task.sleep(for: .seconds(3))
        let resume = try await martlet("resume", "guest")
        try #require(
            resume.exit == .code(0), "\(resume.text)\(resume.errorText)\(martlet.traces())")
        let seconds = try #require(try await martlet.listed()["bootSeconds"]?.number)
        #expect(seconds < boot / 2, "a resume took \(seconds) s, a boot \(boot) s")
        let name = try await martlet.inGuest("cat /run/mark /proc/\(program)/comm")
        #expect(name == "kept\nsleep")
        // The agent sets it as soon as it answers.
        var late: Int64 = 0
        for _ in 1...30 {
            late = Clock.now() - (Int64(try await martlet.inGuest("date +%s")) ?? 0)
            if abs(late) <= 2 { break }
            try await Task.sleep(for: .seconds(1))
        }
        #expect(abs(late) <= 2)
        // Its forwards are there again.
        let greeting = "read -t 30 -n 4 x </dev/tcp/127.0.0.1/\(BootedGuest.port); echo $x"
        #expect(try await Program("/bin/bash", ["-c", greeting]).capture().text == "SSH-\n")
        _ = try await martlet.inGuest("kill \(program)")
    }

    @Test func severalEnterAtOnce() async throws {
        let answers = try await withThrowingTaskGroup(of: String.self) { group in
            for number in 1...5 {
                group.addTask { try await martlet.inGuest("echo \(number)") }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(answers.sorted() == ["1", "2", "3", "4", "5"])
    }

    @Test func execGivesATerminalWhenAsked() async throws {
        #expect(try await martlet.inGuest("tty || true") == "not a tty")
        let output = try await martlet("exec", "-t", "guest", "--", "tty")
        #expect(output.text.hasPrefix("/dev/pts/"))
    }

    @Test func theSystemIsReadOnlyAndTheDataVolumeIsNot() async throws {
        for path in ["/x", "/usr/x", "/etc/x", "/etc/passwd"] {
            let output = try await martlet("exec", "guest", "--", "sh", "-c", ">>\(path)")
            #expect(output.errorText.contains("Read-only file system"), "\(path)")
        }
        let written = try await martlet.inGuest(
            "touch /var/x /home/admin/x /root/x /tmp/x && stat -f -c %T /tmp /var")
        #expect(written == "tmpfs\next2/ext3")
    }

    @Test func isHealthyHardenedAndItself() async throws {
        #expect(try await martlet.inGuest("systemctl --failed --no-legend") == "")
        let services = "systemctl is-active systemd-journald systemd-logind qemu-guest-agent ssh"
        #expect(try await martlet.inGuest(services) == "active\nactive\nactive\nactive")
        #expect(try await martlet.inGuest("sysctl -n kernel.kptr_restrict kernel.sysrq") == "2\n0")
        #expect(try await martlet.inGuest("cat /proc/sys/kernel/core_pattern") == "|/bin/false")
        #expect(try await martlet.inGuest("passwd -S root").hasPrefix("root L"))
        let spectre = "cat /sys/devices/system/cpu/vulnerabilities/spectre_v2"
        #expect(!(try await martlet.inGuest(spectre)).hasPrefix("Vulnerable"))
        #expect(try await martlet.inGuest("hostname") == "guest")
        let identity = martlet.root + "/vms/guest/identity"
        #expect(
            try await martlet.inGuest("cat /etc/machine-id")
                == Files.readText(identity + "/machine-id").trimmed)
    }

    @Test func everySettingOfItsKernelIsReadBack() async throws {
        let read = try await martlet.hardening()
        #expect(read.differing == [])
        #expect(read.holding == HardeningSetting.table.count { $0.standard != nil } - 2)
        // Told with the kernel that has them, and not left out.
        #expect(
            read.lacking == [
                "kernel.io_uring_disabled: Linux 6.6", "dev.tty.legacy_tiocsti: Linux 6.2",
            ], "\(read.kernel)")
        let load = try await martlet("exec", "guest", "--", "modprobe", "sctp")
        #expect(load.exit != .code(0) && load.errorText.contains("/bin/false"))
        // Nothing lends privilege but what has to.
        let lending = "find / -xdev -type f -perm /6000 -printf '%f\\n' | sort"
        #expect(
            try await martlet.inGuest(lending)
                == "dbus-daemon-launch-helper\nsu\nsudo\nunix_chkpwd")
    }

    @Test func isGivenItsSecretForItsServicesAlone() async throws {
        let value = try await martlet("secret", "show", "made", "--reveal").text
        #expect(value.utf8.count == 32)
        #expect(try await martlet.inGuest("systemd-creds --system cat HOST-made") == value)
        let service =
            "systemd-run -q --wait --pipe -p DynamicUser=yes -p LoadCredential=key:HOST-made "
            + "sh -c 'cat \"$CREDENTIALS_DIRECTORY/key\"'"
        #expect(try await martlet.inGuest(service) == value)
        let other = try await martlet(
            "exec", "guest", "--", "setpriv", "--reuid=65534", "--clear-groups", "--", "sh", "-c",
            "cat /run/credentials/@system/HOST-made || cat /sys/firmware/qemu_fw_cfg/by_name/opt/"
                + "io.systemd.credentials/HOST-made/raw")
        #expect(other.exit != .code(0) && !other.text.contains(value))
        // In the host's memory alone, and not in what QEMU or the disks keep.
        let run = try await Program(
            "/bin/grep", ["-rlF", value, martlet.root, martlet.run]
        ).capture()
        #expect(
            run.text.split(separator: "\n").allSatisfy { $0.hasPrefix(martlet.run + "/guest/cred") }
        )
        #expect(run.text.contains("/credentials/"))
    }

    @Test func letsInWhoHasAKeyAndNobodyElse() async throws {
        func login(
            _ user: String, _ command: String, _ options: [String] = []
        ) async throws -> Output {
            let ssh = try #require(findProgram("ssh"))
            let folder = martlet.folder.path
            let key = try Files.readText(
                martlet.root + "/vms/guest/identity/ssh_host_ed25519_key.pub")
            try Files.write(folder + "/known", "[127.0.0.1]:\(BootedGuest.port) \(key)")
            return try await Program(
                ssh,
                options + [
                    "-F", "/dev/null", "-i", folder + "/key", "-o", "IdentitiesOnly=yes",
                    "-o", "UserKnownHostsFile=\(folder)/known", "-o", "BatchMode=yes",
                    "-o", "StrictHostKeyChecking=yes", "-p", "\(BootedGuest.port)",
                    "\(user)@127.0.0.1", command,
                ]
            ).capture()
        }
        let admin = try await login("admin", "sudo -n id -u")
        #expect(admin.text == "0\n", "\(admin.errorText)")
        let user = try await login("user", "id -un; sudo -n id -u")
        #expect(user.text == "user\n")
        #expect(user.exit != .code(0))
        let root = try await login("root", "id")
        #expect(root.exit == .code(255))
        #expect(root.errorText.contains("Permission denied (publickey)"))
        let password = try await login(
            "admin", "id",
            [
                "-o", "PubkeyAuthentication=no",
                "-o", "PreferredAuthentications=password,keyboard-interactive",
            ])
        #expect(password.exit == .code(255))
        #expect(password.errorText.contains("Permission denied (publickey)"))
    }

    @Test func sshAndCopyNeedNoNetwork() async throws {
        #expect(try await martlet("ssh", "guest", "--", "id", "-un").text == "admin\n")
        #expect(try await martlet("ssh", "root@guest", "--", "id", "-un").text == "root\n")
        try Files.write(martlet.folder.path + "/there", "and back")
        #expect(try await martlet("cp", "there", "guest:/root/there").exit == .code(0))
        #expect(try await martlet("cp", "guest:/root/there", "back").exit == .code(0))
        #expect(try Files.readText(martlet.folder.path + "/back") == "and back")
    }

    @Test func saysWhatItDoes() async throws {
        #expect(try await martlet("logs", "guest").text.contains("systemd[1]"))
        let console = try await martlet("logs", "guest", "--boot")
        #expect(!console.text.isEmpty)
    }

    @Test func aLiveChangeDoesNotRestartIt() async throws {
        let before = try await martlet.inGuest("cat /proc/sys/kernel/random/boot_id")
        try BootedGuest.write(
            BootedGuest.fleet(
                port: BootedGuest.port, "disk: 1GiB\n    stop: { grace: 31s }"), for: martlet)
        let plan = try JSONValue(parsing: try await martlet("plan", "--json").text)
        #expect(plan["changes"]?.elements.first?["consequence"] == "live")
        #expect(try await martlet("up").exit == .code(0))
        #expect(try await martlet.inGuest("cat /proc/sys/kernel/random/boot_id") == before)
        #expect(try await martlet("plan", "--check").exit == .code(0))
    }

    @Test(.enabled(if: environment("MARTLET_TESTS") == "full", "needs MARTLET_TESTS=full"))
    func isSnapshottedAndClonedWhileItRuns() async throws {
        _ = try await martlet("wait", "guest", "--for", "healthy")
        _ = try await martlet.inGuest("echo then >/var/lib/kept")
        let made = try await martlet("snapshot", "create", "guest", "live")
        #expect(made.exit == .code(0) && made.text.contains("were frozen"), "\(made.errorText)")
        // It was let go: it writes, and nobody has noticed anything.
        _ = try await martlet.inGuest("echo now >/var/lib/kept && sync")
        for (name, words) in [
            ("then", ["snapshot", "restore", "guest", "live", "--as", "then"]),
            ("copy", ["clone", "guest", "copy"]),
        ] {
            let output = try await martlet.program(words).capture()
            #expect(output.exit == .code(0), "\(output.text)\(output.errorText)")
            // A file system that was frozen has nothing in its journal.
            let raw = "\(martlet.folder.path)/\(name).raw"
            let disk = "\(martlet.root)/vms/\(name)/disks/data.qcow2"
            let convert = ["convert", "-f", "qcow2", "-O", "raw", disk, raw]
            #expect(try await Program("/usr/bin/qemu-img", convert).capture().exit.isSuccess)
            let dump = try await Program("/usr/sbin/dumpe2fs", ["-h", raw]).capture()
            #expect(dump.exit.isSuccess && !dump.text.contains("needs_recovery"))
            let cat = ["-R", "cat /lib/kept", raw]
            let kept = try await Program("/usr/sbin/debugfs", cat).capture()
            #expect(kept.text == (name == "then" ? "then\n" : "now\n"), "\(kept.errorText)")
            try Files.remove(raw)
            #expect(try await martlet("purge", name, "--yes").exit == .code(0))
        }
        #expect(try await martlet("snapshot", "remove", "guest", "live", "--yes").exit == .code(0))
        let listed = try await martlet.listed()
        #expect(listed["health"] == "healthy" && listed["restarts"] == 0)
        #expect(try await martlet("plan", "--check").exit == .code(0))
    }

    @Test func pausesAndGoesOn() async throws {
        #expect(try await martlet("pause", "guest").exit == .code(0))
        #expect(try await martlet.listed()["state"] == "paused")
        #expect(try await martlet("exec", "guest", "--", "true").exit == .code(1))
        #expect(try await martlet("unpause", "guest").exit == .code(0))
        #expect(try await martlet.listed()["state"] == "running")
        #expect(try await martlet.inGuest("echo on") == "on")
    }
}
