// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// What is known about the screen behind a descriptor.
package struct Terminal: Sendable {
    package enum Role: String, Sendable {
        case error = "31"
        case warning = "33"
        case good = "32"
        case strong = "1"
        case muted = "2"
    }

    package let descriptor: Int32
    package let isTerminal: Bool
    package let hasColour: Bool

    package init(_ descriptor: Int32) {
        let isTerminal = isatty(descriptor) == 1
        let noColour = environment("NO_COLOR").map { !$0.isEmpty } ?? false
        self.init(
            descriptor, isTerminal: isTerminal,
            hasColour: isTerminal && !noColour && environment("TERM") != "dumb")
    }

    package init(_ descriptor: Int32, isTerminal: Bool, hasColour: Bool) {
        self.descriptor = descriptor
        self.isTerminal = isTerminal
        self.hasColour = hasColour
    }

    /// Columns of the screen; 80 when it is none.
    ///
    /// The corresponding C call is `ioctl(TIOCGWINSZ)`.
    package var width: Int { size.columns }

    /// Columns and rows of the screen.
    var size: (columns: Int, rows: Int) {
        var size = winsize()
        guard isTerminal, ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else {
            return (80, 24)
        }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    /// The text in the colour of its role, where there is colour.
    package func paint(_ text: String, _ role: Role?) -> String {
        guard hasColour, let role, !text.isEmpty else { return text }
        return "\u{1b}[\(role.rawValue)m\(text)\u{1b}[0m"
    }
}

/// Replaces control characters: what a guest or a file says must not steer the terminal.
package func visible(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: isControl) else { return text }
    return text.unicodeScalars.reduce(into: "") { result, scalar in
        if isControl(scalar) {
            result += "\\u{\(String(scalar.value, radix: 16))}"
        } else {
            result.unicodeScalars.append(scalar)
        }
    }
}

private func isControl(_ scalar: Unicode.Scalar) -> Bool {
    scalar.properties.generalCategory == .control
}

/// Columns that a text takes on a screen: wide characters take two, combining marks none.
package func displayWidth(_ text: String) -> Int {
    text.reduce(0) { sum, character in
        guard let first = character.unicodeScalars.first else { return sum }
        if first.value < 0x300 { return sum + 1 }
        let isEmoji = character.unicodeScalars.contains {
            $0.properties.isEmojiPresentation || $0.value == 0xfe0f
        }
        if isEmoji || wideRanges.contains(where: { $0.contains(first.value) }) { return sum + 2 }
        switch first.properties.generalCategory {
        case .nonspacingMark, .enclosingMark, .format: return sum
        default: return sum + 1
        }
    }
}

/// East Asian Width W and F, by block.
private let wideRanges: [ClosedRange<UInt32>] = [
    0x1100...0x115f, 0x2e80...0x303e, 0x3041...0x33ff, 0x3400...0x4dbf, 0x4e00...0x9fff,
    0xa000...0xa4cf, 0xa960...0xa97f, 0xac00...0xd7a3, 0xf900...0xfaff, 0xfe30...0xfe6f,
    0xff00...0xff60, 0xffe0...0xffe6, 0x1f300...0x1faff, 0x20000...0x3fffd,
]
