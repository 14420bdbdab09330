// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// What a VM says and what happens to it, in two files of bounded size: the current one and the
/// one before.
final class BoundedLog {
    private let path: String
    private let limit: Int
    private var file: Descriptor
    private var size: Int

    /// Opens the log, going on where it ended; each file holds up to `limit` bytes.
    init(_ path: String, limit: Int) throws(SystemError) {
        self.path = path
        self.limit = limit
        file = try BoundedLog.open(path)
        size = Int(try Files.status(path).size)
    }

    /// Writes to the log; a full disk loses the log, not the VM.
    func append(_ bytes: [UInt8]) {
        if size + bytes.count > limit {
            do throws(SystemError) {
                try Files.rename(path, path + ".1")
                file = try BoundedLog.open(path)
                size = 0
            } catch {
                // Without a new file, start over in the old one: the bound holds.
                ftruncate(file.raw, 0)
                size = 0
            }
        }
        size += bytes.count
        try? file.write(bytes)
    }

    private static func open(_ path: String) throws(SystemError) -> Descriptor {
        try Descriptor.open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, mode: 0o640)
    }
}
