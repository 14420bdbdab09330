// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Testing

/// Volumes from declaration to removal, with a hypervisor that opens none of them.
@Suite(.timeLimit(.minutes(20))) struct VolumeTests {
    @Test func areMadeOnceAndKept() async throws {
        let world = try await World()
        let volumes = """
            {name: one, size: 16MiB}, {name: two, size: 320MiB, filesystem: xfs, format: raw}
            """
        try world.declare("web: {volumes: [\(volumes)]}")
        try await world.must("up")
        let files = world.layout.vm("web")
        let names = ["data.qcow2", "volume-one.qcow2", "volume-two.raw"]
        #expect(try Files.list(files.disks) == names)
        let owner = try Files.status(files.disks).owner
        for name in names {
            #expect(try Files.status("\(files.disks)/\(name)").owner == owner)
        }
        #expect(try await world.martlet("plan", "--check").exit == .code(0))
        let before = try Files.readPrefix(files.disks + "/volume-two.raw", 65536)

        // No longer declared: the file stays, and the plan says so. Declared again, it is there.
        try world.declare("web: {}")
        #expect(try await world.must("plan").text.contains("nothing in it is deleted"))
        try await world.must("up")
        #expect(try Files.list(files.disks) == names)
        for (changed, said) in [
            ("{name: two, size: 320MiB, format: raw}", "holds a file system of the type xfs"),
            ("{name: two, size: 320MiB, filesystem: xfs}", "holds the volume as raw"),
        ] {
            // Another file system or format is refused before the VM is stopped.
            try world.declare("web: {volumes: [\(changed)]}")
            #expect(try await world.mustFail("up", code: 1).contains(said))
            try await world.expectState("web", "running")
        }
        try world.declare("web: {volumes: [\(volumes)]}")
        try await world.must("up")
        #expect(try Files.readPrefix(files.disks + "/volume-two.raw", 65536) == before)
    }

    @Test func whatIsLostIsNamed() async throws {
        let world = try await World()
        try world.declare("web: {volumes: [{name: one, size: 16MiB}, {name: two, size: 8MiB}]}")
        try await world.must("up")
        let files = world.layout.vm("web")
        try world.declare("web: {volumes: [{name: one, size: 16MiB}]}")
        try await world.must("up")
        try await world.must("stop", "web")
        try await world.must("snapshot", "create", "web", "monday")
        try await world.must("start", "web")
        for verb in ["recreate", "destroy", "purge"] {
            let said = try await world.mustFail(verb, "web", code: 64)
            for loss in [
                "the data volume of web (8GiB)", "the volume one of web (16MiB)",
                "volume-two.qcow2, a volume that web no longer declares",
                "the snapshot 'monday' of web",
            ] {
                #expect(said.contains(loss), "\(verb): \(said)")
            }
        }
        try await world.must("recreate", "web", "--yes")
        #expect(try Files.list(files.disks) == ["data.qcow2", "volume-one.qcow2"])
        #expect(!Files.exists(files.path + "/snapshots"))
        try await world.expectState("web", "running")
        try await world.must("destroy", "web", "--yes")
        #expect(try Files.list(files.path) == ["change.lock", "identity"])
    }

    @Test func resizeRecordsAndSaysWhatFollows() async throws {
        let world = try await World()
        try world.declare("web: {memory: 256MiB, vcpu: 1}")
        try await world.must("up", "--no-start")
        let said = try await world.must(
            "resize", "web", "--memory", "512MiB", "--vcpu", "2", "--disk", "9GiB")
        for words in ["memory", "256MiB", "512MiB", "vcpu", "disk", "9GiB"] {
            #expect(said.text.contains(words))
        }
        try await world.must("up")
        #expect(try await world.list()["web"]?["memoryBytes"] == .integer(512 << 20))
        #expect(try await world.must("show", "web").text.contains("9GiB"))
        let disk = try Files.readPrefix(world.layout.vm("web").dataVolume, 32)
        #expect(disk[24...].reduce(0) { $0 << 8 | Int64($1) } == 9 << 30)
        // What cannot be is not recorded.
        let before = try Files.readText(world.layout.override("web"))
        #expect(
            try await world.mustFail("resize", "web", "--disk", "1GiB", code: 1)
                .contains("cannot shrink"))
        try await world.mustFail("resize", "web", "--vcpu", "0", code: 65)
        try await world.mustFail("resize", "web", code: 64)
        try await world.mustFail("resize", "wob", "--vcpu", "2", code: 66)
        #expect(try Files.readText(world.layout.override("web")) == before)
    }

    /// The guest of this hypervisor says `hello` to everything, which is no size: the disk has
    /// grown, its file system has not, and nothing claims that it has.
    @Test func aFileSystemThatDoesNotGrowIsNotReportedAsGrown() async throws {
        let world = try await World()
        try world.declare("web: {disk: 1GiB}")
        try await world.must("up")
        try world.declare("web: {disk: 2GiB}")
        #expect(try await world.must("plan").text.contains("live"))
        #expect(try await world.mustFail("up", code: 1).contains("its file system has not"))
        #expect(try await world.martlet("plan", "--check").exit == .code(2))
        // The next start grows it.
        try await world.must("restart", "web")
        #expect(try await world.martlet("plan", "--check").exit == .code(0))
        try world.expectNothingLeftOver()
    }
}

@Suite(.enabled(if: getuid() == 0, "loop devices need root"), .timeLimit(.minutes(20)))
final class DeviceVolumeTests {
    private var loops: [String] = []

    deinit {
        for loop in loops {
            let arguments = ["-d", loop]
            _ = try? Program(findProgram("losetup") ?? "", arguments).spawn().waitBlocking()
        }
    }

    @Test func aBlankDeviceIsFormattedAndAnotherOneIsNot() async throws {
        let world = try await World()
        let blank = try await attach(world)
        let foreign = try await attach(world)
        try await run("mkfs.vfat", ["-I", foreign])
        func declare(_ device: String, _ more: String = "") throws {
            try world.declare(
                "web: {volumes: [{name: tank, device: \(device), mount: /srv/tank\(more)}]}")
        }
        try declare(foreign)
        let said = try await world.mustFail("up", code: 1)
        #expect(said.contains("holds a file system of the type vfat, and ext4 is declared"))
        try await world.expectState("web", "absent")
        try declare(blank, ", readOnly: true")
        #expect(try await world.mustFail("up", code: 1).contains("holds nothing"))
        try declare("/dev/nowhere")
        #expect(try await world.mustFail("up", code: 78).contains("does not exist"))

        try declare(blank)
        try await world.must("up")
        #expect(try await run("blkid", ["-p", "-o", "value", "-s", "LABEL", blank]) == "tank\n")
        // While it runs, nobody else gets it: neither the host nor another VM.
        let mount = Program(try #require(findProgram("mount")), [blank, world.folder])
        #expect(try await mount.capture().exit != .code(0))
        #expect(try await world.martlet("plan", "--check").exit == .code(0))
        try world.declare(
            "web: {volumes: [{name: tank, device: \(blank), mount: /srv/tank}], memory: 384MiB}, "
                + "other: {volumes: [{name: tank, device: \(blank), readOnly: true}]}")
        #expect(try await world.mustFail("up", code: 78).contains("cannot be used"))
        try await world.expectState("web", "running")
        try await world.expectState("other", "absent")

        // No verb that destroys disks touches it, and each says so.
        let recreate = try await world.must("recreate", "web", "--yes")
        #expect(recreate.errorText.contains("Not touched: the device \(blank)"))
        try await world.must("purge", "web", "--yes")
        #expect(try await run("blkid", ["-p", "-o", "value", "-s", "LABEL", blank]) == "tank\n")
    }

    /// What a kill left of a file system that was being made on a blank device is our own.
    @Test func aKillWhileADeviceIsFormattedIsMadeGood() async throws {
        let world = try await World()
        let device = try await attach(world)
        try world.declare("web: {volumes: [{name: tank, device: \(device), mount: /srv/tank}]}")
        var wasKilled = true
        for step in 1... where wasKilled {
            try await run("blkdiscard", ["-z", device])
            let first = try await world.program(["up"], killAt: step).capture()
            wasKilled = first.exit == .signal(SIGKILL)
            let record = world.layout.vm("web").path + "/volumes.json"
            if let text = try? Files.readText(record), text.contains(device) {
                // As if the power had failed in the middle of it.
                try await run("wipefs", ["-qa", device])
                try await run("qemu-io", ["-f", "raw", "-c", "write -P 9 4096 512", device])
            }
            try await world.must("up")
            #expect(
                try await run("blkid", ["-p", "-o", "value", "-s", "TYPE", device]) == "ext4\n")
            #expect(try !Files.readText(record).contains(device))
            try await world.must("purge", "web", "--yes")
            if !wasKilled {
                #expect(step > 6)
                break
            }
        }
    }

    private func attach(_ world: World) async throws -> String {
        let file = world.folder + "/disk-\(loops.count)"
        try Files.makeSparse(file, bytes: 64 << 20)
        let path = try await run("losetup", ["--find", "--show", file])
        let loop = String(path.prefix { $0 != "\n" })
        loops.append(loop)
        return loop
    }

    @discardableResult
    private func run(_ name: String, _ arguments: [String]) async throws -> String {
        let output = try await Program(try #require(findProgram(name)), arguments).capture()
        #expect(output.exit == .code(0), "\(name): \(output.errorText)")
        return output.text
    }
}
