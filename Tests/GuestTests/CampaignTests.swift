// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// What takes long: `make test-full` alone runs it.
private let isFull = environment("MARTLET_TESTS") == "full" && getuid() == 0

@Suite(
    "RealCampaign", .enabled(if: isFull, "needs MARTLET_TESTS=full and root"),
    BootedGuest(), .serialized, .timeLimit(.minutes(60)))
struct CampaignTests {
    let martlet: Martlet

    init() throws { martlet = try #require(BootedGuest.martlet) }

    /// Kills `up` at its first step, its second, and so on until a run gets through; each time the
    /// next run has to make everything good, with the data in place.
    @Test func aKillAtAnyStepOfARestartIsMadeGood() async throws {
        _ = try await martlet.inGuest("echo kept >/var/mark && sync")
        for step in 1... {
            // Each round changes something that needs a restart.
            let cpus = step % 2 == 1 ? 1 : 2
            try BootedGuest.write(
                BootedGuest.fleet(port: BootedGuest.port).replacing(
                    "vcpu: 2", with: "vcpu: \(cpus)"), for: martlet)
            let exit = try await killed(at: step, "up")
            let listed = try await martlet.listed()
            #expect(try isTrue(listed), "after a kill at step \(step): \(listed)")
            let up = try await martlet("up")
            #expect(up.exit == .code(0), "step \(step): \(up.text)\(up.errorText)")
            #expect(try await martlet.inGuest("nproc; cat /var/mark") == "\(cpus)\nkept")
            #expect(try await martlet("plan", "--check").exit == .code(0))
            #expect(try leftovers() == [])
            if exit == .code(0) { return #expect(step > 5) }
        }
    }

    @Test func aKillAtAnyStepOfACreationIsMadeGood() async throws {
        for step in 1... {
            _ = try await martlet("kill", "guest")
            _ = try await martlet("purge", "guest", "--yes")
            let exit = try await killed(at: step, "up")
            let up = try await martlet("up")
            #expect(up.exit == .code(0), "step \(step): \(up.text)\(up.errorText)")
            #expect(try await martlet.inGuest("systemctl --failed --no-legend") == "")
            #expect(try leftovers() == [])
            if exit == .code(0) { return #expect(step > 5) }
        }
    }

    private func killed(at step: Int, _ verb: String) async throws -> Exit {
        var program = martlet.program([verb])
        program.environment = martlet.environment + ["MARTLET_KILL_AT=\(step)"]
        let exit = try await program.capture().exit
        #expect(exit == .code(0) || exit == .signal(SIGKILL), "step \(step)")
        return exit
    }

    /// Whether the listed state is that of the processes.
    private func isTrue(_ listed: JSONValue) throws -> Bool {
        let isHeld = try FileLock.isHeld(martlet.root + "/vms/guest/lock")
        let isLive = ["running", "starting", "stopping", "paused"]
            .contains(listed["state"]?.string ?? "")
        return isHeld == isLive
    }

    private func leftovers() throws -> [String] {
        try ["", "/disks", "/generations", "/identity", "/logs"].flatMap { folder in
            try Files.list(martlet.root + "/vms/guest" + folder).filter { $0.contains(".new") }
        }
    }
}

@Suite(
    "RealReproduction", .enabled(if: isFull, "needs MARTLET_TESTS=full and root"),
    .timeLimit(.minutes(30)))
struct ReproductionTests {
    @Test func theSamePackagesGiveTheSameBytes() async throws {
        var digests: [String] = []
        for _ in 1...2 {
            let martlet = try Martlet()
            // The downloaded packages are shared, and nothing else: not even the folder, in which
            // apt of another test's build holds a lock.
            try Files.makeFolder(imageCache + "/cache/debs")
            try Files.makeFolder(martlet.root + "/cache")
            let copy = ["-r", imageCache + "/cache/debs", martlet.root + "/cache/debs"]
            #expect(try await Program("/bin/cp", copy).capture().exit.isSuccess)
            let built = try await martlet("build", "core", "--json")
            #expect(built.exit == .code(0), "\(built.text)\(built.errorText)")
            let image = try JSONValue(parsing: built.text).elements.first
            digests.append(try #require(image?["digest"]?.string))
        }
        #expect(digests[0] == digests[1])
    }
}
