// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Supervisor
import Testing

/// New VMs from others, and from snapshots, over a real block layer.
@Suite(.timeLimit(.minutes(20))) struct CloneTests {
    private func ready(_ keys: String = "memory: 256MiB") async throws -> World {
        let world = try await World("qemu boot=0.05 agent freeze")
        try world.declare("web: {\(keys)}")
        try await world.must("up")
        try await world.awaitAgent()
        return world
    }

    private func identity(_ world: World, _ name: String) throws -> [String] {
        let folder = world.layout.vm(name).identity
        return try ["machine-id", "uuid", "ssh_host_ed25519_key"].map {
            try Files.readText("\(folder)/\($0)")
        }
    }

    private func mac(_ world: World, _ name: String) async throws -> String? {
        let shown = try await world.must("show", name, "--json")
        let keys = try JSONValue(parsing: shown.standardOutput)["keys"]?.elements
        return keys?.first { $0["path"] == "interfaces" }?["value"]?.string
    }

    @Test func ofARunningVMHoldsOneMomentAndHasItsOwnIdentity() async throws {
        let port = 20000 + Int(getpid() % 10000)
        let world = try await ready("memory: 256MiB, ports: [\"127.0.0.1:\(port):22\"]")
        let guest = world.guest("web")
        try await guest.write(1, at: 1 << 20)
        try await world.must("snapshot", "create", "web", "one")
        try await guest.write(2, at: 1 << 20)
        let cloned = try await world.must("clone", "web", "copy")
        #expect(cloned.text.contains("\(port)") && cloned.text.contains("martlet start copy"))
        #expect(!cloned.text.contains("power cut"))
        try await guest.write(3, at: 1 << 20)
        try await world.expectState("web", "running")
        try await world.expectState("copy", "stopped")
        // The jobs and their nodes are gone from the hypervisor.
        let nodes = try await guest.control.hypervisor("query-named-block-nodes")
        #expect(!nodes.elements.contains { $0["node-name"]?.string?.hasPrefix("copy-") == true })
        #expect(try await world.martlet("plan", "--check").exit == .code(2))

        try await world.must("start", "copy")
        #expect(try await world.guest("copy").holds(2, at: 1 << 20))
        #expect(try await world.tags("copy").isEmpty)
        for (one, other) in zip(try identity(world, "web"), try identity(world, "copy")) {
            #expect(one != other)
        }
        #expect(try await mac(world, "web") != mac(world, "copy"))
        let file = Files.parent(world.layout.override("copy"))
        #expect(try await world.must("show", "copy").text.contains("\(file)/copy.yaml"))
        // Each goes its own way, and `up` finds nothing to do.
        try await world.guest("copy").write(9, at: 1 << 20)
        #expect(try await guest.holds(3, at: 1 << 20))
        #expect(try await world.martlet("plan", "--check").exit == .code(0))
        try await world.must("purge", "copy", "--yes")
        #expect(try await world.martlet("plan", "--check").exit == .code(0))
        try world.expectNothingLeftOver()
    }

    @Test func ofAStoppedVMAndOfASnapshotOfARunningOne() async throws {
        let world = try await ready()
        try await world.guest("web").write(1, at: 1 << 20)
        try await world.must("snapshot", "create", "web", "one")
        try await world.guest("web").write(2, at: 1 << 20)
        let made = try await world.must("snapshot", "restore", "web", "one", "--as", "then")
        #expect(made.text.contains("made from the snapshot 'one' of web"))
        try await world.must("stop", "web")
        try await world.must("clone", "web", "now")
        #expect(try await world.slots(17, of: world.layout.vm("then").dataVolume)[16] == 1)
        #expect(try await world.slots(17, of: world.layout.vm("now").dataVolume)[16] == 2)
        #expect(try await world.snapshots("web").count == 1)
        try await world.must("up")
        for name in ["web", "then", "now"] { try await world.expectState(name, "running") }
        // A clone of a clone is a VM as well.
        try await world.must("clone", "then", "again")
        #expect(try await world.slots(17, of: world.layout.vm("again").dataVolume)[16] == 1)
    }

    @Test func refusesWhatCannotBe() async throws {
        let world = try await ready()
        try world.declare("web: {memory: 256MiB}, declared: {}")
        try await world.mustFail("clone", "web", "declared", code: 1)
        try await world.mustFail("clone", "web", "No", code: 64)
        try await world.mustFail("clone", "web", String(repeating: "a", count: 33), code: 64)
        try await world.mustFail("clone", "nobody", "copy", code: 66)
        try await world.mustFail(
            "snapshot", "restore", "web", "none", "--as", "copy", code: 66)
        try world.declare("web: {memory: 256MiB}")
        try await world.must("clone", "web", "copy")
        try await world.mustFail("clone", "web", "copy", code: 1)
        // Its identity is kept, and a clone would have it.
        try await world.must("destroy", "copy", "--yes")
        try Files.remove(world.layout.override("copy"))
        let taken = try await world.mustFail("clone", "web", "copy", code: 1)
        #expect(taken.contains("its identity is kept"))
        #expect(try world.unfinished() == [])
    }

    @Test func aHypervisorThatEndsInTheMiddleLeavesNoClone() async throws {
        let world = try await ready("memory: 256MiB, restart: no")
        let killed = try await world.martlet("clone", "web", "copy", killAt: 2)
        #expect(killed.exit == .signal(SIGKILL))
        let pid = try #require(try await world.list()["web"]?["pid"]?.integer)
        kill(Int32(pid), SIGKILL)
        try await world.until("it is gone") { world.processes.isEmpty }
        let cloned = try await world.must("clone", "web", "copy")
        #expect(cloned.text.contains("as after a power cut"))
        #expect(try world.unfinished() == [])
    }
}
