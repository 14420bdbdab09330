// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Support
import Testing

/// VMs whose disks lie where files can share blocks.
///
/// The file system is on a loop device in a mount namespace that the world's runs share, and that
/// ends with the process that holds it.
@Suite(.timeLimit(.minutes(20)), .enabled(if: geteuid() == 0, "mounting needs root"))
struct SharedBlockTests {
    /// A world whose VMs lie on such a file system; kill the process to give the device back.
    private func world(_ kind: String) async throws -> (World, Child) {
        let world = try await World("qemu boot=0.05 agent freeze")
        let image = "\(world.folder)/\(kind).img"
        try Files.makeSparse(image, bytes: 512 << 20)
        let make = try await Program("/usr/sbin/mkfs.\(kind)", ["-q", image]).capture()
        try #require(make.exit.isSuccess, "\(make.errorText)")
        try Files.makeFolder(world.layout.vms)
        let ready = "\(world.folder)/ready"
        let script =
            "mount -o loop \(image) \(world.layout.vms) && chmod 755 \(world.layout.vms) "
            + "&& touch \(ready) && exec sleep 1200"
        var holder = Program(
            "/usr/bin/unshare", ["-m", "--propagation", "private", "sh", "-c", script])
        holder.dieWithParent = SIGKILL
        holder.environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        let child = try holder.spawn()
        try await world.until("it is mounted") { Files.exists(ready) }
        world.wrapper = ["/usr/bin/nsenter", "--mount=/proc/\(child.pid)/ns/mnt"]
        // Entering a namespace leaves the working folder behind.
        world.variables = ["MARTLET_FLEET=\(world.folder)/fleet.yaml"]
        return (world, child)
    }

    @Test(arguments: ["btrfs", "xfs"]) func snapshotsAndClonesShareBlocks(
        kind: String
    ) async throws {
        let (world, holder) = try await world(kind)
        defer {
            for process in world.processes { kill(process, SIGKILL) }
            holder.signal(SIGKILL)
            _ = try? holder.waitBlocking()
        }
        try world.declare("web: {memory: 256MiB}")
        try await world.must("up")
        try await world.awaitAgent()
        let guest = world.guest("web")
        // Neither write is flushed: the pause brings what QEMU has in memory into the file.
        try await guest.write(1, at: 1 << 20)
        try await world.must("snapshot", "create", "web", "one")
        try await guest.write(2, at: 1 << 20)
        let row = try #require(try await world.snapshots("web").first)
        #expect(row["disks"]?.elements.first?["mechanism"] == "reflink")
        #expect(row["consistency"] == "frozen")
        try await world.must("clone", "web", "copy")
        try await guest.write(3, at: 1 << 20)
        try await world.must("snapshot", "restore", "web", "one")
        #expect(try await guest.holds(1, at: 1 << 20))
        let safety = try #require(try await world.snapshots("web").last?["name"]?.string)
        try await world.must("snapshot", "restore", "web", "one", "--as", "then")
        try await world.must("start", "copy")
        #expect(try await world.guest("copy").holds(2, at: 1 << 20))
        try await world.must("start", "then")
        #expect(try await world.guest("then").holds(1, at: 1 << 20))
        try await world.must("snapshot", "remove", "web", "one", "--yes")
        try await world.must("snapshot", "restore", "web", safety)
        #expect(try await guest.holds(3, at: 1 << 20))

        // Killed at each step, and made good by the next.
        var step = 0
        var wasKilled = true
        while wasKilled {
            step += 1
            try await guest.write(UInt8(step), at: 0)
            let output = try await world.martlet(
                "snapshot", "create", "web", "k\(step)", killAt: step)
            wasKilled = output.exit == .signal(SIGKILL)
            try await world.awaitAgent()
            let listed = try await world.snapshots("web").contains {
                $0["name"]?.string == "k\(step)"
            }
            if !listed { try await world.must("snapshot", "create", "web", "k\(step)") }
            try await guest.write(99, at: 0)
            try await world.must("snapshot", "restore", "web", "k\(step)")
            #expect(try await guest.holds(UInt8(step), at: 0), "\(step)")
            try await world.awaitAgent()
        }
        #expect(step > 4)
        try await world.must("down")
        try await world.must("purge", "web", "copy", "then", "--yes")
    }
}
