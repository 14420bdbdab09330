// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Storage
import Testing

/// Backups, restores and prunings that are killed at their first step, their second, and so on.
@Suite(.timeLimit(.minutes(20))) struct BackupKillTests {
    private func ready(runs: Bool) async throws -> World {
        let world = try await World("qemu boot=0.05 agent freeze")
        try world.declare("web: {memory: 256MiB, disk: 64MiB, backups: {keep: {daily: 1}}}")
        try await world.must("up")
        if runs { try await world.agent("web") } else { try await world.must("stop", "web") }
        return world
    }

    /// Kills a command at every step, and says how many there were.
    private func killing(
        _ world: World, _ words: [String],
        before: (Int) async throws -> Void, after: (Int) async throws -> Void
    ) async throws -> Int {
        for step in 1..<100 {
            try await before(step)
            let output = try await world.program(words, killAt: step).capture()
            if output.exit != .signal(SIGKILL) {
                #expect(output.exit == .code(0), "step \(step): \(output.errorText)")
                return step - 1
            }
            try await after(step)
        }
        Issue.record("\(words) never ends")
        return 0
    }

    @Test(arguments: [true, false])
    func aKilledBackupCostsTheNextOneNothing(runs: Bool) async throws {
        let world = try await ready(runs: runs)
        let guest = world.guest("web")
        let disk = world.layout.vm("web").dataVolume
        func write(_ value: UInt8, _ slot: Int) async throws {
            let write = DiskModel.Write.fill(value, at: Int64(slot % 200) << 16, bytes: 65536)
            if runs { try await guest.apply(write) } else { try await world.write(write, to: disk) }
        }
        var expected: [Int: UInt8] = [:]
        try await world.must("backup", "create", "web")
        let steps = try await killing(world, ["backup", "create", "web"]) { step in
            // Before each killed one, and between it and the next: both must be in that.
            try await write(UInt8(step), 2 * step)
            expected[2 * step] = UInt8(step)
        } after: { step in
            try await write(UInt8(step + 100), 2 * step + 1)
            expected[2 * step + 1] = UInt8(step + 100)
            try await world.expectTruth("killed at \(step)")
            try await world.must("backup", "create", "web")
            let held = try await world.unpacked("web")
            for (slot, value) in expected {
                #expect(held[slot << 16] == value, "killed at \(step), slot \(slot)")
            }
            try world.expectNothingLeftOver("killed at \(step)")
        }
        #expect(steps >= (runs ? 8 : 6))
        // However often one was killed, none had to be full but where the chain is at its end.
        let kinds = try await world.backups("web").compactMap { $0["kind"]?.string }
        #expect(kinds.filter { $0 == "full" }.count <= 1 + kinds.count / 14, "\(kinds)")
        try await world.must("backup", "verify", "web")
        if runs { try await world.must("stop", "web") }
        #expect(try await world.damage(of: disk) == nil)
    }

    @Test func aKilledRestoreIsTakenUpAgain() async throws {
        let world = try await ready(runs: false)
        let disk = world.layout.vm("web").dataVolume
        try await world.write(.fill(1, at: 0, bytes: 65536), to: disk)
        try await world.must("backup", "create", "web")
        let steps = try await killing(world, ["backup", "restore", "web"]) { step in
            try await world.write(.fill(2, at: 0, bytes: 65536), to: disk)
            try await world.write(.fill(3, at: 8 << 20, bytes: 65536), to: disk)
        } after: { step in
            try await world.expectTruth("killed at \(step)")
            // Any change brings it to one side or the other.
            try await world.must("backup", "create", "web", "--to", "\(world.folder)/elsewhere")
            let now = try await world.content(of: disk)
            #expect([[2, 3], [1, 0]].contains([now[0], now[8 << 20]]), "killed at \(step)")
            try await world.must("backup", "restore", "web")
            let then = try await world.content(of: disk)
            #expect(then[0] == 1 && then[8 << 20] == 0, "killed at \(step)")
            try world.expectNothingLeftOver("killed at \(step)")
            let left = try Files.list(world.layout.vm("web").snapshots)
                .filter { $0.hasPrefix("restoring") }
            #expect(left == [], "killed at \(step)")
        }
        #expect(steps >= 10)
    }

    @Test func aKilledRestoreElsewhereIsTakenUpAgain() async throws {
        let world = try await ready(runs: false)
        let disk = world.layout.vm("web").dataVolume
        try await world.write(.fill(1, at: 0, bytes: 65536), to: disk)
        try await world.must("backup", "create", "web")
        let machine = try Files.readText(world.layout.vm("web").identity + "/machine-id")
        let steps = try await killing(world, ["backup", "restore", "web"]) { _ in
            try await world.must("purge", "web", "--yes")
        } after: { step in
            try await world.must("backup", "restore", "web")
            #expect(try await world.content(of: disk)[0] == 1, "killed at \(step)")
            #expect(
                try Files.readText(world.layout.vm("web").identity + "/machine-id") == machine)
            try world.expectNothingLeftOver("killed at \(step)")
        }
        #expect(steps >= 6)
        try await world.must("up")
        try await world.expectState("web", "running")
    }

    @Test func aKilledPruningLeavesWholeChains() async throws {
        let world = try await ready(runs: false)
        for _ in 0..<3 { try await world.must("backup", "create", "web") }
        try await world.must("backup", "create", "web", "--full")
        let steps = try await killing(world, ["backup", "prune", "web", "--yes"]) { _ in
        } after: { step in
            for backup in try await world.backups("web") {
                let name = try #require(backup["name"]?.string)
                try await world.must("backup", "verify", "web", name)
            }
        }
        #expect(steps >= 1)
        #expect(try await world.backups("web").count == 1)
    }
}
