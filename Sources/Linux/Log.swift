// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Messages for people and journals: one `write` per line to standard error.
///
/// Passed in where it is needed, never global; results go to standard output, not here.
package struct Log: Sendable {
    package enum Level: Int, Sendable {
        case error = 3
        case warning = 4
        case info = 6
        case debug = 7
    }

    private let descriptor: Int32
    private let threshold: Level
    private let journal: Bool
    private let limit: Int64?

    /// A log on a descriptor; one with a limit never grows beyond so many bytes where it is a file.
    ///
    /// It then loses its older half: what a guest can make us say must not fill the host's disk. That
    /// is for a file opened with O_RDWR and O_APPEND: one that a shell's `2>>` opened is somebody's own.
    package init(
        descriptor: Int32 = 2, threshold: Level = .info, journal: Bool? = nil, limit: Int64? = nil
    ) {
        self.limit = limit
        self.descriptor = descriptor
        self.threshold = threshold
        self.journal = journal ?? (environment("JOURNAL_STREAM") != nil)
    }

    package func error(_ message: String) { put(.error, message) }
    package func warning(_ message: String) { put(.warning, message) }
    package func info(_ message: String) { put(.info, message) }
    package func debug(_ message: String) { put(.debug, message) }

    private func put(_ level: Level, _ message: String) {
        guard level.rawValue <= threshold.rawValue else { return }
        // The journal reads <N> as the priority of the line.
        let prefix = journal ? "<\(level.rawValue)>" : ""
        // Nowhere is left to report a log that cannot be written.
        try? write(descriptor, (prefix + message + "\n").utf8)
        trim()
    }

    /// Keeps the last half of a file that has grown beyond the limit, from the first whole line on.
    ///
    /// The corresponding C functions are `fstat`, `pread` and `ftruncate`.
    private func trim() {
        let own = O_RDWR | O_APPEND
        var info = stat()
        guard let limit, fstat(descriptor, &info) == 0, info.st_mode & S_IFMT == S_IFREG,
            info.st_size > limit, fcntl(descriptor, F_GETFL) & (O_ACCMODE | O_APPEND) == own
        else { return }
        var tail = [UInt8](repeating: 0, count: Int(limit / 2))
        let count = pread(descriptor, &tail, tail.count, info.st_size - off_t(tail.count))
        let lines = tail.prefix(max(0, count)).drop { $0 != 10 }.dropFirst()
        guard ftruncate(descriptor, 0) == 0 else { return }
        try? write(descriptor, "(what came before was dropped)\n".utf8 + lines)
    }
}
