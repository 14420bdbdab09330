// SPDX-License-Identifier: Apache-2.0
import Linux
import Support
import Testing

@testable import Storage

@Suite(.timeLimit(.minutes(20))) struct DiskTests {
    let folder: TemporaryFolder

    init() throws { folder = try TemporaryFolder() }

    @Test(arguments: [DiskFormat.qcow2, .raw])
    func makesASparseDiskWithAFileSystemOnce(format: DiskFormat) async throws {
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

    private let uuid = "6e0bc1f2-6b0e-4a6e-8f0b-0123456789ab"
}
