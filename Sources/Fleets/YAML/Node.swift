// SPDX-License-Identifier: Apache-2.0

/// Where something stands: the number of the file in `Diagnostics.files`, line and column from 1.
package struct Mark: Sendable, Hashable {
    package var file: Int32
    package var line: Int32
    package var column: Int32

    package init(file: Int32 = 0, line: Int32 = 1, column: Int32 = 1) {
        self.file = file
        self.line = line
        self.column = column
    }
}

/// One node of a YAML document, with the place it was written at.
package final class Node: Sendable {
    package enum Content: Sendable {
        /// The text as written; `plain` tells `512` and `true` from `"512"` and `"true"`.
        case scalar(String, plain: Bool)
        case sequence([Node])
        case mapping([Entry])
    }

    package struct Entry: Sendable {
        package let name: String
        /// Where the key stands.
        package let mark: Mark
        package let value: Node
    }

    package let content: Content
    package let mark: Mark

    package init(_ content: Content, _ mark: Mark) {
        self.content = content
        self.mark = mark
    }

    /// The entries of a mapping; none for anything else.
    package var entries: [Entry] {
        if case .mapping(let entries) = content { entries } else { [] }
    }

    package subscript(name: String) -> Node? { entries.first { $0.name == name }?.value }

    /// Nothing was written: an empty value, `~` or `null`.
    package var isNull: Bool {
        guard case .scalar(let text, plain: true) = content else { return false }
        return text.isEmpty || text == "~" || text == "null" || text == "Null" || text == "NULL"
    }

    /// The node in words for "expected …, found …".
    var found: String {
        switch content {
        case .sequence: return "a list"
        case .mapping: return "a mapping"
        case .scalar(let text, let plain):
            if isNull { return "nothing" }
            let short = text.count > 40 ? text.prefix(40) + "…" : text[...]
            let shown = short.map { $0.isNewline ? " " : $0 }
            return plain ? "'\(String(shown))'" : "\"\(String(shown))\""
        }
    }

    /// A tree for a JSON document, so that records are read by the reader of the file.
    package convenience init(_ json: JSONValue) {
        let mark = Mark()
        switch json {
        case .string(let text): self.init(.scalar(text, plain: false), mark)
        case .array(let all): self.init(.sequence(all.map { Node($0) }), mark)
        case .object(let members):
            self.init(
                .mapping(
                    members.map { Entry(name: $0.key, mark: mark, value: Node($0.value)) }), mark)
        default: self.init(.scalar(json.text(), plain: true), mark)
        }
    }
}
