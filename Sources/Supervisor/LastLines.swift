// SPDX-License-Identifier: Apache-2.0

/// The last lines of a log, few and short, as people read them.
package struct LastLines: Sendable, Equatable {
    package static let most = 20
    static let longest = 200
    // Bytes, for a guest can say much, and few read it.
    private var kept: [ArraySlice<UInt8>] = []

    /// Takes in one line; one without a visible character is none.
    mutating func append(_ line: [UInt8]) {
        guard line.contains(where: { $0 > 0x20 && $0 != 0x7F }) else { return }
        kept.append(line.prefix(3 * LastLines.longest))
        if kept.count > LastLines.most { kept.removeFirst() }
    }

    /// Oldest first, without what steers a terminal.
    var lines: [String] { kept.map(LastLines.readable).filter { !$0.isEmpty } }

    private static func readable(_ line: ArraySlice<UInt8>) -> String {
        var text = String.UnicodeScalarView()
        var isEscaped = false
        for scalar in String(decoding: line, as: UTF8.self).unicodeScalars {
            switch scalar.value {
            // ESC [ 0 ; 32 m: a letter ends it.
            case 0x41...0x5A where isEscaped, 0x61...0x7A where isEscaped: isEscaped = false
            case 0x1B: isEscaped = true
            case _ where isEscaped: break
            case 0x09: text.append(" ")
            case 0..<0x20, 0x7F..<0xA0: break
            default: text.append(scalar)
            }
        }
        return String(String(text).prefix(longest))
    }

    /// What prints the end of a guest's journal; the agent itself writes a line for each check.
    static let journal = [
        "/bin/sh", "-c",
        "timeout 8 journalctl -b -q --no-pager -n 400 -o short | grep -v ' qemu-ga\\[' "
            + "| tail -n \(most)",
    ]
    /// Seconds that it may take.
    static let patience: Double = 12
}
