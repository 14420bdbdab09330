// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Storage
import Supervisor
import Support
import Testing

/// Backups by their verbs, with a real block layer under a made-up guest.
@Suite(.timeLimit(.minutes(20))) struct BackupTests {
    private static let size: Int64 = 64 << 20

    private func ready(
        _ more: String = "", behaviour: String = "qemu boot=0.05 agent freeze", up: Bool = true
    ) async throws -> World {
        let world = try await World(behaviour)
        try world.declare("web: {memory: 256MiB, disk: 64MiB\(more)}")
        try await world.must("up")
        if up { try await world.agent("web") } else { try await world.must("stop", "web") }
        return world
    }

    /// After each of ten rounds of random writes, running and stopped, a restore equals the disk.
    @Test func aChainOfTenRoundsHoldsEachRoundsDisk() async throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("seed \(seed)")
        var dice = Dice(state: seed)
        let world = try await ready(up: false)
        let disk = world.layout.vm("web").dataVolume
        var model = DiskModel(bytes: try await world.content(of: disk))
        var expected: [(id: String, bytes: [UInt8])] = []
        var isRunning = false
        for round in 0..<10 {
            let runs = Bool.random(using: &dice) || round == 5
            if runs != isRunning {
                try await world.must(runs ? "start" : "stop", "web")
                if runs { try await world.agent("web") }
                isRunning = runs
            }
            if round == 5 {
                // A crash: what the bitmaps say is not believed any more.
                try await world.guest("web").flush()
                let pid = try #require(try await world.list()["web"]?["pid"]?.integer)
                kill(Int32(pid), SIGKILL)
                try await world.until("it runs again") {
                    let now = try await world.list()["web"]
                    return now?["pid"]?.integer != pid && now?["state"]?.string == "running"
                }
                try await world.agent("web")
            }
            for _ in 0..<Int.random(in: 0..<12, using: &dice) {
                let write = dice.write(within: Self.size)
                if isRunning {
                    try await world.guest("web").apply(write)
                } else {
                    try await world.write(write, to: disk)
                }
                model.apply(write)
            }
            try await world.must("backup", "create", "web")
            let newest = try #require(try await world.backups("web").last)
            let kind = round == 0 || round == 5 ? "full" : "incremental"
            #expect(newest["kind"]?.string == kind, "round \(round): \(newest)")
            #expect(newest["consistency"]?.string == (isRunning ? "frozen" : "stopped"))
            let held = try await world.unpacked("web")
            #expect(model.difference(from: held) == nil, "round \(round), seed \(seed)")
            expected.append((newest["name"]?.string ?? "", model.bytes))
        }
        // Later rounds have changed nothing of earlier ones.
        for (id, bytes) in expected {
            let held = try await world.unpacked("web", id)
            #expect(DiskModel(bytes: bytes).difference(from: held) == nil, "\(id), seed \(seed)")
        }
        let whole = try await world.must("backup", "verify", "web")
        #expect(whole.text.split(separator: "\n").count == 5)
        if isRunning { try await world.must("stop", "web") }
        #expect(try await world.damage(of: disk) == nil)
        try world.expectNothingLeftOver()
        // In place: what is there now is kept, and what was there then comes back.
        let (id, bytes) = expected[3]
        try await world.must("backup", "restore", "web", id)
        let back = try await world.content(of: disk)
        #expect(DiskModel(bytes: bytes).difference(from: back) == nil, "seed \(seed)")
        try world.expectNothingLeftOver()
        let snapshots = try Files.list(world.layout.vm("web").snapshots)
        #expect(snapshots.filter { $0.hasSuffix(".json") }.count == 1)
        // What the bitmaps told is not so any more.
        try await world.must("backup", "create", "web")
        #expect(try await world.backups("web").last?["kind"]?.string == "full")
        let held = try await world.unpacked("web")
        #expect(DiskModel(bytes: bytes).difference(from: held) == nil, "seed \(seed)")
    }

    /// A backup fits wherever it is restored to, also into a file that keeps its own snapshots.
    @Test func ofALargerDiskMakesTheDiskLarger() async throws {
        let world = try await ready(up: false)
        let disk = world.layout.vm("web").dataVolume
        try await world.must("snapshot", "create", "web", "small")
        try world.declare("web: {memory: 256MiB, disk: 80MiB}")
        try await world.must("up")
        try await world.must("stop", "web")
        var model = DiskModel(bytes: try await world.content(of: disk))
        let write = DiskModel.Write.fill(7, at: 79 << 20, bytes: 4096)
        try await world.write(write, to: disk)
        model.apply(write)
        try await world.must("backup", "create", "web")
        try await world.must("snapshot", "restore", "web", "small")
        #expect(try await world.content(of: disk).count == 64 << 20)
        try await world.must("backup", "restore", "web")
        let back = try await world.content(of: disk)
        #expect(model.difference(from: back) == nil)
        #expect(try await world.damage(of: disk) == nil)
        try await world.must("snapshot", "restore", "web", "small")
    }

    /// What a guest writes while it is backed up is either all there up to one moment, or not at all.
    @Test func whatIsWrittenMeanwhileIsOfOneMoment() async throws {
        let world = try await ready()
        let guest = world.guest("web")
        var model = DiskModel(bytes: [UInt8](repeating: 0, count: Int(Self.size)))
        try await guest.zero(at: 0, bytes: Self.size)
        for slot in 0..<Int64(24) {
            let write = DiskModel.Write.fill(UInt8(slot + 1), at: slot << 20, bytes: 1 << 20)
            try await guest.apply(write)
            model.apply(write)
        }
        for round in 0..<3 {
            let writer = Task {
                var dice = Dice(state: UInt64(round))
                var writes: [DiskModel.Write] = []
                while !Task.isCancelled {
                    let write = dice.write(within: Self.size)
                    try await guest.apply(write)
                    writes.append(write)
                    // QEMU has one thread for this and for the backup.
                    try? await Task.sleep(for: .milliseconds(2))
                }
                return writes
            }
            try await world.must("backup", "create", "web")
            writer.cancel()
            let writes = try await writer.value
            let held = try await world.unpacked("web")
            var then: Int? = model.isEqual(to: held) ? 0 : nil
            for (index, write) in writes.enumerated() {
                model.apply(write)
                if then == nil, model.isEqual(to: held) { then = index + 1 }
            }
            #expect(then != nil, "round \(round): of no moment among \(writes.count) writes")
        }
        #expect(
            try await world.backups("web").compactMap { $0["kind"]?.string }
                == ["full", "incremental", "incremental"])
        try await world.must("stop", "web")
        let now = try await world.content(of: world.layout.vm("web").dataVolume)
        #expect(model.difference(from: now) == nil)
        try world.expectNothingLeftOver()
    }

    /// Another machine has the archives and the fleet file, and nothing else.
    @Test func anotherMachineNeedsArchivesAndFleetFile() async throws {
        let world = try await ready()
        try await world.guest("web").write(0x41, at: 0, flush: true)
        try await world.must("backup", "create", "web")
        try await world.guest("web").write(0x42, at: 65536, flush: true)
        try await world.must("backup", "create", "web")
        try await world.must("stop", "web")
        let identity = try Files.readText(world.layout.vm("web").identity + "/machine-id")

        let other = try await World("qemu boot=0.05 agent freeze")
        try other.declare("web: {memory: 256MiB, disk: 64MiB}")
        let folder = "\(other.folder)/usb"
        try Files.makeFolder(folder)
        for name in try Files.list("\(world.layout.backups)/web") where name.hasSuffix(".zst") {
            let bytes = try Files.read("\(world.layout.backups)/web/\(name)")
            try Files.write("\(folder)/\(name)", bytes)
        }
        let name = try #require(try await world.backups("web").last?["name"]?.string)
        let newest = "\(name).tar.zst"
        try await other.must("backup", "restore", "web", "\(folder)/\(newest)")
        try other.expectNothingLeftOver()
        #expect(
            try Files.readText(other.layout.vm("web").identity + "/machine-id") == identity)
        let slots = try await other.slots(2, of: other.layout.vm("web").dataVolume)
        #expect(slots == [0x41, 0x42])
        try await other.must("up")
        try await other.expectState("web", "running")
        try await other.agent("web")
        // From here on it makes backups of its own.
        try await other.must("backup", "create", "web", "--to", folder)
        #expect(
            try await other.backups("web", "--from", folder).map { $0["kind"]?.string } == ["full"])
    }

    @Test func aNewVMIsMadeBesideTheOldOne() async throws {
        let world = try await ready(", ports: ['\(try freePort()):80']")
        try await world.guest("web").write(5, at: 0)
        try await world.must("backup", "create", "web")
        try await world.guest("web").write(6, at: 0)
        try await world.must("backup", "restore", "web", "--as", "then")
        _ = try await world.mustFail("backup", "restore", "web", "--as", "then", code: 1)
        _ = try await world.mustFail("backup", "restore", "web", "--as", "web", code: 1)
        #expect(try await world.guest("web").holds(6, at: 0))
        let slots = try await world.slots(1, of: world.layout.vm("then").dataVolume)
        #expect(slots == [5])
        func machine(_ name: String) throws -> String {
            try Files.readText(world.layout.vm(name).identity + "/machine-id")
        }
        #expect(try machine("then") != machine("web"))
        try await world.must("start", "then")
        try await world.must("up")
        try await world.expectState("then", "running")
        try world.expectNothingLeftOver()
    }

    @Test func aBackupIsProvedByBootingIt() async throws {
        let world = try await ready(", ports: ['\(try freePort()):80'], health: {tcp: 22}")
        try await world.must("backup", "create", "web")
        // A guest without a program answers no check: the verdict says so, and nothing is left.
        let said = try await world.program(["backup", "verify", "web", "--boot"]).capture()
        let newest = try #require(try await world.backups("web").last)
        if said.exit == .code(0) {
            #expect(newest["verifiedAt"]?.string != nil)
        } else {
            #expect(newest["verifiedAt"] == .null && newest["verdict"]?.string != nil)
        }
        #expect(try Files.list(world.layout.vms) == ["web"])
        // One that was killed is removed by the next.
        try world.declare("web: {memory: 256MiB, disk: 64MiB}")
        try await world.must("up")
        try await world.must("backup", "create", "web")
        for step in [3, 6, 9, 11] {
            let words = ["backup", "verify", "web", "--boot"]
            _ = try await world.program(words, killAt: step).capture()
        }
        try await world.must("backup", "verify", "web", "--boot")
        #expect(try await world.backups("web").last?["verifiedAt"]?.string != nil)
        #expect(try Files.list(world.layout.vms) == ["web"])
        try world.expectNothingLeftOver()
    }

    @Test func anEncryptedBackupTakesItsKey() async throws {
        let world = try await World("qemu boot=0.05 agent freeze")
        let (key, recipient) = try await world.makeKey("key")
        let (wrong, _) = try await world.makeKey("wrong")
        try world.declare(
            "web: {memory: 256MiB, disk: 64MiB, backups: {encrypt: [\(recipient)], identity: \(key)}}"
        )
        try await world.must("up")
        try await world.agent("web")
        try await world.guest("web").write(7, at: 0)
        try await world.must("backup", "create", "web")
        try await world.must("backup", "create", "web")
        let names = try Files.list("\(world.layout.backups)/web")
        #expect(names.filter { $0.hasSuffix(".tar.zst.age") }.count == 2)
        #expect(try await world.unpacked("web", identity: key).prefix(4) == [7, 7, 7, 7])
        try await world.must("backup", "verify", "web")
        let said = try await world.mustFail(
            "backup", "verify", "web", "--identity", wrong, code: 1)
        #expect(said.contains("cannot be decrypted"))
        try await world.guest("web").write(8, at: 0, flush: true)
        _ = try await world.mustFail("backup", "restore", "web", "--identity", wrong, code: 1)
        _ = try await world.mustFail("backup", "restore", "web", "--identity", "/none", code: 1)
        #expect(try await world.guest("web").holds(8, at: 0))
        try await world.must("backup", "restore", "web")
        #expect(try await world.guest("web").holds(7, at: 0))
    }

    @Test func aFailedBackupLeavesNothingAndCostsNothing() async throws {
        let world = try await ready()
        let guest = world.guest("web")
        try await guest.write(1, at: 0)
        try await world.must("backup", "create", "web")
        // The target refuses: a file stands where its folder should be.
        try await guest.write(2, at: 65536)
        let place = "\(world.folder)/place"
        try Files.makeFolder(place)
        try Files.write("\(place)/web", "")
        _ = try await world.mustFail("backup", "create", "web", "--to", place, code: 1)
        try await guest.write(3, at: 131_072)
        try world.expectNothingLeftOver()
        try await world.must("backup", "create", "web")
        #expect(try await world.backups("web").last?["kind"]?.string == "incremental")
        let held = try await world.unpacked("web")
        #expect([held[0], held[65536], held[131_072]] == [1, 2, 3])
    }

    @Test func aGuestWhoseAgentIsSilentIsBackedUpAllTheSame() async throws {
        let world = try await World("qemu boot=0.05")
        try world.declare("web: {memory: 256MiB, disk: 64MiB}")
        try await world.must("up")
        try await world.guest("web").write(9, at: 0)
        try await world.must("backup", "create", "web")
        let newest = try #require(try await world.backups("web").last)
        #expect(newest["consistency"]?.string == "crash")
        #expect(newest["why"]?.string?.isEmpty == false)
        #expect(try await world.unpacked("web")[0] == 9)
    }

    @Test func pruningKeepsWhatIsRestedOn() async throws {
        let world = try await ready(", backups: {keep: {daily: 1}}", up: false)
        for _ in 0..<3 { try await world.must("backup", "create", "web") }
        try await world.must("backup", "create", "web", "--full")
        try await world.must("backup", "prune", "web", "--yes")
        #expect(try await world.backups("web").map { $0["kind"]?.string } == ["full"])
        try await world.must("backup", "verify", "web")
    }
}

extension World {
    /// A key of age's, and its recipient.
    func makeKey(_ name: String) async throws -> (path: String, recipient: String) {
        let path = "\(folder)/\(name).age"
        let output = try await Program("/usr/bin/age-keygen", ["-o", path]).capture()
        try #require(output.exit.isSuccess)
        let text = try Files.readText(path)
        let line = text.split(separator: "\n").first { $0.hasPrefix("# public key: ") } ?? ""
        return (path, String(line.dropFirst(14)))
    }
}
