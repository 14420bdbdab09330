// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Storage

/// Numbers that a printed seed brings back.
struct Seeded: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        // SplitMix64.
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// Snapshots inside real qcow2 files.
@Suite(.timeLimit(.minutes(20))) struct SnapshotTests {
    let folder: TemporaryFolder
    var path: String { folder.path + "/disk.qcow2" }
    private static let slots = 16

    init() throws { folder = try TemporaryFolder() }

    private func io(_ commands: [String], _ path: String) async throws -> Bool {
        let arguments = ["-f", "qcow2"] + commands.flatMap { ["-c", $0] } + [path]
        let output = try await Program("/usr/bin/qemu-io", arguments).capture()
        return output.exit.isSuccess && !output.text.contains("failed")
    }

    private func read(_ content: [UInt8]) -> [String] {
        content.enumerated().map { "read -P \($1) \($0 * 65536) 65536" }
    }

    /// Whatever is done to snapshots, in any order, the disk holds what a model says, and so does each
    /// snapshot that is left.
    @Test func anyOrderOfStepsKeepsEveryContent() async throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = Seeded(state: seed)
        let file = QCOW2File(path, user: nil)
        try await file.createEmpty(bytes: Int64(Self.slots) * 65536)
        var live = [UInt8](repeating: 0, count: Self.slots)
        var kept: [(name: String, content: [UInt8])] = []
        var count = 0
        var trace: [String] = []
        for step in 0..<220 {
            let pick = kept.indices.randomElement(using: &random)
            switch Int.random(in: 0..<10, using: &random) {
            case 0...3:
                let slot = Int.random(in: 0..<Self.slots, using: &random)
                let byte = UInt8.random(in: 0...255, using: &random)
                trace.append("write \(byte) at \(slot)")
                try #require(try await io(["write -P \(byte) \(slot * 65536) 65536"], path))
                live[slot] = byte
            case 4, 5:
                count += 1
                trace.append("take s\(count)")
                try await file.takeSnapshot("s\(count)")
                kept.append(("s\(count)", live))
            case 6, 7:
                guard let pick else { continue }
                trace.append("apply \(kept[pick].name)")
                try await file.apply(kept[pick].name)
                live = kept[pick].content
            case 8:
                guard let pick else { continue }
                trace.append("remove \(kept[pick].name)")
                try await file.removeSnapshot(kept.remove(at: pick).name)
            default:
                guard let pick else { continue }
                trace.append("copy \(kept[pick].name)")
                let copy = path + ".copy"
                try Files.remove(copy)
                try await file.copy(snapshot: kept[pick].name, to: copy)
                #expect(try await io(read(kept[pick].content), copy))
                #expect(try await QCOW2File(copy, user: nil).info().snapshots == [])
            }
            let isRight = try await io(read(live), path)
            try #require(isRight, "seed \(seed), step \(step): \(trace.joined(separator: ", "))")
        }
        #expect(try await file.info().snapshots == kept.map(\.name))
        for snapshot in kept {
            try await file.apply(snapshot.name)
            #expect(try await io(read(snapshot.content), path), "seed \(seed): \(snapshot.name)")
        }
        let check = try await Program("/usr/bin/qemu-img", ["check", "-q", path]).capture()
        #expect(check.exit.isSuccess, "seed \(seed): \(check.text)")
    }

    @Test func goesBackToTheSizeOfThen() async throws {
        let file = QCOW2File(path, user: nil)
        try await file.createEmpty(bytes: 1 << 20)
        #expect(try await io(["write -P 7 0 64k"], path))
        try await file.takeSnapshot("small")
        try await Disk(path: path, format: .qcow2).grow(to: 1 << 26)
        #expect(try await io(["write -P 8 0 64k", "write -P 9 63M 64k"], path))
        try await file.takeSnapshot("large")
        try await file.apply("small")
        #expect(try await file.info().size == 1 << 20)
        #expect(try await io(["read -P 7 0 64k"], path))
        try await file.apply("large")
        #expect(try await file.info().size == 1 << 26)
        #expect(try await io(["read -P 8 0 64k", "read -P 9 63M 64k"], path))
    }

    @Test func bitmapsAreInTheWayUntilTheyAreRemoved() async throws {
        let file = QCOW2File(path, user: nil)
        try await file.createEmpty(bytes: 1 << 20)
        try await file.takeSnapshot("one")
        for name in ["martlet-a", "martlet-b", "foreign"] {
            let add = ["bitmap", "--add", path, name]
            #expect(try await Program("/usr/bin/qemu-img", add).capture().exit.isSuccess)
        }
        await #expect(throws: StorageError.self) { try await file.apply("one") }
        #expect(try await file.removeBitmaps("martlet-") == 2)
        #expect(try await file.info().bitmaps.map(\.name) == ["foreign"])
        try await file.removeBitmaps("")
        try await file.apply("one")
    }

    /// A file of a hostile hypervisor cannot make us read for it what only root can.
    @Test(.enabled(if: geteuid() == 0)) func anotherFileIsReadOnlyAsTheVMsUser() async throws {
        let user: UInt32 = 2_100_000_123
        try Files.setMode(folder.path, 0o755)
        let disks = folder.path + "/disks"
        try Files.makeFolder(disks, mode: 0o700)
        let secret = folder.path + "/secret"
        try Files.write(secret, String(repeating: "secret", count: 20000), mode: 0o600)
        let create = ["create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", disks + "/evil"]
        #expect(try await Program("/usr/bin/qemu-img", create).capture().exit.isSuccess)
        for path in [disks, disks + "/evil"] { try Files.setOwner(path, user: user, group: user) }
        let root = QCOW2File(disks + "/evil", user: nil)
        try await root.copy(snapshot: nil, to: disks + "/leak")
        let evil = QCOW2File(disks + "/evil", user: user)
        await #expect(throws: StorageError.self) {
            try await evil.copy(snapshot: nil, to: disks + "/copy")
        }
    }

    @Test func sparseCopiesStaySparseAndFollowNoLink() throws {
        let source = folder.path + "/source"
        try Files.makeSparse(source, bytes: 64 << 20)
        let file = try Descriptor.open(source, O_WRONLY)
        for place: off_t in [0, 5 << 20, (64 << 20) - 4096] {
            lseek(file.raw, place, SEEK_SET)
            try file.write(
                [UInt8](repeating: UInt8(truncatingIfNeeded: place >> 20) + 1, count: 4096))
        }
        try Files.copySparse(source, to: folder.path + "/copy")
        let copied = try Files.read(folder.path + "/copy", limit: 65 << 20)
        #expect(copied == (try Files.read(source, limit: 65 << 20)))
        #expect(try Files.status(folder.path + "/copy").allocated < 1 << 20)
        #expect(throws: SystemError.self) {
            try Files.copySparse(source, to: folder.path + "/copy")
        }
        try Files.link(source, at: folder.path + "/link")
        #expect(throws: SystemError.self) {
            try Files.copySparse(folder.path + "/link", to: folder.path + "/stolen")
        }
        #expect(!Files.exists(folder.path + "/stolen"))
    }

    @Test func zfsCommandsAreAsDocumented() throws {
        let volume = try #require(ZVolume(device: "/dev/zvol/tank/vms/web"))
        let other = try #require(ZVolume(device: "/dev/zvol/tank/vms/db-1"))
        #expect(
            ZVolume.take([volume, other], "martlet-a")
                == ["zfs", "snapshot", "tank/vms/web@martlet-a", "tank/vms/db-1@martlet-a"])
        #expect(
            volume.beginRestore("martlet-a")
                == ["zfs", "clone", "tank/vms/web@martlet-a", "tank/vms/web-martlet-a"])
        #expect(
            volume.copyBack("martlet-a")
                == [
                    "qemu-img", "convert", "-q", "-t", "writeback", "-n", "-f", "raw", "-O", "raw",
                    "/dev/zvol/tank/vms/web-martlet-a", "/dev/zvol/tank/vms/web",
                ])
        #expect(volume.endRestore("martlet-a") == ["zfs", "destroy", "tank/vms/web-martlet-a"])
        #expect(volume.remove("martlet-a") == ["zfs", "destroy", "tank/vms/web@martlet-a"])
        for device in [
            "/dev/sda", "/dev/zvol/tank", "/dev/zvol/-r/x", "/dev/zvol/tank/a@b", "/dev/zvol/",
            "/dev/zvol/tank/a b", "/dev/zvol/tank/",
        ] { #expect(ZVolume(device: device) == nil, "\(device)") }
    }
}

/// Files that share blocks, on file systems that can, in mounts that nobody else sees.
@Suite(.timeLimit(.minutes(20)), .enabled(if: geteuid() == 0)) struct SharedBlockTests {
    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    @Test(arguments: ["btrfs", "xfs"]) func sharesBlocksAndKeepsContentsApart(
        kind: String
    ) async throws {
        let path = folder.path
        let free = try await withLoop(kind, at: path) {
            let disk = path + "/mount/disk"
            let file = try Descriptor.open(disk, O_RDWR | O_CREAT)
            try file.write([UInt8](repeating: 1, count: 16 << 20))
            try file.sync()
            let before = try Files.freeSpace(disk)
            #expect(try Files.share(disk, as: disk + ".a"))
            let after = try Files.freeSpace(disk)
            lseek(file.raw, 4 << 20, SEEK_SET)
            try file.write([UInt8](repeating: 2, count: 65536))
            #expect(try Files.share(disk, as: disk + ".b"))
            lseek(file.raw, 0, SEEK_SET)
            try file.write([UInt8](repeating: 3, count: 65536))
            let contents = try [disk, disk + ".a", disk + ".b"].map { name in
                let bytes = try Files.read(name)
                return [bytes[0], bytes[4 << 20], bytes[(16 << 20) - 1]]
            }
            #expect(contents == [[3, 2, 1], [1, 1, 1], [1, 2, 1]])
            // Not over one that is there, and nothing is left of what cannot be.
            #expect(throws: SystemError.self) { try Files.share(disk, as: disk + ".a") }
            #expect(try !Files.share(disk, as: path + "/elsewhere"))
            #expect(!Files.exists(path + "/elsewhere"))
            return before - after
        }
        #expect(free < 4 << 20)
    }

    @Test func withoutSharedBlocksThereIsNoFile() throws {
        let path = folder.path
        try Files.write(path + "/file", "content")
        // Where the temporary folder can share blocks, the other half is tested above.
        let isShared = try Files.share(path + "/file", as: path + "/copy")
        #expect(Files.exists(path + "/copy") == isShared)
    }
}

/// Runs blocking work with a file system of its own at FOLDER/mount.
func withLoop<R: Sendable>(
    _ kind: String, at folder: String, _ body: @escaping @Sendable () throws -> R
) async throws -> R {
    let image = folder + "/\(kind).img"
    try Files.makeSparse(image, bytes: 512 << 20)
    try Files.makeFolder(folder + "/mount")
    let make = try await Program("/usr/sbin/mkfs.\(kind)", ["-q", image]).capture()
    try #require(make.exit.isSuccess, "\(make.errorText)")
    return try await inNewMounts {
        // `loop` frees the device with the last mount; the namespace ends with this thread.
        try runBlocking("mount", ["-o", "loop", image, folder + "/mount"])
        // Lazily: a child that somebody forked a moment ago may still stand in it.
        defer { try? runBlocking("umount", ["--lazy", folder + "/mount"]) }
        return try body()
    }
}

/// Runs a program from a thread whose mounts it must see.
private func runBlocking(_ name: String, _ arguments: [String]) throws {
    let path = try #require(findProgram(name))
    let exit = try Program(path, arguments).spawn().waitBlocking()
    try #require(exit.isSuccess, "\(name) \(arguments): \(exit)")
}
