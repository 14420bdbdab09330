// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Storage

@Suite(.timeLimit(.minutes(20))) struct DiskTests {
    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    @Test(arguments: [Storage.DiskFormat.qcow2, .raw])
    func makesASparseDiskWithAFileSystemOnce(format: Storage.DiskFormat) async throws {
        let disk = Disk(path: folder.path + "/data", format: format)
        try await disk.create(bytes: 1 << 30, label: "data", uuid: uuid)
        #expect(try await disk.size() == 1 << 30)
        #expect(try Files.status(disk.path).allocated < 1 << 20)
        let check = try await Program(
            try #require(findProgram("qemu-img")),
            ["check", "-q", "-f", format.rawValue, disk.path]
        ).capture()
        // Raw disks hold no metadata to check: qemu-img says so with 63.
        #expect(check.exit == .code(format == .raw ? 63 : 0))
        let before = try Files.readPrefix(disk.path, 65536)
        try await disk.create(bytes: 2 << 30, label: "other", uuid: uuid)
        #expect(try Files.readPrefix(disk.path, 65536) == before)
        #expect(try await disk.size() == 1 << 30)
        #expect(try Files.list(folder.path) == ["data"])
    }

    @Test func growsAndRefusesToShrink() async throws {
        let disk = Disk(path: folder.path + "/data.qcow2", format: .qcow2)
        try await disk.create(bytes: 1 << 28, label: "data", uuid: uuid)
        try await disk.grow(to: 1 << 29)
        #expect(try await disk.size() == 1 << 29)
        try await disk.grow(to: 1 << 29)
        await #expect(throws: StorageError.shrink(path: disk.path, from: 1 << 29, to: 1 << 28)) {
            try await disk.grow(to: 1 << 28)
        }
    }

    @Test func whatAKilledRunLeftIsReplaced() async throws {
        let disk = Disk(path: folder.path + "/data.qcow2", format: .qcow2)
        try Files.write(disk.path + ".new", "half a disk")
        try await disk.create(bytes: 1 << 28, label: "data", uuid: uuid)
        #expect(try await disk.size() == 1 << 28)
        #expect(!Files.exists(disk.path + ".new"))
    }

    @Test func refusesAFileThatIsNoDisk() async throws {
        try Files.write(folder.path + "/data.qcow2", String(repeating: "x", count: 64))
        let disk = Disk(path: folder.path + "/data.qcow2", format: .qcow2)
        await #expect(throws: StorageError.failed(what: disk.path, output: "not a qcow2 file")) {
            _ = try await disk.size()
        }
    }

    @Test(
        arguments: Filesystem.allCases, [Storage.DiskFormat.qcow2, .raw]
    ) func makesEachFileSystem(_ filesystem: Filesystem, _ format: Storage.DiskFormat) async throws
    {
        let disk = Disk(path: folder.path + "/volume", format: format)
        let bytes: Int64 = 512 << 20
        try await disk.create(
            filesystem, bytes: bytes, label: "a-name-of-20-letters", uuid: uuid)
        #expect(try await disk.size() == bytes)
        #expect(try Files.list(folder.path) == ["volume"])
        let found = try await probe(try await raw(disk))
        #expect(found["TYPE"] == filesystem.rawValue)
        let label: [Filesystem: String] = [
            .ext4: "a-name-of-20-let", .xfs: "a-name-of-20", .btrfs: "a-name-of-20-letters",
            .vfat: "A-NAME-OF-2",
        ]
        #expect(found["LABEL"] == label[filesystem])
        #expect(found["UUID"] == (filesystem == .vfat ? "6E0B-C1F2" : uuid))
        // Sparse: a file takes next to nothing until the guest writes, but for XFS's log.
        let most: Int64 = filesystem == .xfs && format == .raw ? 100 << 20 : 8 << 20
        #expect(try Files.status(disk.path).allocated < most)
    }

    @Test func aFileSystemWithoutItsToolIsSaidByPackage() async throws {
        let maker = Maker(.btrfs, label: "x", uuid: uuid, bytes: 1 << 30, isZeroed: true)
        #expect(maker.package == "btrfs-progs")
        #expect(
            throws: StorageError.missingTool(name: "mkfs.nonsense", package: "btrfs-progs")
        ) { _ = try tool("mkfs.nonsense", package: maker.package) }
    }

    @Test(arguments: ["snapshot", "bitmap"])
    func growsWithSnapshotsAndBitmapsInIt(_ what: String) async throws {
        let disk = Disk(path: folder.path + "/data.qcow2", format: .qcow2)
        try await disk.create(bytes: 1 << 28, label: "data", uuid: uuid)
        let words =
            what == "snapshot"
            ? ["snapshot", "-c", "martlet-one", disk.path]
            : ["bitmap", "--add", disk.path, "martlet-one"]
        try await must("qemu-img", words)
        try await disk.grow(to: 1 << 29)
        #expect(try await disk.size() == 1 << 29)
        let info = try await must("qemu-img", ["info", disk.path])
        #expect(info.contains("martlet-one"))
        try await must("qemu-img", ["check", "-q", disk.path])
    }

    /// As `up` does it with a guest that runs: snapshots and backups must not stand in the way.
    @Test func growsWhileItIsInUse() async throws {
        let disk = Disk(path: folder.path + "/data.qcow2", format: .qcow2)
        try await disk.create(bytes: 1 << 28, label: "data", uuid: uuid)
        let commands = [
            #"{"execute": "qmp_capabilities"}"#,
            #"{"execute": "blockdev-snapshot-internal-sync", "arguments": {"device": "d", "name": "martlet-one"}}"#,
            #"{"execute": "block-dirty-bitmap-add", "arguments": {"node": "d", "name": "b", "persistent": true}}"#,
            #"{"execute": "block_resize", "arguments": {"node-name": "d", "size": 536870912}}"#,
            #"{"execute": "quit"}"#,
        ]
        let program = Program(
            try #require(findProgram("qemu-system-x86_64")),
            [
                "-machine", "none", "-S", "-nodefaults", "-display", "none", "-qmp", "stdio",
                "-blockdev", "driver=qcow2,node-name=d,file.driver=file,file.filename=\(disk.path)",
            ])
        let output = try await program.capture(
            input: Array(commands.map { $0 + "\n" }.joined().utf8))
        #expect(!output.text.contains("error"), "\(output.text)\(output.errorText)")
        #expect(try await disk.size() == 1 << 29)
        try await must("qemu-img", ["check", "-q", disk.path])
        let info = try await must("qemu-img", ["info", disk.path])
        #expect(info.contains("martlet-one") && info.contains("name: b"), "\(info)")
    }

    /// The VM's own user may have put anything into its folder.
    @Test(.enabled(if: getuid() == 0)) func linksLeadNowhere() async throws {
        let user: UInt32 = 61_234
        try Files.setOwner(folder.path, user: user, group: user)
        let secret = "/tmp/martlet-secret-\(getpid())"
        try Files.write(secret, [UInt8](repeating: 7, count: 4096), mode: 0o600)
        defer { try? Files.remove(secret) }
        let disk = Disk(path: folder.path + "/volume.raw", format: .raw, user: user)
        #expect(symlink(secret, disk.path) == 0)
        await #expect(throws: StorageError.self) { try await disk.grow(to: 1 << 20) }
        #expect(try Files.status(secret).size == 4096)
        // A disk that says it stands upon another file is opened by its owner, who cannot.
        let bad = Disk(path: folder.path + "/bad.qcow2", format: .qcow2, user: user)
        try await must(
            "qemu-img",
            ["create", "-q", "-f", "qcow2", "-o", "data_file=\(secret)", bad.path, "4096"])
        try Files.write(secret, [UInt8](repeating: 7, count: 4096), mode: 0o600)
        try Files.setOwner(bad.path, user: user, group: user)
        await #expect(throws: StorageError.self) { try await bad.grow(to: 1 << 20) }
        #expect(try Files.status(secret).size == 4096)
        // What is made belongs to the user, and is made as that user.
        let good = Disk(path: folder.path + "/good.qcow2", format: .qcow2, user: user)
        try await good.create(bytes: 1 << 26, label: "good", uuid: uuid)
        #expect(try Files.status(good.path).owner == user)
        try await good.grow(to: 1 << 27)
        #expect(try await good.size() == 1 << 27)
    }

    /// The disk's blocks in a file that other programs can look at.
    private func raw(_ disk: Disk) async throws -> String {
        guard disk.format == .qcow2 else { return disk.path }
        let path = folder.path + "/as-raw"
        try await must("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", disk.path, path])
        return path
    }
}

let uuid = "6e0bc1f2-6b0e-4a6e-8f0b-0123456789ab"

/// Runs a program that must succeed, and returns what it printed.
@discardableResult
func must(
    _ name: String, _ arguments: [String], location: SourceLocation = #_sourceLocation
) async throws -> String {
    let output = try await Program(try #require(findProgram(name)), arguments).capture()
    #expect(
        output.exit == .code(0), "\(name) \(arguments): \(output.errorText)",
        sourceLocation: location)
    return output.text
}

/// What `blkid` finds on a disk.
func probe(_ path: String) async throws -> [String: String] {
    let text = try await must("blkid", ["-p", "-o", "export", path])
    return text.split(separator: "\n").reduce(into: [:]) { result, line in
        let parts = line.split(separator: "=", maxSplits: 1)
        if parts.count == 2 { result[String(parts[0])] = String(parts[1]) }
    }
}
