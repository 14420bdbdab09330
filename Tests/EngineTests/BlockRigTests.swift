// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Supervisor
import Testing

/// The rig itself: tests of disks are worth what it is worth.
@Suite(.timeLimit(.minutes(20))) struct BlockRigTests {
    private func ready(_ vms: String = "web: {memory: 256MiB}") async throws -> World {
        let world = try await World("qemu boot=0.05 agent freeze")
        try world.declare(vms)
        try await world.must("up")
        try await world.until("agent") {
            try await ControlClient(world.layout.vm("web").controlSocket).status().agent
        }
        return world
    }

    @Test func whatTheGuestWritesIsOnTheDisk() async throws {
        let world = try await ready()
        let guest = world.guest("web")
        try await guest.write(0x41, at: 0)
        try await guest.write(0x42, at: 65536, flush: true)
        #expect(try await guest.holds(0x41, at: 0))
        #expect(try await !guest.holds(0x41, at: 65536))
        try await guest.discard(at: 0)
        await #expect(throws: BlockGuest.Failed.self) { try await guest.write(1, at: 1 << 50) }
        #expect(world.processes.count == 2)
        try await world.expectTruth()
        try await world.must("stop", "web")
        let disk = world.layout.vm("web").dataVolume
        #expect(try await world.slots(2, of: disk) == [0, 0x42])
        #expect(world.processes.isEmpty)
        try world.expectNothingLeftOver()
    }

    @Test func aSnapshotInTheMiddleHoldsWhatWasThere() async throws {
        let world = try await ready()
        let guest = world.guest("web")
        try await guest.write(1, at: 0)
        let (late, stillness) = try await guest.control.holding(pause: true) {
            // It waits until the guest is let go: so its answer may not be waited for in here.
            let late = Task { try await guest.write(2, at: 0) }
            try await Task.sleep(for: .milliseconds(100))
            _ = try await guest.control.hypervisor(
                "transaction",
                [
                    "actions": [
                        [
                            "type": "blockdev-snapshot-internal-sync",
                            "data": ["device": "disk-data", "name": "one"],
                        ]
                    ]
                ])
            return late
        }
        #expect(stillness.isFrozen)
        try await late.value
        #expect(try await guest.holds(2, at: 0))
        try await world.must("stop", "web")
        let disk = world.layout.vm("web").dataVolume
        #expect(try await world.slots(1, of: disk) == [2])
        let apply = ["snapshot", "-a", "one", disk]
        #expect(try await Program("/usr/bin/qemu-img", apply).capture().exit.isSuccess)
        #expect(try await world.slots(1, of: disk) == [1])
    }

    @Test func killedItLeavesADiskThatHoldsWhatWasFlushed() async throws {
        let world = try await ready("web: {memory: 256MiB, restart: no}")
        let guest = world.guest("web")
        try await guest.write(3, at: 0, flush: true)
        try await guest.write(4, at: 0)
        let pid = try #require(try await world.list()["web"]?["pid"]?.integer)
        kill(Int32(pid), SIGKILL)
        try await world.until("it is gone") { world.processes.isEmpty }
        let disk = world.layout.vm("web").dataVolume
        #expect(try await world.damage(of: disk) == nil)
        #expect([3, 4].contains(try await world.slots(1, of: disk)[0]))
    }

    @Test func itsGuestObeysAgentAndButton() async throws {
        let world = try await ready()
        let control = ControlClient(world.layout.vm("web").controlSocket)
        try await control.pause()
        try await world.expectState("web", "paused")
        try await control.unpause()
        #expect(try await control.stop().method == .agent)
        try await world.must("stop", "web")
        try world.behave("qemu boot=0.05")
        try await world.must("up")
        #expect(try await control.stop().method == .acpi)
    }
}
