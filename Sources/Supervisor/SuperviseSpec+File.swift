// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Hypervisors
import Linux

/// The JSON of a record, members sorted by name so that equal values give equal bytes.
func encoded(_ value: some Encodable) throws -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return [UInt8](try encoder.encode(value)) + [10]
}

extension SuperviseSpec {
    /// Reads the file that `prepare` wrote.
    package static func read(_ path: String) throws -> SuperviseSpec {
        let bytes = try Files.read(path, limit: 4 << 20)
        do {
            return try JSONDecoder().decode(SuperviseSpec.self, from: Data(bytes))
        } catch {
            throw StartError.failed(
                "\(path) is not what this version of martlet writes: run `martlet up` again")
        }
    }

    /// Writes the file for `supervise`; `mode` decides whether the VM's own user may read it.
    package func write(_ path: String, mode: UInt32 = 0o644) throws {
        try Files.write(path, encoded(self), mode: mode)
    }
}
