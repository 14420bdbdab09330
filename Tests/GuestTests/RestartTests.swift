// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// What a guest keeps when it, or what runs it, ends in every way there is.
@Suite(
    "RealRestart", .enabled(if: getuid() == 0, "building images needs root"),
    BootedGuest(),
    .serialized, .timeLimit(.minutes(20)))
struct RestartTests {
    let martlet: Martlet

    /// Each boot takes half a minute of one CPU: those that a stand-in shows as well are left for then.
    private let isFull = environment("MARTLET_TESTS") == "full"

    init() throws { martlet = try #require(BootedGuest.martlet) }

    /// One test, for each step stands on the one before.
    @Test func dataSurvivesEveryEnd() async throws {
        _ = try await martlet.inGuest("echo kept >/var/mark && sync")
        let shares = try GuestShares(martlet)

        // A change that restarts: the data stays, the disk and its file system have grown.
        try BootedGuest.write(
            BootedGuest.fleet(
                port: BootedGuest.port, "disk: 2GiB\n    shares: [\(shares.declaration)]"
            ).replacing(
                "vcpu: 2", with: "vcpu: 1"), for: martlet)
        #expect(try await martlet("plan", "--check").exit == .code(2))
        let up = try await martlet("up")
        #expect(up.exit == .code(0), "\(up.text)\(up.errorText)")
        #expect(try await martlet.inGuest("nproc; cat /var/mark") == "1\nkept")
        let size = try #require(
            Int(try await martlet.inGuest("stat -f -c '%b * %S' /var | xargs expr")))
        #expect(size > 1_900_000_000)

        try await shares.check()
        if isFull { try await shares.killDaemon { why, isSo in try await until(why, isSo) } }

        // The hypervisor is killed: its supervisor starts it again.
        let pid = Int32(try #require(try await martlet.listed()["pid"]?.integer))
        kill(pid, SIGKILL)
        try await until("it is back") {
            let listed = try await martlet.listed()
            return listed["restarts"] == (isFull ? 2 : 1) && listed["state"] == "running"
        }
        // It lets one in before it has mounted its shares.
        _ = try await martlet.inGuest("systemctl start local-fs.target")
        #expect(try await martlet.inGuest("cat /srv/rw/from-host") == "host")
        #expect(try await martlet.inGuest("cat /var/mark") == "kept")

        if isFull { try await killSupervisor() }

        // Stopped on request it is stopped, and nothing is left.
        let stop = try await martlet("stop", "guest", "--json")
        let result = try JSONValue(parsing: stop.text)["results"]?.elements.first
        let ways = ["shut down by its agent", "shut down by the power button"]
        #expect(ways.contains(result?["detail"]?.string ?? ""), "\(stop.text)")
        #expect(try await martlet.listed()["state"] == "stopped")
        #expect(!Files.exists(martlet.run + "/guest"))
        try shares.expectNothing()
    }

    /// The supervisor is killed: its hypervisor dies with it, and the list says so at once.
    private func killSupervisor() async throws {
        let pid = Int32(try #require(try await martlet.listed()["pid"]?.integer))
        let record = try JSONValue(
            parsing: try Files.readText(martlet.root + "/vms/guest/logs/run.json"))
        kill(Int32(try #require(record["supervisorPid"]?.integer)), SIGKILL)
        try await until("its hypervisor is gone") { kill(pid, 0) != 0 }
        let dead = try await martlet.listed()
        #expect(dead["state"] == "failed")
        #expect(dead["reason"] == "the supervisor was killed")
        #expect(try await martlet("up").exit == .code(0))
        _ = try await martlet.inGuest("systemctl start local-fs.target")
        #expect(try await martlet.inGuest("cat /var/mark /srv/rw/from-host") == "kept\nhost")
    }

    /// Looks again and again until it is so, for as long as two slow boots take.
    private func until(_ what: String, _ isSo: () async throws -> Bool) async throws {
        for _ in 0..<600 {
            if try await isSo() { return }
            try await Task.sleep(for: .milliseconds(200))
        }
        Issue.record("in vain: \(what)")
    }
}
