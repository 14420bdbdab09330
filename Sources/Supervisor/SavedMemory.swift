// SPDX-License-Identifier: Apache-2.0
import Glibc
package import Linux

/// The memory of a suspended VM, and the disks that it belongs to.
package struct SavedMemory: Codable, Sendable, Equatable {
    /// Size of the file.
    package var bytes: Int64
    /// The disks at that moment, by path: memory that meets others destroys what is on them.
    package var disks: [String: DiskStamp]

    package init(bytes: Int64, disks: [String: DiskStamp]) {
        self.bytes = bytes
        self.disks = disks
    }
}

/// Which file a disk was, and when it was written last.
///
/// Not the time of its last change of owner or mode: a start sets both.
package struct DiskStamp: Codable, Sendable, Equatable {
    package var file: UInt64
    package var bytes: Int64
    /// Nanoseconds since 1970.
    package var written: Int64

    /// Nil where the system does not tell: for the devices of the host.
    ///
    /// The corresponding C function is `stat`.
    package static func of(_ path: String) throws(SystemError) -> DiskStamp? {
        var info = stat()
        try check("stat \(path)") { stat(path, &info) }
        guard info.st_mode & S_IFMT == S_IFREG else { return nil }
        return DiskStamp(
            file: UInt64(info.st_ino), bytes: Int64(info.st_size),
            written: Int64(info.st_mtim.tv_sec) * 1_000_000_000 + Int64(info.st_mtim.tv_nsec))
    }

    package static func all(_ paths: [String]) throws(SystemError) -> [String: DiskStamp] {
        var stamps: [String: DiskStamp] = [:]
        for path in paths { stamps[path] = try of(path) }
        return stamps
    }
}
