// SPDX-License-Identifier: Apache-2.0
package import Fleets
import FoundationEssentials
import Linux

/// Whose VM a folder is: `vm.json`.
struct VMRecord: Codable, Equatable {
    static let version = 1
    var version = VMRecord.version
    let name: String
    /// The fleet that declares it; a throw-away VM of `run` has none.
    let fleet: String?
    let createdAt: Int64
    /// The fleet whose secrets a throw-away copy of one of its VMs is given.
    var origin: String?
}

/// One applied configuration of a VM: `generations/N.json`.
package struct GenerationRecord: Codable, Equatable, Sendable {
    static let version = 1
    package var version = GenerationRecord.version
    package let number: Int
    package let appliedAt: Int64
    package let imageDigest: String
    package internal(set) var vm: VM
}

private struct RecordVersion: Decodable { let version: Int }

/// Reading and writing records: JSON with sorted keys, so that a difference is a change.
enum RecordFile {
    static func write(_ value: some Encodable, to path: String) throws {
        try Files.write(path, try encoded(value))
    }

    /// Reads a record of ours, or nil when there is none.
    static func read<R: Decodable>(
        _ type: R.Type, from path: String, newest version: Int
    ) throws(StoreError) -> R? {
        let bytes: [UInt8]
        do {
            bytes = try Files.read(path, limit: 1 << 20)
        } catch {
            if error.isMissing { return nil }
            throw .system(error)
        }
        // The version first: a record from a newer martlet need not have the fields we know.
        do {
            let decoder = JSONDecoder()
            let found = try decoder.decode(RecordVersion.self, from: Data(bytes)).version
            guard found <= version else { throw StoreError.newer(path: path, version: found) }
            return try decoder.decode(type, from: Data(bytes))
        } catch let error as StoreError {
            throw error
        } catch {
            throw .unreadable(path: path, reason: "it is not a record of martlet (\(error))")
        }
    }

    /// Reads a file that one run of martlet leaves for another, or nil when there is none.
    static func plain<R: Decodable>(_ type: R.Type, from path: String) throws -> R? {
        guard Files.exists(path) else { return nil }
        return try JSONDecoder().decode(type, from: Data(try Files.read(path, limit: 1 << 20)))
    }

    /// Reads a record that the VM's own user wrote: bounded, no links followed, and no harm in garbage.
    static func untrusted<R: Decodable>(_ type: R.Type, from path: String) -> R? {
        guard let bytes = try? Files.readUntrusted(path, limit: 1 << 20) else { return nil }
        return try? JSONDecoder().decode(type, from: Data(bytes))
    }
}

func encoded(_ value: some Encodable) throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return [UInt8](try encoder.encode(value)) + [10]
}
