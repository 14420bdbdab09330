// SPDX-License-Identifier: Apache-2.0

/// Letters and digits of ASCII.
func isLetterOrDigit(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"):
        true
    default: false
    }
}

/// What tags, credential names and the like are made of.
func isWordByte(_ byte: UInt8) -> Bool {
    isLetterOrDigit(byte) || byte == UInt8(ascii: "-") || byte == UInt8(ascii: "_")
        || byte == UInt8(ascii: ".")
}

/// Whether each `x` of the pattern is a hexadecimal digit and everything else is as it stands.
func isHexPattern(_ text: String, _ pattern: String) -> Bool {
    text.utf8.count == pattern.utf8.count
        && zip(text.utf8, pattern.utf8).allSatisfy { byte, expected in
            expected == UInt8(ascii: "x")
                ? Character(Unicode.Scalar(byte)).isHexDigit : byte == expected
        }
}

/// A host name of RFC 1123: labels of letters, digits and inner hyphens, at most 253 bytes.
func isHostName(_ text: some StringProtocol) -> Bool {
    let labels = text.pieces(".")
    return text.utf8.count <= 253
        && labels.allSatisfy { label in
            (1...63).contains(label.utf8.count) && !label.hasPrefix("-") && !label.hasSuffix("-")
                && label.utf8.allSatisfy { isLetterOrDigit($0) || $0 == UInt8(ascii: "-") }
        }
}

/// A name of a VM, network, volume and so on: a-z, 0-9 and inner hyphens, at most 32 characters.
package func isName(_ text: String) -> Bool {
    (1...32).contains(text.utf8.count) && !text.hasPrefix("-") && !text.hasSuffix("-")
        && text.utf8.allSatisfy {
            isLetterOrDigit($0) && !(UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0)
                || $0 == UInt8(ascii: "-")
        }
}

extension StringProtocol {
    /// The parts between separators, empty ones too; by bytes, which is far faster than by
    /// characters and the same for separators of ASCII.
    func pieces(_ separator: Unicode.Scalar) -> [Substring] {
        Substring(self).utf8.split(
            separator: UInt8(ascii: separator), omittingEmptySubsequences: false
        ).map { Substring($0) }
    }
}
