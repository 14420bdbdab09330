// SPDX-License-Identifier: Apache-2.0

/// The help of one command, as the screen, the manual and the command reference show it.
package struct Help: Sendable {
    /// The commands from the root to the one that is described.
    package let path: [Command]

    package init(_ path: [Command]) { self.path = path }

    var command: Command { path[path.count - 1] }
    var commandLine: String { path.map(\.name).joined(separator: " ") }

    /// The text for a terminal of `width` columns; ends in a newline.
    package func text(width: Int = 80) -> String {
        let width = max(width, 50)
        var blocks: [[String]] = []
        func block(_ title: String, _ lines: [String]) {
            if !lines.isEmpty { blocks.append([title] + lines) }
        }
        let overview = [command.summary] + paragraphs(command.discussion)
        block(
            "OVERVIEW",
            overview.map { indent(wrap($0, width - 2)) }.joined(separator: [""]).map(\.self))
        block("USAGE", usage.flatMap { indent(wrapUsage($0, width - 2)) })
        for group in command.groups {
            let rows = group.commands.filter { !$0.isHidden }.map {
                (term: ([$0.name] + $0.aliases).joined(separator: ", "), text: $0.summary)
            }
            block(group.title.isEmpty ? "SUBCOMMANDS" : group.title, table(rows, width))
        }
        block("ARGUMENTS", table(arguments, width))
        block("OPTIONS", table(options, width))
        block("GLOBAL OPTIONS", table(globalOptions, width))
        for section in command.sections {
            block(section.title, table(section.rows, width))
        }
        block("EXAMPLES", exampleLines(width))
        let text = blocks.joined(separator: [""]).joined(separator: "\n") + "\n"
        // Declarations mark code with backticks, for the Markdown that is made of them.
        return String(text.map { $0 == "`" ? "'" : $0 })
    }

    /// The ways to write the command, without its name's explanation.
    var usage: [String] {
        guard command.groups.isEmpty else {
            let shared = command.parameters.isEmpty ? "" : " [OPTIONS]"
            return ["\(commandLine)\(shared) VERB ..."]
        }
        var words = [commandLine]
        let parameters = command.parameters
        words += parameters.filter { $0.kind == .argument }.map { argument in
            let shown = argument.placeholder + (argument.isRepeated ? "..." : "")
            return argument.isRequired ? shown : "[\(shown)]"
        }
        words += parameters.filter(\.isNamed).map { option in
            var shown = spelling(option)
            if option.isRepeated { shown += " ..." }
            return option.isRequired ? shown : "[\(shown)]"
        }
        words += parameters.filter { $0.kind == .rest }.map { rest in
            let shown = "-- \(rest.placeholder)..."
            return rest.isRequired ? shown : "[\(shown)]"
        }
        return [words.joined(separator: " ")]
    }

    var arguments: [(term: String, text: String)] {
        command.parameters(.argument, .rest).map(row)
    }

    /// Options of the command itself, `--help` last.
    var options: [(term: String, text: String)] {
        command.parameters.filter(\.isNamed).map(row)
            + [(term: "-h, --help", text: "Show this help.")]
    }

    /// Options of the commands above that the command takes as well.
    var globalOptions: [(term: String, text: String)] {
        path.dropLast().flatMap(\.parameters).filter(\.isNamed).map(row)
    }

    private func row(_ parameter: Parameter) -> (term: String, text: String) {
        var text = parameter.help
        // The spellings of a fixed choice are worth a sentence; other types say it themselves.
        if !parameter.spellings.isEmpty { text += " One of \(orList(parameter.spellings))." }
        if let fallback = parameter.fallback { text += " Default: \(fallback)." }
        switch parameter.kind {
        case .argument: return (parameter.placeholder, text)
        case .rest: return ("-- \(parameter.placeholder)", text)
        case .flag, .option:
            // A verb's own letter hides the same letter of a command above.
            let isHidden = command.parameters.contains {
                $0.short == parameter.short && $0.id != parameter.id
            }
            let short = parameter.short.flatMap { isHidden ? nil : "-\($0), " }
            return ((short ?? "    ") + spelling(parameter), text)
        }
    }

    private func exampleLines(_ width: Int) -> [String] {
        command.examples.flatMap { example in
            ["  \(example.line)"] + wrap(example.text, width - 6).map { "      \($0)" }
        }
    }
}

/// `--timeout TIME` or `--json`.
func spelling(_ parameter: Parameter) -> String {
    "--\(parameter.name)" + (parameter.kind == .option ? " \(parameter.placeholder)" : "")
}

/// The paragraphs of a text, which an empty line separates.
func paragraphs(_ text: String) -> [String] {
    text.split(separator: "\n", omittingEmptySubsequences: false)
        .split { $0.allSatisfy { $0 == " " } }
        .map { $0.joined(separator: " ") }
}

/// Breaks a text at spaces into lines of at most `width` characters; a longer word stands alone.
func wrap(_ text: String, _ width: Int) -> [String] {
    var lines: [String] = []
    var line = ""
    for word in text.split(separator: " ") {
        if line.isEmpty {
            line = String(word)
        } else if line.count + 1 + word.count <= width {
            line += " " + word
        } else {
            lines.append(line)
            line = String(word)
        }
    }
    return line.isEmpty ? lines : lines + [line]
}

/// Wraps a usage line between its parts, never inside brackets, further lines indented.
private func wrapUsage(_ usage: String, _ width: Int) -> [String] {
    // A no-break space holds a part together while it is wrapped.
    var depth = 0
    let glued = usage.map { character -> Character in
        if character == "[" { depth += 1 }
        if character == "]" { depth -= 1 }
        return depth > 0 && character == " " ? "\u{a0}" : character
    }
    let lines = wrap(String(glued), width - 4)
    return lines.enumerated().map { index, line in
        (index == 0 ? "" : "    ") + String(line.map { $0 == "\u{a0}" ? " " : $0 })
    }
}

private func indent(_ lines: [String]) -> [String] { lines.map { "  \($0)" } }

/// Two columns; a term too long for the first one gets a line of its own.
private func table(_ rows: [(term: String, text: String)], _ width: Int) -> [String] {
    let column = min(rows.map(\.term.count).max() ?? 0, 26)
    return rows.flatMap { row -> [String] in
        let text = wrap(row.text, max(width - column - 4, 20))
        let margin = String(repeating: " ", count: column + 4)
        let term = "  " + row.term
        if row.term.count > column { return [term] + text.map { margin + $0 } }
        let padding = String(repeating: " ", count: column + 4 - term.count)
        let first = text.first.map { term + padding + $0 } ?? term
        return [first] + text.dropFirst().map { margin + $0 }
    }
}
