// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// Cuts a byte stream into lines, in bounded memory whatever the other side sends.
package struct LineBuffer: Sendable {
    private var partial: [UInt8] = []
    private var skipping = false
    private let limit: Int

    /// Lines longer than `limit` bytes are dropped as a whole.
    package init(limit: Int) { self.limit = limit }

    /// Takes what was read and returns the lines that it completes, without their ends.
    ///
    /// A 0xFF byte starts over: it is the guest agent's mark in front of a reply that is in step.
    package mutating func append(_ bytes: some Collection<UInt8>) -> [[UInt8]] {
        var lines: [[UInt8]] = []
        for byte in bytes {
            switch byte {
            case 10:
                if !skipping, !partial.isEmpty { lines.append(partial) }
                // Not keeping the capacity gives the memory of one long reply back.
                partial = []
                skipping = false
            case 0xFF:
                partial = []
                skipping = false
            case 13 where !skipping:
                continue
            default:
                if skipping { continue }
                partial.append(byte)
                if partial.count > limit {
                    partial = []
                    skipping = true
                }
            }
        }
        return lines
    }
}

/// A JSON value as one line with its end.
package func line(_ value: JSONValue) -> [UInt8] { [UInt8](value.text().utf8) + [10] }
