// SPDX-License-Identifier: Apache-2.0

extension JSONValue {
    /// The document as text: on one line, or indented by two spaces; no newline at the end.
    package func text(pretty: Bool = false) -> String {
        var out = ""
        write(into: &out, indent: pretty ? 0 : nil)
        return out
    }

    /// The value as a person would write it in the fleet file: `512MiB`, `[a, b]`, `{min: 1GiB}`.
    package var flow: String {
        switch self {
        case .string(let text): text
        case .array(let all): "[" + all.map(\.flow).joined(separator: ", ") + "]"
        case .object(let members):
            "{" + members.map { $0.key + ": " + $0.value.flow }.joined(separator: ", ") + "}"
        default: text()
        }
    }

    private func write(into out: inout String, indent: Int?) {
        switch self {
        case .null: out += "null"
        case .bool(let value): out += value ? "true" : "false"
        case .integer(let value): out += String(value)
        case .number(let value): out += value.isFinite ? String(value) : "null"
        case .string(let text): Self.quote(text, into: &out)
        case .array(let all):
            Self.list(all, "[", "]", into: &out, indent) { $0.write(into: &$1, indent: $2) }
        case .object(let members):
            Self.list(members, "{", "}", into: &out, indent) { member, out, inner in
                Self.quote(member.key, into: &out)
                out += inner == nil ? ":" : ": "
                member.value.write(into: &out, indent: inner)
            }
        }
    }

    private static func list<T>(
        _ all: [T], _ open: String, _ close: String, into out: inout String, _ indent: Int?,
        _ each: (T, inout String, Int?) -> Void
    ) {
        out += open
        let inner = indent.map { $0 + 1 }
        for (index, element) in all.enumerated() {
            if index > 0 { out += "," }
            if let inner { out += "\n" + String(repeating: "  ", count: inner) }
            each(element, &out, inner)
        }
        if let indent, !all.isEmpty { out += "\n" + String(repeating: "  ", count: indent) }
        out += close
    }

    private static func quote(_ text: String, into out: inout String) {
        out += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\r": out += "\\r"
            case "\t": out += "\\t"
            case "\u{0}"..."\u{1F}", "\u{7F}":
                let hex = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: out.unicodeScalars.append(scalar)
            }
        }
        out += "\""
    }
}
