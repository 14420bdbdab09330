// SPDX-License-Identifier: Apache-2.0
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

    package init(descriptor: Int32 = 2, threshold: Level = .info, journal: Bool? = nil) {
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
    }
}
