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

    /// Which of the files that a start boots from is not what it was; nil when all are.
    ///
    /// Blocks for as long as it takes to read them, some 50 MB.
    var bootDamage: String? {
        for (path, wanted) in (bootFiles ?? [:]).sorted(by: { $0.key < $1.key }) {
            let found: String
            do { found = try SHA256.file(path) } catch { found = "unknown (\(error))" }
            if found != wanted {
                return "\(path) is damaged: its SHA-256 is \(found) instead of \(wanted)"
            }
        }
        return nil
    }
}
