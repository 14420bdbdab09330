// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Linux
import Supervisor
import Testing

/// Writes to the disks of a running VM as its guest would: for worlds with `qemu` in their behaviour.
///
/// A write that is not flushed may be lost with the host's power, and with the hypervisor where
/// the disk is qcow2 (its tables are in memory). See `BlockVMM` for what waits when.
struct BlockGuest: Sendable {
    let control: ControlClient

    struct Failed: Error, CustomStringConvertible {
        let description: String
    }

    /// One command of `qemu-io` on the device of a disk; returns what it printed.
    @discardableResult
    func io(_ disk: String, _ command: String) async throws -> String {
        let device = "/machine/peripheral/disk-\(disk)-dev/virtio-backend"
        let said = try await control.hypervisor(
            "human-monitor-command",
            ["command-line": .string("qemu-io -d \(device) \"\(command)\"")]
        ).string
        return said ?? ""
    }

    /// Fills a range with one byte.
    func write(
        _ pattern: UInt8, at offset: Int64, bytes: Int64 = 65536, to disk: String = "data",
        flush: Bool = false
    ) async throws {
        try await change(disk, "write -P \(pattern) \(offset) \(bytes)", "wrote", bytes)
        if flush { try await self.flush(disk) }
    }

    func zero(at offset: Int64, bytes: Int64 = 65536, on disk: String = "data") async throws {
        try await change(disk, "write -z -u \(offset) \(bytes)", "wrote", bytes)
    }

    /// What is read there afterwards is zeros.
    func discard(at offset: Int64, bytes: Int64 = 65536, on disk: String = "data") async throws {
        try await change(disk, "discard \(offset) \(bytes)", "discard", bytes)
    }

    func flush(_ disk: String = "data") async throws {
        let said = try await io(disk, "flush")
        guard said.isEmpty else { throw Failed(description: "flush \(disk): \(said)") }
    }

    /// Whether a range holds this byte everywhere.
    func holds(
        _ pattern: UInt8, at offset: Int64, bytes: Int64 = 65536, on disk: String = "data"
    ) async throws -> Bool {
        let said = try await io(disk, "read -P \(pattern) \(offset) \(bytes)")
        guard said.contains("read \(bytes)/\(bytes) bytes") else {
            throw Failed(description: "read \(disk): \(said)")
        }
        return !said.contains("Pattern verification failed")
    }

    private func change(
        _ disk: String, _ command: String, _ word: String, _ bytes: Int64
    ) async throws {
        let said = try await io(disk, command)
        guard said.contains("\(word) \(bytes)/\(bytes) bytes") else {
            throw Failed(description: "\(command) on \(disk): \(said)")
        }
    }
}

extension World {
    func guest(_ name: String) -> BlockGuest {
        BlockGuest(control: ControlClient(layout.vm(name).controlSocket))
    }

    /// The first byte of each slot of 64 KiB of a disk file that nobody uses, or `nil` where a slot does
    /// not hold one byte everywhere.
    func slots(_ count: Int, of path: String, format: String = "qcow2") async throws -> [UInt8?] {
        let copy = "\(folder)/slots-\(randomHex(8))"
        defer { try? Files.remove(copy) }
        let arguments = ["convert", "-f", format, "-O", "raw", path, copy]
        let output = try await Program("/usr/bin/qemu-img", arguments).capture()
        guard output.exit.isSuccess else { throw BlockGuest.Failed(description: output.errorText) }
        let file = try Descriptor.open(copy, 0)
        return try (0..<count).map { _ in
            var slot: [UInt8] = []
            while slot.count < 65536 {
                let part = try file.read(65536 - slot.count)
                if part.isEmpty { break }
                slot += part
            }
            return slot.count == 65536 && slot.allSatisfy { $0 == slot[0] } ? slot[0] : nil
        }
    }

    /// What `qemu-img check` says against a qcow2 file that nobody uses; nil for one that is whole.
    func damage(of path: String) async throws -> String? {
        let output = try await Program("/usr/bin/qemu-img", ["check", "-f", "qcow2", path])
            .capture()
        // Clusters that nobody refers to (3) lose nothing; martlet reclaims them at a start.
        return [.code(0), .code(3)].contains(output.exit) ? nil : output.text + output.errorText
    }
}
