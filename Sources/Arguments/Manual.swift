// SPDX-License-Identifier: Apache-2.0

/// The whole command tree as a document: a man page, or the command reference in Markdown.
package struct Manual: Sendable {
    let root: Command

    package init(_ root: Command) { self.root = root }

    /// Every verb that people may call, under the title of its group.
    private var chapters: [(title: String, verbs: [Help])] {
        root.groups.map { ($0.title, $0.commands.flatMap { verbs([root, $0]) }) }
            .filter { !$0.1.isEmpty }
    }

    private func verbs(_ path: [Command]) -> [Help] {
        guard let last = path.last, !last.isHidden else { return [] }
        return last.groups.isEmpty ? [Help(path)] : last.subcommands.flatMap { verbs(path + [$0]) }
    }

    // MARK: Man page

    /// The source of a man page of section 1, for `man` and `groff -man`.
    package func manPage(version: String) -> String {
        let top = Help([root])
        var lines = [
            #".TH "\#(root.name.uppercased())" "1" "" "\#(root.name) \#(version)" "User Commands""#,
            // Neither hyphenate nor justify: what is copied from a manual must work.
            ".nh", ".ad l", ".SH NAME", "\(root.name) \\- \(roff(lowercasedFirst(root.summary)))",
            ".SH SYNOPSIS",
        ]
        lines += top.usage.map { ".B \(roff($0))" }
        lines += [".SH DESCRIPTION"] + texts([root.summary] + paragraphs(root.discussion), ".PP")
        lines += [".SH OPTIONS"] + terms(top.options)
        for chapter in chapters {
            lines.append(#".SH "\#(chapter.title) VERBS""#)
            lines += chapter.verbs.flatMap(manEntry)
        }
        for section in root.sections {
            lines += [#".SH "\#(section.title)""#] + terms(section.rows)
        }
        lines += [".SH EXAMPLES"] + terms(root.examples.map { ($0.line, $0.text) })
        return lines.joined(separator: "\n") + "\n"
    }

    private func manEntry(_ help: Help) -> [String] {
        var lines = help.usage.flatMap { [".TP", ".B \(roff($0))"] }
        let said = [help.command.summary] + aliasSentence(help)
        lines += texts(said + paragraphs(help.command.discussion), ".IP")
        let parts = [help.arguments, help.ownOptions] + help.command.sections.map(\.rows)
        let rows = parts.flatMap { $0 } + help.command.examples.map { ($0.line, $0.text) }
        if !rows.isEmpty { lines += [".RS"] + terms(rows) + [".RE"] }
        return lines
    }

    private func terms(_ rows: [(term: String, text: String)]) -> [String] {
        rows.flatMap { [".TP", ".B \(roff(trimmed($0.term)))", roff($0.text)] }
    }

    private func texts(_ paragraphs: [String], _ separator: String) -> [String] {
        paragraphs.enumerated().flatMap { $0 == 0 ? [roff($1)] : [separator, roff($1)] }
    }

    // MARK: Markdown

    /// The command reference.
    package func markdown() -> String {
        let top = Help([root])
        var blocks = [
            "# Commands", "<!-- Written by `make docs` from the declarations of the verbs. -->",
        ]
        blocks.append(code(top.usage))
        blocks.append("These options can stand before and after every verb:")
        blocks.append(table(("option", "meaning"), top.options))
        for chapter in chapters {
            blocks.append("## " + chapter.title.prefix(1) + chapter.title.dropFirst().lowercased())
            blocks += chapter.verbs.flatMap(markdownEntry)
        }
        for section in root.sections where section.title == "ENVIRONMENT" {
            blocks += ["## Environment", table(("variable", "meaning"), section.rows)]
        }
        return blocks.joined(separator: "\n\n") + "\n"
    }

    private func markdownEntry(_ help: Help) -> [String] {
        var blocks = ["### \(help.path.dropFirst().map(\.name).joined(separator: " "))"]
        blocks.append(code(help.usage))
        blocks += [help.command.summary] + aliasSentence(help) + paragraphs(help.command.discussion)
        let rows = help.arguments + help.ownOptions
        if !rows.isEmpty { blocks.append(table(("parameter", "meaning"), rows)) }
        for section in help.command.sections {
            blocks.append(table((section.title.lowercased(), "meaning"), section.rows))
        }
        if !help.command.examples.isEmpty {
            blocks.append(code(help.command.examples.flatMap { ["# \($0.text)", $0.line] }))
        }
        return blocks
    }

    private func code(_ lines: [String]) -> String {
        "```sh\n" + lines.joined(separator: "\n") + "\n```"
    }

    private func table(
        _ header: (String, String), _ rows: [(term: String, text: String)]
    ) -> String {
        let lines = rows.map { "| `\(cell(trimmed($0.term)))` | \(cell($0.text)) |" }
        return (["| \(header.0) | \(header.1) |", "|---|---|"] + lines).joined(separator: "\n")
    }

    private func aliasSentence(_ help: Help) -> [String] {
        help.command.aliases.isEmpty ? [] : ["Also \(orList(help.command.aliases))."]
    }
}

extension Help {
    /// Options without `--help`, which every verb has.
    fileprivate var ownOptions: [(term: String, text: String)] { options.dropLast() }
}

private func trimmed(_ text: String) -> String { String(text.drop { $0 == " " }) }

private func lowercasedFirst(_ text: String) -> String {
    text.prefix(1).lowercased() + text.dropFirst()
}

private func cell(_ text: String) -> String {
    text.map { $0 == "|" ? "\\|" : String($0) }.joined()
}

/// Text as roff reads it: no character of it is a request, and a dash stays a dash that can be copied.
private func roff(_ text: String) -> String {
    let escaped = text.map { character -> String in
        switch character {
        case "\\": "\\e"
        case "-": "\\-"
        case "'", "`": "\\(aq"
        case "\"": "\\(dq"
        case "\n": " "
        default: String(character)
        }
    }.joined()
    return escaped.hasPrefix(".") ? "\\&" + escaped : escaped
}
