// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Supervisor
import Testing

/// Snapshots by their verbs, over a real block layer.
@Suite(.timeLimit(.minutes(20))) struct SnapshotTests {
    private func ready(_ behaviour: String = "qemu boot=0.05 agent freeze") async throws -> World {
        let world = try await World(behaviour)
        try world.declare("web: {memory: 256MiB}")
        try await world.must("up")
        try await world.awaitAgent()
        return world
    }

    @Test func ofARunningVMIsFrozenAndBringsBackWhatWasThen() async throws {
        let world = try await ready()
        let guest = world.guest("web")
        try await guest.write(1, at: 1 << 20)
        let made = try await world.must("snapshot", "create", "web", "one")
        #expect(made.text.contains("the guest's file systems were frozen"))
        try await guest.write(2, at: 1 << 20)
        #expect(try await guest.holds(2, at: 1 << 20))
        let row = try #require(try await world.snapshots("web").first)
        #expect(row["name"] == "one" && row["vm"] == "web" && row["consistency"] == "frozen")
        #expect(row["reason"] == "manual" && row["verifiedAt"] == .null && row["generation"] == 1)
        #expect((row["bytes"]?.integer ?? 0) > 0)

        let restored = try await world.must("snapshot", "restore", "web", "one")
        #expect(restored.text.contains("up after"))
        try await world.expectState("web", "running")
        #expect(try await guest.holds(1, at: 1 << 20))
        #expect(try world.current("web") == 1)

        // What was replaced is a snapshot itself, and nothing of the first is used up.
        let safety = try #require(
            try await world.snapshots("web").first { $0["reason"] == "restore" })
        #expect(safety["consistency"] == "stopped")
        try await world.must("snapshot", "restore", "web", safety["name"]?.string ?? "")
        #expect(try await guest.holds(2, at: 1 << 20))
        try await world.must("snapshot", "restore", "web", "one")
        #expect(try await guest.holds(1, at: 1 << 20))
        try await world.must("stop", "web")
        #expect(try await world.damage(of: world.layout.vm("web").dataVolume) == nil)
    }

    @Test func whatIsNotFrozenIsCalledCrash() async throws {
        // An agent that cannot freeze, and one that does not answer.
        for behaviour in ["qemu boot=0.05 agent", "qemu boot=0.05"] {
            let world = try await World(behaviour)
            try world.declare("web: {memory: 256MiB}")
            try await world.must("up")
            let made = try await world.must("snapshot", "create", "web")
            #expect(made.text.contains("as after a power cut"))
            let row = try #require(try await world.snapshots("web").first)
            #expect(row["consistency"] == "crash" && row["why"]?.string?.isEmpty == false)
        }
    }

    @Test func ofAStoppedVMSaysHowItWasStopped() async throws {
        let world = try await ready()
        try await world.must("stop", "web")
        // Listed by age also when they are of one second, and called otherwise.
        for name in ["z", "m", "a"] { try await world.must("snapshot", "create", "web", name) }
        #expect(try await world.snapshots("web").map { $0["name"]?.string } == ["z", "m", "a"])
        for name in ["z", "m", "a"] {
            try await world.must("snapshot", "remove", "web", name, "--yes")
        }
        try await world.must("snapshot", "create", "web", "clean")
        try await world.must("start", "web")
        try await world.must("kill", "web")
        try await world.must("snapshot", "create", "web", "killed")
        let rows = try await world.snapshots("web")
        #expect(rows.map { $0["consistency"]?.string } == ["stopped", "crash"])
    }

    @Test func goesBackToASmallerDiskAndGrowsItAgain() async throws {
        let world = try await ready("qemu boot=0.05 agent freeze")
        try await world.guest("web").write(1, at: 0, flush: true)
        try await world.must("snapshot", "create", "web", "small")
        try world.declare("web: {memory: 256MiB, disk: 9GiB}")
        // Nothing grows a file system in this guest while it runs.
        try await world.must("stop", "web")
        try await world.must("up")
        #expect(try await world.size("web") == 9 << 30)
        let restored = try await world.must("snapshot", "restore", "web", "small")
        #expect(restored.text.contains("not as declared"))
        // Disk and configuration are those of then; the fleet file says otherwise, and so does the plan.
        #expect(try await world.size("web") == 8 << 30)
        #expect(try await world.martlet("plan", "--check").exit == .code(2))
        try await world.must("stop", "web")
        try await world.must("up")
        #expect(try await world.size("web") == 9 << 30)
        #expect(try await world.guest("web").holds(1, at: 0))
    }

    @Test func dropsBitmapsOfBackupsBeforeItRestores() async throws {
        let world = try await ready()
        try await world.must("snapshot", "create", "web", "one")
        try await world.must("stop", "web")
        let disk = world.layout.vm("web").dataVolume
        let add = ["bitmap", "--add", disk, "martlet-backup"]
        #expect(try await Program("/usr/bin/qemu-img", add).capture().exit.isSuccess)
        try await world.must("snapshot", "restore", "web", "one")
        let info = try await Program("/usr/bin/qemu-img", ["info", disk]).capture()
        #expect(info.exit.isSuccess && !info.text.contains("martlet-backup"))
    }

    @Test func refusesBeforeItTouchesAnything() async throws {
        let world = try await ready()
        try await world.must("snapshot", "create", "web", "one")
        #expect(
            try await world.mustFail("snapshot", "create", "web", "one", code: 1)
                .contains("already"))
        for name in ["../x", "a.b", "a:b", "-a", "", "A", String(repeating: "a", count: 64)] {
            try await world.mustFail("snapshot", "create", "web", "--", name, code: 64)
        }
        let unknown = try await world.mustFail("snapshot", "restore", "web", "two", code: 66)
        #expect(unknown.contains("it has one"))
        try await world.mustFail("snapshot", "remove", "web", "two", "--yes", code: 66)
        try await world.mustFail("snapshot", "create", "nobody", code: 66)
        // Not without being told to.
        try await world.mustFail("snapshot", "remove", "web", "one", code: 64)
        #expect(try await world.snapshots("web").count == 1)

        // Its content is gone: it is said before the VM is stopped.
        let client = ControlClient(world.layout.vm("web").controlSocket)
        _ = try await client.hypervisor(
            "blockdev-snapshot-delete-internal-sync",
            ["device": "disk-data", "name": "martlet-one"])
        let lost = try await world.mustFail("snapshot", "restore", "web", "one", code: 1)
        #expect(lost.contains("its content is gone"))
        try await world.expectState("web", "running")
        #expect(try await world.snapshots("web").count == 1)
        // What is half gone can still be removed.
        try await world.must("snapshot", "remove", "web", "one", "--yes")
        #expect(try await world.snapshots("web").isEmpty)
    }

    @Test func removesWhileRunningAndStopped() async throws {
        let world = try await ready()
        for name in ["a", "b", "c"] { try await world.must("snapshot", "create", "web", name) }
        try await world.must("snapshot", "remove", "web", "b", "--yes")
        try await world.must("stop", "web")
        try await world.must("snapshot", "remove", "web", "a", "--yes")
        #expect(try await world.tags("web") == ["martlet-c"])
        #expect(try await world.snapshots("web").map { $0["name"]?.string } == ["c"])
    }

    @Test func anImageStaysWhileASnapshotNeedsIt() async throws {
        let world = try await ready()
        try await world.must("snapshot", "create", "web", "one")
        try await world.must("stop", "web")
        let digest = try #require(try await world.snapshots("web").first?["imageDigest"]?.string)
        // No generation names it any more: only the snapshot does.
        let generations = world.layout.vm("web").generations
        let text = try Files.readText(generations + "/1.json")
        try Files.write(generations + "/1.json", text.replacing(digest, with: "0123"))
        try await world.must("prune")
        #expect(Files.exists("\(world.layout.root)/images/\(digest)"))
        try await world.must("snapshot", "remove", "web", "one", "--yes")
    }

    @Test func goWithTheDisksAndAreNamedBefore() async throws {
        let world = try await ready()
        try await world.must("snapshot", "create", "web", "one")
        for verb in ["recreate", "destroy", "purge"] {
            let refused = try await world.mustFail(verb, "web", code: 64)
            #expect(refused.contains("the snapshot 'one' of web"), "\(verb)")
        }
        try await world.must("recreate", "web", "--yes")
        #expect(try await world.snapshots("web").isEmpty)
        #expect(try await world.tags("web").isEmpty)
    }

    @Test func aKilledHypervisorLeavesNothingOfASnapshot() async throws {
        let world = try await World("qemu boot=0.05 agent freeze")
        try world.declare("web: {memory: 256MiB, restart: no}")
        try await world.must("up")
        try await world.awaitAgent()
        // Written down, and cut off before anything was kept.
        let killed = try await world.martlet("snapshot", "create", "web", "one", killAt: 2)
        #expect(killed.exit == .signal(SIGKILL))
        let pid = try #require(try await world.list()["web"]?["pid"]?.integer)
        kill(Int32(pid), SIGKILL)
        try await world.until("it is gone") { world.processes.isEmpty }
        try await world.must("snapshot", "create", "web", "one")
        #expect(try await world.tags("web") == ["martlet-one"])
        #expect(try await world.snapshots("web").first?["consistency"] == "crash")
    }
}

extension World {
    func awaitAgent(_ name: String = "web") async throws {
        try await until("agent") {
            try await ControlClient(self.layout.vm(name).controlSocket).status().agent
        }
    }

    /// What `snapshot list --json` says.
    func snapshots(_ name: String) async throws -> [JSONValue] {
        let output = try await must("snapshot", "list", name, "--json")
        return try JSONValue(parsing: output.standardOutput).elements
    }

    private func info(_ name: String) async throws -> JSONValue {
        let disk = layout.vm(name).dataVolume
        let output = try await Program(
            "/usr/bin/qemu-img", ["info", "-U", "--output=json", disk]
        ).capture()
        return try JSONValue(parsing: output.standardOutput)
    }

    /// The snapshots inside the data volume.
    func tags(_ name: String) async throws -> [String] {
        try await info(name)["snapshots"]?.elements.compactMap { $0["name"]?.string } ?? []
    }

    /// Bytes that the guest sees of its data volume.
    func size(_ name: String) async throws -> Int64? {
        try await info(name)["virtual-size"]?.integer
    }
}
