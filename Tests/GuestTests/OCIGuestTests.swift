// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

private let isFull = environment("MARTLET_TESTS") == "full" && getuid() == 0

/// OCI images of a registry on loopback as VMs: as a service of somebody's own, and by themselves.
@Suite(
    "RealOCI", .enabled(if: isFull, "needs MARTLET_TESTS=full and root"), .serialized,
    .timeLimit(.minutes(40)))
struct OCIGuestTests {
    private let martlet: Martlet
    private let registry: Registry
    private let ports: [UInt16]

    init() async throws {
        ports = [try freePort(), try freePort()]
        martlet = try await BootedGuest.make(ports[0])
        registry = try await Registry()
    }

    @Test func aServiceAndAnImage() async throws {
        let result: Result<Void, any Error>
        do {
            let one = try await push("one")
            let two = try await push("two")
            try declare(one.service, one.plain)
            try await bring("guest", "plain")
            try await checkPlain()
            try await checkService()
            try await checkStop()
            try await checkUpgrade(to: two.service, two.plain)
            try await checkClone()
            result = .success(())
        } catch { result = .failure(error) }
        try await registry.stop()
        for name in ["guest", "plain", "copy"] {
            _ = try await martlet("kill", name)
            _ = try await martlet("purge", name, "--yes")
        }
        try result.get()
    }

    // MARK: What is run

    /// A program of an account of the image's own that shows what it was told, keeps what it did,
    /// and ends at a signal that no other program knows what to do with.
    private func pages(_ version: String, entrypoint: String) throws -> MadeUpImage {
        let program = """
            #!/bin/sh
            hash() { sha256sum | cut -c 1-64; }
            {
                echo "version \(version)"
                echo "greeting $GREETING"
                echo "word $WORD, other $OTHER, home $HOME"
                echo "key $(hash <"$SIGN_FILE")"
                echo "token $(printf %s "$TOKEN" | hash)"
                echo "user $(id -u):$(id -g) $(id -G)"
                echo "process $$"
                cat /etc/pages.conf
            } >/srv/index.html 2>&1
            echo started >>/data/starts
            echo cached >>/cache/starts
            trap 'echo stopped >>/data/stops; exit 0' USR1
            busybox httpd -f -p 8080 -h /srv &
            wait $!

            """
        var base = MadeUpTar()
        for name in ["bin/", "etc/", "data/"] { base.add(name, "5", mode: 0o755, user: 0) }
        for name in ["srv/", "cache/"] { base.add(name, "5", mode: 0o755, user: 101) }
        base.add("bin/busybox", bytes: try Files.read("/bin/busybox"), mode: 0o755, user: 0)
        for name in ["sh", "sha256sum", "cut", "id", "cat"] {
            base.add("bin/\(name)", "2", link: "busybox", user: 0)
        }
        base.add(
            "etc/passwd", content: "root:x:0:0::/:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n", user: 0)
        base.add("etc/group", content: "web:x:102:\nlogs:x:103:web\n", user: 0)
        var top = MadeUpTar()
        top.add(
            String(entrypoint.dropFirst()), content: program, mode: 0o755, user: 0)
        top.add("data/seed", content: version, mode: 0o644, user: 101)
        return try MadeUpImage(
            [base.whole, top.whole],
            config: [
                "User": "web", "Entrypoint": [.string(entrypoint)],
                "Env": [
                    "PATH=/bin", "WORD=the image's", "OTHER=of the image", "SIGN_FILE=/dev/null",
                ],
                "ExposedPorts": ["8080/tcp": [:]], "Volumes": ["/data": [:], "/cache": [:]],
                "StopSignal": "SIGUSR1",
            ])
    }

    /// The same as an ordinary program and as one that wants to be an init.
    private func push(_ version: String) async throws -> (service: String, plain: String) {
        (
            try await registry.push(try pages(version, entrypoint: "/bin/pages"), as: "test/pages"),
            try await registry.push(try pages(version, entrypoint: "/init"), as: "test/init")
        )
    }

    private func declare(_ service: String, _ plain: String) throws {
        try Files.makeFolder(martlet.folder.path + "/catalogue")
        try Files.write(
            martlet.folder.path + "/catalogue/pages.yaml",
            """
            name: Pages
            category: documents
            summary: Pages of a test
            version: "1"
            links: { home: "https://pages.example.org" }
            license: MIT
            tested: { how: read, date: 2026-12-01, note: by this test. }
            provenance: [this test]
            image:
              oci: "\(service)"
              files: { /usr/lib/martlet/oci/rootfs/etc/pages.conf: "conf of the entry\\n" }
            state: [{ path: /var/lib/pages, mount: /data }]
            web: 8080
            vm: { memory: 256MiB, firewall: { tcp: [8080] }, health: { http: "http://:8080/" } }
            parameters: { greeting: { required: true, help: What it says. } }
            secrets:
              key: { generate: hex32, help: A file. }
              token: { generate: password, env: TOKEN, help: A variable. }
            env:
              GREETING: "${with.greeting} from ${vm.name}"
              WORD: the entry's
              SIGN_FILE: "${secret.key}"
            firstRun: Open it.
            """)
        // Where CPUs are emulated and busy it takes longer than a host needs.
        let common = """
                disk: 1GiB
                vcpu: 2
                boot: { deadline: 5m }
                health: { http: "http://:8080/", interval: 2s, timeout: 20s, retries: 60, startup: 8m }
                ssh: { authorizedKeys: ["KEY"] }
            """
        let folder = "/run/credentials/martlet-oci.service"
        try BootedGuest.write(
            """
            fleet: tests
            vms:
              guest:
                service: pages
                with: { greeting: 'say "$HOME" 100%' }
                ports: ["127.0.0.1:\(ports[0]):8080"]
            \(common)
              plain:
                image: { oci: "\(plain)" }
                memory: 256MiB
                ports: ["127.0.0.1:\(ports[1]):8080"]
                credentials:
                  key: { text: plain key }
                  env: { text: "GREETING=plain\\nSIGN_FILE=\(folder)/HOST-key\\n" }
            \(common)
            """, for: martlet)
    }

    /// Applies the fleet file and waits until the checks of these VMs are green.
    private func bring(_ names: String...) async throws {
        let up = try await martlet("up")
        try #require(up.exit == .code(0), "\(up.text)\(up.errorText)\(martlet.traces())")
        for name in names {
            let wait = try await martlet("wait", name, "--for", "healthy", "--timeout", "8m")
            if wait.exit != .code(0) {
                let log = try await inside(
                    name, "journalctl -u 'martlet-oci*' --no-pager | tail -n 40; systemctl --failed"
                )
                Issue.record("\(wait.errorText)\(log)")
            }
            try #require(wait.exit == .code(0))
            let state = try await inside(
                name, "systemctl is-system-running --wait; systemctl --failed --no-legend")
            #expect(state == "running")
        }
        #expect(try await martlet("plan", "--check").exit == .code(0))
    }

    private func inside(_ name: String, _ command: String) async throws -> String {
        let output = try await martlet("exec", name, "--", "sh", "-c", command)
        #expect(output.exit == .code(0), "\(command): \(output.errorText)")
        return output.text.trimmed
    }

    /// The page, by the port of the host.
    private func page(_ index: Int) async throws -> [String] {
        let script =
            "exec 3<>/dev/tcp/127.0.0.1/\(ports[index]); printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; "
            + "timeout 60 cat <&3"
        let text = try await Program("/bin/bash", ["-c", script]).capture().text
        return text.split(whereSeparator: \.isNewline).map(String.init)
    }

    private func secret(_ name: String) async throws -> String {
        try await martlet("secret", "show", name, "--reveal").text.trimmed
    }

    // MARK: What must hold

    /// An image by itself is told by credentials, and what it exposes is open.
    private func checkPlain() async throws {
        let page = try await page(1)
        #expect(page.contains("greeting plain"), "\(page)")
        #expect(page.contains("word the image's, other of the image, home /srv"))
        #expect(page.contains("key " + SHA256.hex("plain key".utf8)))
        #expect(page.contains("process 1"), "an init is the first process")
        #expect(
            try await inside(
                "plain", "ls /var/lib/martlet-oci/volumes; ls /var/lib/pages 2>&1 || :"
            )
            .hasPrefix("cache\ndata\n"))
    }

    private func checkService() async throws {
        let page = try await page(0)
        #expect(page.contains("version one"), "\(page)")
        #expect(page.contains("greeting say \"$HOME\" 100% from guest"))
        #expect(page.contains("word the entry's, other of the image, home /srv"))
        #expect(!page.contains("process 1"))
        #expect(page.contains("user 101:102 102 103") && page.contains("conf of the entry"))
        let (key, token) = (try await secret("guest-key"), try await secret("guest-token"))
        #expect(page.contains("key " + SHA256.hex(key.utf8)))
        #expect(page.contains("token " + SHA256.hex(token.utf8)))
        #expect(
            try await inside("guest", "systemctl show martlet-oci -P User -P KillSignal")
                == "101\n10")

        // Its folder is the account's, on the data volume, and there once; it began with the image's.
        let kept = try await inside(
            "guest",
            "stat -c '%u:%g %a' /var/lib/pages; cat /var/lib/pages/seed; echo; findmnt -no TARGET "
                + "-T /var/lib/pages; ls /var/lib/martlet-oci/volumes")
        #expect(kept == "101:102 700\none\n/var\ncache")

        // A secret is in the environment of the program that asked for it there, and of no other;
        // one that is a file is in none. No file that others read has either of them.
        for (value, holders) in [(key, ""), (token, "martlet-oci.service")] {
            let search = try await martlet(
                "exec", "guest", "--", "sh", "-c",
                """
                read -r value
                for p in /proc/[0-9]*; do
                    tr '\\0' '\\n' <$p/environ 2>/dev/null | grep -qF "$value" &&
                        sed 's/.*[/]//' $p/cgroup
                done | sort -u
                grep -rlF "$value" /etc /usr/lib/martlet /var/log /proc/[0-9]*/cmdline 2>/dev/null
                systemctl show martlet-oci | grep -F "$value"
                stat -c %a /run/martlet-oci/secrets
                """, input: Array((value + "\n").utf8))
            #expect(search.text.trimmed == (holders.isEmpty ? "" : holders + "\n") + "600")
        }
        // Nor does the program see more of the guest than its own root.
        let root = "nsenter -m -r -t $(systemctl show martlet-oci -P MainPID)"
        #expect(
            try await inside(
                "guest", "\(root) /bin/busybox ls /run/credentials/martlet-oci.service /run"
            )
            .split(separator: "\n").filter { $0.hasPrefix("HOST-") || $0.contains("martlet-oci") }
                == ["/run/credentials/martlet-oci.service:", "HOST-key", "HOST-token"])
    }

    /// It ends at the image's own signal, the check then says so, and its data is there afterwards.
    private func checkStop() async throws {
        _ = try await inside("guest", "rm /var/lib/pages/seed; systemctl stop martlet-oci")
        #expect(try await inside("guest", "cat /var/lib/pages/stops") == "stopped")
        var health: String?
        for _ in 0..<120 where health != "unhealthy" {
            try await Task.sleep(for: .seconds(1))
            health = try await martlet.listed()["health"]?.string
        }
        #expect(health == "unhealthy")
        let restart = try await martlet("restart", "guest")
        #expect(restart.exit == .code(0), "\(restart.errorText)")
        try await bring("guest")
        #expect(
            try await inside("guest", "cat /var/lib/pages/starts; ls /var/lib/pages")
                == "started\nstarted\nstarts\nstops")
    }

    private func checkUpgrade(to service: String, _ plain: String) async throws {
        try declare(service, plain)
        #expect(try await martlet("plan", "--check").exit == .code(2))
        try await bring("guest", "plain")
        let page = try await page(0)
        #expect(page.contains("version two") && page.contains("conf of the entry"), "\(page)")
        // What was removed from a folder stays away, though the new image has it.
        #expect(
            try await inside("guest", "cat /var/lib/pages/starts; ls /var/lib/pages")
                == "started\nstarted\nstarted\nstarts\nstops")
        #expect(
            try await inside(
                "plain", "cd /var/lib/martlet-oci/volumes; cat cache/starts data/seed")
                == "cached\ncached\none")
    }

    /// A clone is told its own name from its first generation on, and has its source's secrets.
    private func checkClone() async throws {
        let cloned = try await martlet("clone", "guest", "copy")
        try #require(cloned.exit == .code(0), "\(cloned.errorText)")
        let first = try Files.readText(martlet.root + "/vms/copy/generations/1.json")
        #expect(first.contains("100% from copy") && !first.contains("100% from guest"), "\(first)")
        #expect(!Files.exists(martlet.root + "/vms/copy/generations/2.json"))
        let start = try await martlet("start", "copy")
        try #require(start.exit == .code(0), "\(start.text)\(start.errorText)")
        let wait = try await martlet("wait", "copy", "--for", "healthy", "--timeout", "8m")
        #expect(wait.exit == .code(0), "\(wait.errorText)")
        let page = try await inside("copy", "cat /run/martlet-oci/root/srv/index.html")
        #expect(page.contains("greeting say \"$HOME\" 100% from copy\n"), "\(page)")
        #expect(page.contains("key " + SHA256.hex(try await secret("guest-key").utf8)))
        #expect(try await martlet("plan", "--check").exit == .code(0))
    }
}
