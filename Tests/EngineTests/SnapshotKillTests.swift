// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Supervisor
import Testing

/// Snapshots, restores and clones that are killed at each of their steps.
///
/// The disks are those of a stopped or of a running VM, with a real block layer; what they hold
/// afterwards is what they held before or what was asked for, and never a mixture.
@Suite(.timeLimit(.minutes(20))) struct SnapshotKillTests {
    private func ready(running: Bool) async throws -> World {
        let world = try await World("qemu boot=0.05 agent freeze")
        // Inside qcow2 twice, and a raw file that is copied as a whole.
        try world.declare(
            "web: {memory: 256MiB, volumes: [{name: b, size: 64MiB, mount: /srv/b}, "
                + "{name: r, size: 64MiB, format: raw, mount: /srv/r}]}")
        try await world.must("up")
        try await world.awaitAgent()
        try await write(1, world)
        if !running { try await world.must("stop", "web") }
        return world
    }

    private static let disks = ["data", "b", "r"]

    private func write(_ byte: UInt8, _ world: World) async throws {
        for disk in Self.disks {
            try await world.guest("web").write(byte, at: 0, to: disk, flush: true)
        }
    }

    /// What the disks of a VM that does not run begin with.
    private func contents(_ world: World, _ name: String = "web") async throws -> [UInt8?] {
        let disks = world.layout.vm(name).disks
        return [
            try await world.slots(1, of: disks + "/data.qcow2")[0],
            try await world.slots(1, of: disks + "/volume-b.qcow2")[0],
            try await world.slots(1, of: disks + "/volume-r.raw", format: "raw")[0],
        ]
    }

    @Test func severalDisksAreOfOneMomentAndGoBackTogether() async throws {
        let world = try await ready(running: true)
        let made = try await world.must("snapshot", "create", "web", "one")
        #expect(!made.text.contains("not part of it"))
        let disks = try #require(try await world.snapshots("web").first?["disks"]?.elements)
        #expect(disks.map { $0["mechanism"]?.string } == ["internal", "internal", "copy"])
        try await write(2, world)
        try await world.must("snapshot", "restore", "web", "one")
        for disk in Self.disks { #expect(try await world.guest("web").holds(1, at: 0, on: disk)) }
        let safety = try #require(try await world.snapshots("web").last?["name"]?.string)
        try await world.must("stop", "web")
        try await world.must("snapshot", "restore", "web", safety)
        #expect(try await contents(world) == [2, 2, 2])
        try await world.must("snapshot", "restore", "web", "one", "--as", "then")
        #expect(try await contents(world, "then") == [1, 1, 1])
        try await world.must("start", "then")
        try await world.must("snapshot", "remove", "web", "one", "--yes")
        #expect(!Files.exists(world.layout.vm("web").path + "/snapshots/one"))
    }

    /// Runs a command that is killed at its first step, its second, and so on until it gets through.
    private func killAtEveryStep(
        _ world: World, _ words: (Int) -> [String], before: (Int) async throws -> Void = { _ in },
        after: (_ step: Int, _ wasKilled: Bool) async throws -> Void
    ) async throws -> Int {
        var step = 0
        var wasKilled = true
        while wasKilled {
            step += 1
            try await before(step)
            let output = try await world.program(words(step), killAt: step).capture()
            wasKilled = output.exit == .signal(SIGKILL)
            #expect(wasKilled || output.exit == .code(0), "\(step): \(output.errorText)")
            try await after(step, wasKilled)
            try #require(step < 60)
        }
        return step
    }

    @Test(arguments: [true, false]) func taking(running: Bool) async throws {
        let world = try await ready(running: running)
        var expected: [String] = []
        let steps = try await killAtEveryStep(
            world, { ["snapshot", "create", "web", "s\($0)"] },
            after: { step, _ in
                // What is listed is there, and nothing else is, once another change has begun.
                let listed = try await world.snapshots("web").compactMap { $0["name"]?.string }
                try await world.must("snapshot", "create", "web", "after\(step)")
                expected = listed + ["after\(step)"]
                #expect(try await Set(world.tags("web")) == Set(expected.map { "martlet-\($0)" }))
                #expect(
                    try Files.list(world.layout.vm("web").snapshots)
                        .allSatisfy { $0.hasSuffix(".json") || !$0.contains(".") })
            })
        #expect(steps > 4)
        try await world.must("stop", "web")
        #expect(try await world.damage(of: world.layout.vm("web").dataVolume) == nil)
    }

    @Test(arguments: [true, false]) func removing(running: Bool) async throws {
        let world = try await ready(running: running)
        let steps = try await killAtEveryStep(
            world, { ["snapshot", "remove", "web", "s\($0)", "--yes"] },
            before: { try await world.must("snapshot", "create", "web", "s\($0)") },
            after: { step, _ in
                let listed = try await world.snapshots("web").compactMap { $0["name"]?.string }
                #expect(!listed.contains("s\(step)"))
                try await world.must("snapshot", "create", "web", "after\(step)")
                let all = Set((listed + ["after\(step)"]).map { "martlet-\($0)" })
                #expect(try await Set(world.tags("web")) == all)
            })
        #expect(steps > 2)
    }

    @Test func restoring() async throws {
        let world = try await ready(running: false)
        let disk = world.layout.vm("web").dataVolume
        try await world.must("snapshot", "create", "web", "one")
        let steps = try await killAtEveryStep(
            world, { _ in ["snapshot", "restore", "web", "one"] },
            before: { step in
                try await world.must("start", "web")
                try await write(UInt8(step + 1), world)
                try await world.must("stop", "web")
            },
            after: { step, wasKilled in
                let content = try await world.slots(1, of: disk)[0]
                let journal = world.layout.vm("web").path + "/snapshots/restore.journal"
                let isPromised = Files.exists(journal)
                // Any later change, here the first thing a start does, ends what was begun.
                try await world.must("start", "web")
                let byte: UInt8 = try await world.guest("web").holds(1, at: 0) ? 1 : UInt8(step + 1)
                for disk in Self.disks {
                    #expect(try await world.guest("web").holds(byte, at: 0, on: disk), "\(step)")
                }
                let isThen = byte == 1
                #expect(isThen == (!wasKilled || isPromised || content == 1), "step \(step)")
                #expect(!Files.exists(journal))
                try await world.must("stop", "web")
                #expect(try await world.damage(of: disk) == nil)
            })
        #expect(steps > 8)
    }

    @Test(arguments: [true, false]) func cloning(running: Bool) async throws {
        let world = try await ready(running: running)
        let steps = try await killAtEveryStep(
            world, { ["clone", "web", "copy\($0)"] },
            after: { step, wasKilled in
                let name = "copy\(step)"
                let files = world.layout.vm(name)
                // It is not there, or it is there with all its data.
                if Files.exists(files.path) {
                    #expect(try await contents(world, name) == [1, 1, 1])
                    try await world.must("start", name)
                    try await world.must("show", name)
                    try await world.must("purge", name, "--yes")
                } else {
                    #expect(wasKilled && !Files.exists(world.layout.override(name)))
                    try await world.must("clone", "web", name)
                    #expect(try await contents(world, name) == [1, 1, 1])
                    try await world.must("purge", name, "--yes")
                }
                #expect(try world.unfinished() == [])
            })
        #expect(steps > 5)
        if running {
            let nodes = try await world.guest("web").control.hypervisor("query-named-block-nodes")
            #expect(
                !nodes.elements.contains { $0["node-name"]?.string?.hasPrefix("copy-") == true })
        }
        try await world.expectState("web", running ? "running" : "stopped")
    }

    @Test func aRestoreThatFailsLeavesWhatWasThere() async throws {
        let world = try await ready(running: true)
        try await world.must("snapshot", "create", "web", "one")
        try await world.guest("web").write(2, at: 0, flush: true)
        // qemu-img that fails to go back to this one snapshot, as with a full disk.
        let folder = "\(world.folder)/bin"
        try Files.makeFolder(folder)
        try Files.write(
            "\(folder)/qemu-img",
            """
            #!/bin/sh
            case "$*" in *"-a martlet-one"*) echo "it broke" >&2; exit 1;; esac
            exec /usr/bin/qemu-img "$@"

            """, mode: 0o755)
        world.onlyEnvironment = [
            "PATH=\(folder):/usr/bin:/bin", "HOME=\(world.folder)",
            "MARTLET_ROOT=\(world.layout.root)", "MARTLET_RUN=\(world.layout.run)",
            "MARTLET_QEMU=\(world.folder)/hypervisor",
        ]
        let said = try await world.mustFail("snapshot", "restore", "web", "one", code: 1)
        #expect(said.contains("it broke"))
        try await world.expectState("web", "running")
        #expect(try await world.guest("web").holds(2, at: 0))
        #expect(!Files.exists(world.layout.vm("web").path + "/snapshots/restore.journal"))

        // When going back fails as well, it does not start, and says where everything is.
        try Files.write(
            "\(folder)/qemu-img",
            """
            #!/bin/sh
            case "$*" in *" -a martlet-"*) echo "it broke" >&2; exit 1;; esac
            exec /usr/bin/qemu-img "$@"

            """, mode: 0o755)
        let half = try await world.mustFail("snapshot", "restore", "web", "one", code: 1)
        #expect(half.contains("will not be started"))
        try await world.mustFail("start", "web", code: 1)
        world.onlyEnvironment = nil
        try await world.must("start", "web")
        #expect(try await world.guest("web").holds(1, at: 0))
    }
}
