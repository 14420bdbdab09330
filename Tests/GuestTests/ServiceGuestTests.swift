// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

private let isFull = environment("MARTLET_TESTS") == "full" && getuid() == 0

/// A service of the catalogue in a VM: its image, its unit in its sandbox, its secrets, its check.
@Suite(
    "RealService", .enabled(if: isFull, "needs MARTLET_TESTS=full and root"),
    .serialized, .timeLimit(.minutes(40)))
struct ServiceGuestTests {
    @Test func qbittorrent() async throws {
        let page = "http: \"http://:8080/\""
        try await withService("qbittorrent", forward: 8080, health: page) { martlet, port in
            try await checkTorrents(martlet, port)
        }
    }

    @Test func sabnzbd() async throws {
        let version = "http: \"http://:8080/api?mode=version&output=json\""
        try await withService("sabnzbd", forward: 8080, health: version) { martlet, port in
            #expect(try await martlet.inGuest("systemctl show sabnzbd -P User") == "sabnzbd")
            // The right key opens its queue, and no other; the page asks for the password.
            let secret = try await martlet("secret", "show", "guest-api-key", "--reveal")
            let request = "GET /api?mode=queue&output=json&apikey=KEY HTTP/1.0\\r\\n\\r\\n"
            let key = secret.text.trimmed
            #expect(key.utf8.count == 32)
            let queue = try await ask(port, request.replacing("KEY", with: key))
            #expect(queue.contains("\"queue\""), "\(queue)")
            let refused = try await ask(port, request.replacing("KEY", with: "x" + key))
            #expect(!refused.contains("\"queue\""), "\(refused)")
            // Debian's own list of what it installs from is as it was.
            let lists = try await martlet.inGuest(
                "grep -rl non-free /etc/apt/sources.list* | head; echo end")
            #expect(lists == "end")
        }
    }

    @Test func wireguard() async throws {
        let peer = "bm90LWEta2V5LW5vdC1hLWtleS1ub3QtYS1rZXktISE="
        let keys = """
            with: { address: 10.98.0.1/24 }
                credentials:
                  peers: { text: "[Peer]\\nPublicKey = \(peer)\\nAllowedIPs = 10.98.0.2/32\\n" }
            """
        try await withService("wireguard", forward: 22, health: "exec: \"wg show wg0\"", keys) {
            martlet, _ in
            let shown = try await martlet.inGuest("wg show wg0")
            #expect(shown.contains("listening port: 51820"), "\(shown)")
            #expect(shown.contains("peer: \(peer)"), "\(shown)")
            #expect(try await martlet.inGuest("ip -br address show wg0").contains("10.98.0.1/24"))
            let state = try await martlet.inGuest(
                "sysctl -n net.ipv4.ip_forward; nft list table inet wireguard | grep -c masquerade; "
                    + "ls /run/wireguard.conf 2>&1 | grep -c 'No such'")
            #expect(state == "1\n1\n1")
        }
    }

    /// Brings one service up, waits until its check is green, and takes it away again.
    private func withService(
        _ id: String, forward: Int, health: String, _ keys: String = "",
        _ body: (Martlet, UInt16) async throws -> Void
    ) async throws {
        let port = try freePort()
        let martlet = try await BootedGuest.make(port)
        let result: Result<Void, any Error>
        do {
            try await start(id, forward: forward, health: health, keys, martlet, port)
            try await body(martlet, port)
            result = .success(())
        } catch { result = .failure(error) }
        _ = try await martlet("kill", "guest")
        _ = try await martlet("purge", "guest", "--yes")
        try result.get()
    }

    private func start(
        _ id: String, forward: Int, health: String, _ keys: String, _ martlet: Martlet,
        _ port: UInt16
    ) async throws {
        // Where CPUs are emulated and busy the service takes longer than a host needs.
        try BootedGuest.write(
            """
            fleet: tests
            vms:
              guest:
                service: \(id)
                vcpu: 2
                disk: 2GiB
                ports: ["127.0.0.1:\(port):\(forward)"]
                boot: { deadline: 5m }
                health: { \(health), interval: 5s, timeout: 20s, startup: 8m }
                ssh: { authorizedKeys: ["KEY"] }
                \(keys)
            """, for: martlet)
        let up = try await martlet("up")
        try #require(up.exit == .code(0), "\(up.text)\(up.errorText)\(martlet.traces())")
        let wait = try await martlet("wait", "guest", "--for", "healthy", "--timeout", "8m")
        if wait.exit != .code(0) {
            let log = try await martlet.inGuest(
                "journalctl -u \(id) --no-pager | tail -n 40; systemctl --failed --no-legend")
            Issue.record("\(wait.errorText)\(log)")
        }
        try #require(wait.exit == .code(0))
        let state = try await martlet.inGuest(
            "systemctl is-system-running --wait; systemctl --failed --no-legend")
        #expect(state == "running")
    }

    private func checkTorrents(_ martlet: Martlet, _ port: UInt16) async throws {
        let settings = try await martlet.inGuest(
            "systemctl show qbittorrent -P User -P ProtectSystem -P MemoryDenyWriteExecute")
        #expect(settings == "qbittorrent\nstrict\nyes")

        // The page answers through the forward, and to the password that was made for this VM.
        #expect(try await ask(port, "GET / HTTP/1.0\\r\\n\\r\\n").contains(" 200 "))
        let secret = try await martlet("secret", "show", "guest-web-password", "--reveal")
        let password = secret.text.trimmed
        #expect(password.utf8.count == 24)
        #expect(try await logIn(port, password).contains("\r\n\r\nOk."))
        #expect(!(try await logIn(port, "x" + password).contains("\r\n\r\nOk.")))

        // What it keeps is on the data volume, and it has no more than it needs.
        let file = "/var/lib/qbittorrent/qBittorrent/config/qBittorrent.conf"
        #expect(try await martlet.inGuest("stat -c '%U' \(file)") == "qbittorrent")
        #expect(try await martlet.inGuest("grep -c PBKDF2 \(file)") == "1")
        let places = "/etc /usr/lib/martlet /var/log /proc/[0-9]*/cmdline /proc/[0-9]*/environ"
        let leaks = try await martlet(
            "exec", "guest", "--", "sh", "-c", "grep -rlf - \(places) 2>/dev/null; echo end",
            input: Array(password.utf8))
        #expect(leaks.text == "end\n")

        // Started anew it takes the same password, and the plan has nothing to do.
        _ = try await martlet.inGuest("systemctl restart qbittorrent")
        var answer = ""
        for _ in 0..<60 where !answer.contains("\r\n\r\nOk.") {
            answer = (try? await logIn(port, password)) ?? ""
            try await Task.sleep(for: .seconds(2))
        }
        #expect(answer.contains("\r\n\r\nOk."), "\(answer)")
        #expect(try await martlet("plan", "--check").exit == .code(0))
    }

    private func logIn(_ port: UInt16, _ password: String) async throws -> String {
        let body = "username=admin&password=\(password)"
        return try await ask(
            port,
            "POST /api/v2/auth/login HTTP/1.0\\r\\nHost: localhost:8080\\r\\n"
                + "Content-Type: application/x-www-form-urlencoded\\r\\n"
                + "Content-Length: \(body.utf8.count)\\r\\n\\r\\n\(body)")
    }

    private func ask(_ port: UInt16, _ request: String) async throws -> String {
        let script =
            "exec 3<>/dev/tcp/127.0.0.1/\(port); printf '\(request)' >&3; timeout 60 cat <&3"
        return try await Program("/bin/bash", ["-c", script]).capture().text
    }
}
