// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// What takes long: `make test-full` alone runs it.
private let isFull = environment("MARTLET_TESTS") == "full" && getuid() == 0

@Suite(
    "RealUpgrade", .enabled(if: isFull, "needs MARTLET_TESTS=full and root"),
    BootedGuest(), .serialized, .timeLimit(.minutes(60)))
struct UpgradeCampaignTests {
    let martlet: Martlet

    init() throws { martlet = try #require(BootedGuest.martlet) }

    /// Declares an image whose service runs this, and a check that asks for it.
    private func declare(_ command: String) throws {
        let keys = """
            disk: 1GiB
                image: site
            images:
              site:
                from: core
                files:
                  /etc/systemd/system/site.service: |
                    [Service]
                    ExecStart=\(command)
                    [Install]
                    WantedBy=multi-user.target
                run: ["systemctl enable site"]
            """
        let fleet = BootedGuest.fleet(port: BootedGuest.port, keys)
            .replacing("exec: \"true\"", with: "exec: systemctl is-active site")
            .replacing("startup: 3m", with: "startup: 20s, retries: 3")
        try BootedGuest.write(fleet, for: martlet)
    }

    @Test func aServiceThatDoesNotComeUpIsRolledBackWithTheDataOfBefore() async throws {
        try declare("/bin/sleep infinity")
        let first = try await martlet("up")
        try #require(
            first.exit == .code(0), "\(first.text)\(first.errorText)\(martlet.traces())")
        #expect(first.text.contains("upgraded from"), "\(first.text)")
        let machine = try await martlet.inGuest("cat /etc/machine-id")
        _ = try await martlet.inGuest("echo before >/var/mark && sync && echo later >>/var/mark")
        let digest = try await martlet.listed()["imageDigest"]

        try declare("/bin/sh -c 'echo broken >/var/mark; sync; exit 1'")
        let failed = try await martlet("up")
        let text = failed.text + failed.errorText
        #expect(failed.exit == .code(1), "\(text)")
        #expect(text.contains("it is unhealthy: exec 'systemctl is-active site'"), "\(text)")
        #expect(text.contains("it is back on generation 2 with the data of 20"), "\(text)")

        let vm = try await martlet.listed()
        #expect(vm["state"] == "running" && vm["health"] == "healthy")
        #expect(vm["imageDigest"] == digest && vm["imageState"] == "outdated")
        // What was written last before the upgrade is there, for it was stopped first.
        #expect(try await martlet.inGuest("cat /var/mark") == "before\nlater")
        #expect(try await martlet.inGuest("cat /etc/machine-id") == machine)
        let snapshots = try JSONValue(
            parsing: try await martlet("snapshot", "list", "guest", "--json").text)
        #expect(snapshots.elements.count == 3)
        #expect(try await martlet("plan", "--check").exit == .code(0))

        // Another digest is tried by itself.
        try declare("/bin/sleep 1000000")
        let mended = try await martlet("up")
        #expect(mended.exit == .code(0), "\(mended.text)\(mended.errorText)")
        #expect(try await martlet.inGuest("cat /var/mark") == "before\nlater")
        let back = try await martlet("rollback", "guest")
        #expect(back.exit == .code(0), "\(back.text)\(back.errorText)")
        #expect(try await martlet.listed()["imageDigest"] == digest)
    }
}
