// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Storage
import Supervisor
import Testing

/// What a disk should hold, byte by byte, kept beside it by whoever writes to it.
struct DiskModel: Sendable {
    var bytes: [UInt8]

    enum Write: Sendable, CustomStringConvertible {
        case fill(UInt8, at: Int64, bytes: Int64)
        case zero(at: Int64, bytes: Int64)
        case discard(at: Int64, bytes: Int64)

        var description: String {
            switch self {
            case .fill(let pattern, let offset, let bytes): "\(pattern) \(offset)+\(bytes)"
            case .zero(let offset, let bytes): "zero \(offset)+\(bytes)"
            case .discard(let offset, let bytes): "discard \(offset)+\(bytes)"
            }
        }
    }

    mutating func apply(_ write: Write) {
        func fill(_ pattern: UInt8, _ offset: Int64, _ count: Int64) {
            bytes.withUnsafeMutableBytes { buffer in
                guard let start = buffer.baseAddress else { return }
                memset(start + Int(offset), Int32(pattern), Int(count))
            }
        }
        switch write {
        case .fill(let pattern, let offset, let count): fill(pattern, offset, count)
        case .zero(let offset, let count), .discard(let offset, let count): fill(0, offset, count)
        }
    }

    /// In a moment, which `==` of unoptimised code is not.
    func isEqual(to other: [UInt8]) -> Bool {
        guard bytes.count == other.count else { return false }
        return bytes.withUnsafeBytes { mine in
            other.withUnsafeBytes { theirs in
                guard let one = mine.baseAddress, let two = theirs.baseAddress else { return true }
                return memcmp(one, two, mine.count) == 0
            }
        }
    }

    /// The first byte that differs; nil when all is the same.
    func difference(from other: [UInt8]) -> String? {
        if isEqual(to: other) { return nil }
        if bytes.count != other.count { return "\(other.count) bytes, not \(bytes.count)" }
        let place = bytes.indices.first { bytes[$0] != other[$0] } ?? 0
        return "at \(place): \(other[place]), not \(bytes[place])"
    }
}

/// Random numbers that a seed repeats.
struct Dice: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// A write of up to 256 KiB somewhere, often at odd places.
    mutating func write(within bytes: Int64) -> DiskModel.Write {
        let unit: Int64 = [512, 4096, 65536].randomElement(using: &self) ?? 512
        let count = Int64.random(in: 1...max(1, min(262_144 / unit, 64)), using: &self) * unit
        let offset = Int64.random(in: 0...((bytes - count) / unit), using: &self) * unit
        switch Int.random(in: 0..<10, using: &self) {
        case 0: return .zero(at: offset, bytes: count)
        // A discard of less than a cluster may leave the data.
        case 1: return .discard(at: offset / 65536 * 65536, bytes: 65536)
        default: return .fill(UInt8.random(in: 1...255, using: &self), at: offset, bytes: count)
        }
    }
}

extension BlockGuest {
    func apply(_ write: DiskModel.Write, to disk: String = "data") async throws {
        switch write {
        case .fill(let pattern, let offset, let count):
            try await self.write(pattern, at: offset, bytes: count, to: disk)
        case .zero(let offset, let count): try await zero(at: offset, bytes: count, on: disk)
        case .discard(let offset, let count):
            try await discard(at: offset, bytes: count, on: disk)
        }
    }
}

extension World {
    /// Writes to a disk that nobody uses.
    func write(_ write: DiskModel.Write, to path: String, format: String = "qcow2") async throws {
        let command =
            switch write {
            case .fill(let pattern, let offset, let count): "write -P \(pattern) \(offset) \(count)"
            case .zero(let offset, let count): "write -z -u \(offset) \(count)"
            case .discard(let offset, let count): "discard \(offset) \(count)"
            }
        let output = try await Program(
            "/usr/bin/qemu-io", ["-f", format, "-d", "unmap", "-c", command, path]
        ).capture()
        try #require(output.exit.isSuccess, "\(command): \(output.text)\(output.errorText)")
    }

    /// All bytes of a disk that nobody uses.
    func content(of path: String, format: String = "qcow2") async throws -> [UInt8] {
        let copy = "\(folder)/content-\(randomHex(8))"
        defer { try? Files.remove(copy) }
        let arguments = ["convert", "-f", format, "-O", "raw", path, copy]
        let output = try await Program("/usr/bin/qemu-img", arguments).capture()
        try #require(output.exit.isSuccess, "\(output.errorText)")
        return try Files.read(copy, limit: 1 << 30)
    }

    func backups(_ name: String, _ words: String...) async throws -> [JSONValue] {
        let output = try await program(["backup", "list", name, "--json"] + words).capture()
        try #require(output.exit == .code(0), "\(output.text)\(output.errorText)")
        return try JSONValue(parsing: output.standardOutput).elements
    }

    /// A disk as a backup holds it, put together from the archives alone.
    func unpacked(
        _ name: String, _ id: String? = nil, disk: String = "data", in target: String? = nil,
        identity: String? = nil
    ) async throws -> [UInt8] {
        let target = FolderTarget(target ?? layout.backups)
        let all = try await target.list(name)
        let record = try await target.find(id, of: name)
        let folder = "\(folder)/unpacked-\(randomHex(8))"
        try Files.makeFolder(folder)
        defer { try? Files.remove(folder) }
        let chain = try BackupChain(record, in: target, among: all, identity: identity)
        _ = try chain.unpack(into: folder, isCancelled: { false }, progress: { _ in })
        return try Files.read(BackupChain.file(disk, in: folder), limit: 1 << 30)
    }

    /// Waits until the guest's agent answers.
    func agent(_ name: String) async throws {
        try await until("agent of \(name)") { try await guest(name).control.status().agent }
    }
}
