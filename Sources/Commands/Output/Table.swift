// SPDX-License-Identifier: Apache-2.0

/// Rows under headers, columns aligned by what they take on a screen.
package struct Table: Sendable {
    package struct Column: Sendable, ExpressibleByStringLiteral {
        let title: String
        let isNumber: Bool

        package init(stringLiteral title: String) { self.init(title, isNumber: false) }
        private init(_ title: String, isNumber: Bool) {
            self.title = title
            self.isNumber = isNumber
        }

        /// A column whose values stand at its right edge.
        package static func number(_ title: String) -> Column { Column(title, isNumber: true) }
    }

    package struct Cell: Sendable, ExpressibleByStringLiteral {
        let text: String
        let role: Terminal.Role?

        /// Nothing is shown as `-`, so that a row keeps its columns for a script, too.
        package init(_ text: String?, _ role: Terminal.Role? = nil) {
            self.text = text.flatMap { $0.isEmpty ? nil : visible($0) } ?? "-"
            self.role = role
        }
        package init(stringLiteral text: String) { self.init(text) }
    }

    package let columns: [Column]
    package private(set) var rows: [[Cell]] = []

    package init(_ columns: [Column]) { self.columns = columns }

    package mutating func add(_ cells: [Cell]) { rows.append(cells) }

    /// The text for a screen, or for a pipe: there nothing is cut off and nothing is coloured.
    package func text(for terminal: Terminal) -> String {
        var widths = columns.indices.map { index in
            rows.reduce(displayWidth(columns[index].title)) {
                max($0, displayWidth($1[index].text))
            }
        }
        if terminal.isTerminal { shrink(&widths, to: terminal.width) }
        let header = columns.map { Cell($0.title, .strong) }
        return ([header] + rows).map { line($0, widths, terminal) + "\n" }.joined()
    }

    /// Takes from the widest column until the line fits.
    private func shrink(_ widths: inout [Int], to width: Int) {
        var excess = widths.reduce(0, +) + 2 * (widths.count - 1) - width
        while excess > 0, let widest = widths.indices.max(by: { widths[$0] < widths[$1] }),
            widths[widest] > 8
        {
            widths[widest] -= 1
            excess -= 1
        }
    }

    private func line(_ cells: [Cell], _ widths: [Int], _ terminal: Terminal) -> String {
        var line = ""
        for (index, cell) in cells.enumerated() {
            let text = truncate(cell.text, to: widths[index])
            let gap = String(repeating: " ", count: widths[index] - displayWidth(text))
            let painted = terminal.paint(text, cell.role)
            let isLast = index == cells.count - 1
            line += columns[index].isNumber ? gap + painted : painted + (isLast ? "" : gap)
            if !isLast { line += "  " }
        }
        return line
    }
}

/// Cuts a text to a display width, with an ellipsis where something is missing.
func truncate(_ text: String, to width: Int) -> String {
    guard displayWidth(text) > width else { return text }
    var result = ""
    var used = 0
    for character in text {
        let next = displayWidth(String(character))
        if used + next > width - 1 { break }
        result.append(character)
        used += next
    }
    return result + "…"
}
