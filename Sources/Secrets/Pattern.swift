// SPDX-License-Identifier: Apache-2.0
import Glibc

/// An extended regular expression of POSIX.
///
/// Swift's own engine would make the program larger by the size of a room. What sops's engine
/// understands otherwise is refused: classes such as `\d`, and groups with a question mark.
/// The corresponding C functions are `regcomp` and `regexec`.
final class Pattern {
    private var compiled = regex_t()

    /// Nil for what is no expression, or another one elsewhere.
    init?(_ text: String) {
        let bytes = Array(text.utf8)
        let isForeign = zip(bytes, bytes.dropFirst()).contains { first, second in
            switch first {
            case UInt8(ascii: "\\"): isLetterOrDigit(second)
            case UInt8(ascii: "("): second == UInt8(ascii: "?")
            default: false
            }
        }
        guard !isForeign, regcomp(&compiled, text, REG_EXTENDED | REG_NOSUB) == 0 else {
            return nil
        }
    }

    deinit { regfree(&compiled) }

    /// Whether it is found anywhere in the text.
    func isFound(in text: String) -> Bool { regexec(&compiled, text, 0, nil, 0) == 0 }

    /// Whether the whole text is what the expression says.
    static func matches(_ expression: String, _ text: String) -> Bool {
        Pattern("^(\(expression))$")?.isFound(in: text) ?? false
    }
}

private func isLetterOrDigit(_ byte: UInt8) -> Bool {
    (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
}
