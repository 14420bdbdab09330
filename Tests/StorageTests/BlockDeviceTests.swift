// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Storage

/// Devices of the host, as loop devices over files.
@Suite(.enabled(if: getuid() == 0, "loop devices need root"), .timeLimit(.minutes(20)))
final class BlockDeviceTests {
    let folder: TemporaryFolder
    private var loops: [String] = []

    init() throws { folder = try TemporaryFolder() }

    deinit {
        for loop in loops {
            let arguments = ["-d", loop]
            _ = try? Program(findProgram("losetup") ?? "", arguments).spawn().waitBlocking()
        }
    }

    @Test(arguments: Filesystem.allCases)
    func aBlankDeviceIsFormattedAndKnownAgain(_ filesystem: Filesystem) async throws {
        let device = BlockDevice(try await attach(bytes: 512 << 20))
        #expect(try device.size() == 512 << 20)
        #expect(try await device.content() == .blank)
        try await device.make(filesystem, label: "tank", uuid: try freshUUID())
        guard case .filesystem(let type, _) = try await device.content() else {
            Issue.record("no file system")
            return
        }
        #expect(type == filesystem.rawValue)
        try device.checkFree(readOnly: false)
    }

    @Test func whatIsNotBlankIsSeen() async throws {
        // No signature, but bytes at the end: somebody's data all the same.
        let path = try await attach(bytes: 16 << 20)
        let device = BlockDevice(path)
        try await must("qemu-io", ["-f", "raw", "-c", "write -P 1 16776704 512", path])
        #expect(try await device.content() == .other(BlockDevice.unknownData))
        try await must("qemu-io", ["-f", "raw", "-c", "write -P 0 16776704 512", path])
        #expect(try await device.content() == .blank)
        // Swap, and anything else that is no file system.
        try await must("mkswap", [path])
        #expect(try await device.content() == .other("swap (other)"))
    }

    @Test func aMountedDeviceIsRefusedWithThePlace() async throws {
        for filesystem in [Filesystem.ext4, .btrfs] {
            let path = try await attach(bytes: 128 << 20)
            let device = BlockDevice(path)
            try await device.make(filesystem, label: "tank", uuid: try freshUUID())
            let place = folder.path + "/mounted-\(filesystem.rawValue)"
            try Files.makeFolder(place)
            try await must("mount", [path, place])
            let error = #expect(throws: StorageError.self) {
                try device.checkFree(readOnly: false)
            }
            #expect(error?.description.contains("mounted on \(place)") == true, "\(error as Any)")
            #expect(throws: StorageError.self) { try device.checkFree(readOnly: true) }
            try await must("umount", [place])
            // Whoever made a mount namespace meanwhile has it for as long as he lives.
            let patience = ContinuousClock.now + .seconds(120)
            while (try? device.checkFree(readOnly: false)) == nil, .now < patience {
                try await Task.sleep(for: .milliseconds(50))
            }
            try device.checkFree(readOnly: false)
            // While a guest has it, the host cannot mount it.
            let held = try device.open(readOnly: false)
            let mount = try await Program(
                try #require(findProgram("mount")), [path, place]
            ).capture()
            #expect(mount.exit != .code(0))
            #expect(throws: StorageError.self) { try device.checkFree(readOnly: false) }
            _ = consume held
        }
    }

    @Test func onlyABlankDeviceIsFilled() async throws {
        let path = try await attach(bytes: 16 << 20)
        let device = BlockDevice(path)
        let raw = folder.path + "/raw"
        try Files.makeSparse(raw, bytes: 16 << 20)
        try await must("mkfs.ext4", ["-q", "-F", "-L", "kept", raw])
        try await must("qemu-io", ["-f", "raw", "-c", "write -P 7 9M 64k", raw])
        #expect(try await device.fill(from: raw))
        try await must("cmp", [raw, path])
        // Not over what it holds now.
        try await must("qemu-io", ["-f", "raw", "-c", "write -P 8 9M 64k", raw])
        #expect(try await !device.fill(from: raw))
        try await must("qemu-io", ["-f", "raw", "-c", "read -P 7 9M 64k", path])
        // Nor onto one that is too small, of which nothing is changed then.
        let small = BlockDevice(try await attach(bytes: 8 << 20))
        await #expect(throws: StorageError.self) { try await small.fill(from: raw) }
        #expect(try await small.content() == .blank)
    }

    @Test func aDeviceMayBeReadTwice() async throws {
        let device = BlockDevice(try await attach(bytes: 16 << 20))
        let one = try device.open(readOnly: true)
        let two = try device.open(readOnly: true)
        #expect(one.raw != two.raw)
    }

    @Test func whatIsNoDeviceIsRefused() throws {
        let file = folder.path + "/file"
        try Files.write(file, "no device")
        for (path, reason) in [(file, "no block device"), (file + "2", "does not exist")] {
            let error = #expect(throws: StorageError.self) {
                try BlockDevice(path).checkFree(readOnly: false)
            }
            #expect(error?.description.contains(reason) == true)
        }
    }

    @Test(
        arguments: [
            ("", BlockDevice.Content.blank),
            ("DEVNAME=/dev/sdb1\nPART_ENTRY_SCHEME=gpt\nPART_ENTRY_NUMBER=1\n", .blank),
            ("UUID=1-2\nTYPE=ext4\nUSAGE=filesystem\n", .filesystem(type: "ext4", uuid: "1-2")),
            ("TYPE=LVM2_member\nUSAGE=raid\n", .other("LVM2_member (raid)")),
            ("TYPE=crypto_LUKS\nUSAGE=crypto\n", .other("crypto_LUKS (crypto)")),
            ("PTUUID=x\nPTTYPE=gpt\n", .other("a partition table (gpt)")),
        ]) func readsWhatBlkidPrints(text: String, content: BlockDevice.Content)
    {
        #expect(BlockDevice.content(export: text) == content)
    }

    private func attach(bytes: Int64) async throws -> String {
        let file = folder.path + "/disk-\(loops.count)"
        try Files.makeSparse(file, bytes: bytes)
        let path = try await must("losetup", ["--find", "--show", file])
        let loop = String(path.prefix { $0 != "\n" })
        loops.append(loop)
        return loop
    }

    /// mkfs.btrfs refuses one that another device has.
    private func freshUUID() throws -> String {
        String(try Files.readText("/proc/sys/kernel/random/uuid").prefix { $0 != "\n" })
    }
}
