// SPDX-License-Identifier: Apache-2.0
import Fleets

/// Lines longer than this are broken up where that is possible.
private let width = 100

/// A document as YAML that a person would write: entries in blocks, small things in one line.
func yamlText(_ document: JSONValue) -> String {
    var out = ""
    for section in document.members {
        guard case .object(let entries) = section.value, !entries.isEmpty else { continue }
        out += "\(scalar(section.key)):\n"
        for entry in entries {
            if section.key == "vms", !entry.value.members.isEmpty {
                out += "  \(scalar(entry.key)):\n"
                for member in entry.value.members { out += block(member, indent: 4) }
            } else {
                out += block(entry, indent: 2)
            }
        }
    }
    return out
}

/// A text as lines of a comment; it cannot get out of it, whatever it holds.
func yamlComment(_ text: String) -> String {
    let printable = String(
        String.UnicodeScalarView(text.unicodeScalars.map { isPrintable($0) ? $0 : "?" }))
    if printable.isEmpty { return "#\n" }
    let isItem = printable.hasPrefix("- ")
    var lines: [String] = []
    var line = ""
    for word in printable.split(separator: " ") {
        if !line.isEmpty, line.count + word.count + 3 > width {
            lines.append(line)
            line = isItem ? "  " + word : String(word)
        } else {
            line += (line.isEmpty ? "" : " ") + word
        }
    }
    return (lines + [line]).map { "# \($0)\n" }.joined()
}

private func block(_ member: JSONValue.Member, indent: Int) -> String {
    let spaces = String(repeating: " ", count: indent)
    let line = "\(spaces)\(scalar(member.key)): \(flow(member.value))"
    if line.count <= width { return line + "\n" }
    switch member.value {
    case .array(let items) where !items.isEmpty:
        return "\(spaces)\(scalar(member.key)):\n"
            + items.map { "\(spaces)  - \(flow($0))\n" }.joined()
    case .object(let members) where !members.isEmpty:
        return "\(spaces)\(scalar(member.key)):\n"
            + members.map { block($0, indent: indent + 2) }.joined()
    default: return line + "\n"
    }
}

private func flow(_ value: JSONValue) -> String {
    switch value {
    case .string(let text): scalar(text)
    case .array(let items): "[" + items.map(flow).joined(separator: ", ") + "]"
    case .object(let members):
        members.isEmpty
            ? "{}"
            : "{ " + members.map { "\(scalar($0.key)): \(flow($0.value))" }.joined(separator: ", ")
                + " }"
    default: value.text()
    }
}

/// A text as it can stand anywhere: plain where every reader takes it for a text, else in quotes.
private func scalar(_ text: String) -> String {
    if isPlain(text) { return text }
    var out = "\""
    for character in text.unicodeScalars {
        switch character {
        case "\"": out += "\\\""
        case "\\": out += "\\\\"
        case "\n": out += "\\n"
        case "\t": out += "\\t"
        case _ where isPrintable(character): out.unicodeScalars.append(character)
        default:
            let digits = String(character.value, radix: 16)
            out += "\\U" + String(repeating: "0", count: 8 - digits.count) + digits
        }
    }
    return out + "\""
}

private let words: Set<String> = [
    "true", "false", "yes", "no", "on", "off", "null", "y", "n", "inf", "nan",
]

private func isPlain(_ text: String) -> Bool {
    guard let first = text.utf8.first, !words.contains(text.lowercased()) else { return false }
    let isDigit = (0x30...0x39).contains(first)
    guard isDigit || first == UInt8(ascii: "/") || isLetter(first) else { return false }
    // What begins with a digit may be a number, a date or a time to one reader or another.
    if isDigit, Percent(text) == nil {
        guard text.hasSuffix("iB") || text.hasSuffix("iB/s") || text.hasSuffix("bit/s") else {
            return CIDR(text) != nil || IPv4(text) != nil
        }
    }
    return text.utf8.allSatisfy {
        isLetter($0) || (0x30...0x39).contains($0) || "/._-+@=%".utf8.contains($0)
    }
}

private func isLetter(_ byte: UInt8) -> Bool { (0x61...0x7A).contains(byte | 0x20) }

/// What YAML lets stand in a document, without what ends a line or marks an order of bytes.
private func isPrintable(_ character: Unicode.Scalar) -> Bool {
    switch character.value {
    case 0x20...0x7E, 0xA0...0x2027, 0x202A...0xD7FF, 0xE000...0xFEFE, 0xFF00...0xFFFD,
        0x10000...0x10FFFF:
        true
    default: false
    }
}
