// SPDX-License-Identifier: Apache-2.0

/// A verb, or a word that leads to verbs (`image`), as data.
package struct Command: Sendable {
    package typealias Action = @Sendable (Arguments) async throws -> Int32

    package let name: String
    package let aliases: [String]
    /// One sentence ending in a period.
    package let summary: String
    /// What a reader wants to know beyond the summary; paragraphs are separated by an empty line.
    package let discussion: String
    package let parameters: [Parameter]
    package let examples: [Example]
    /// Further parts of help and manual, such as exit codes of its own.
    package let sections: [Section]
    package let groups: [Group]
    /// Not listed in help and not offered by completion, but it works.
    package let isHidden: Bool
    /// Takes the interrupt signals itself instead of being cancelled by them.
    package let handlesSignals: Bool
    let action: Action?

    package var subcommands: [Command] { groups.flatMap(\.commands) }

    /// A command line, and what it is for.
    package struct Example: Sendable {
        package let line: String
        package let text: String
        package init(_ line: String, _ text: String) {
            self.line = line
            self.text = text
        }
    }

    /// A titled list of terms and their meaning.
    package struct Section: Sendable {
        package let title: String
        package let rows: [(term: String, text: String)]
        package init(_ title: String, _ rows: [(term: String, text: String)]) {
            self.title = title
            self.rows = rows
        }
    }

    /// Subcommands that stand together in help, under a title.
    package struct Group: Sendable {
        package let title: String
        package let commands: [Command]
        package init(_ title: String, _ commands: [Command]) {
            self.title = title
            self.commands = commands
        }
    }

    /// A verb whose exit code is 0 unless it throws.
    package init(
        _ name: String, aliases: [String] = [], _ summary: String, discussion: String = "",
        parameters: [any Declaration] = [], examples: [Example] = [], sections: [Section] = [],
        isHidden: Bool = false, handlesSignals: Bool = false,
        run: @escaping @Sendable (Arguments) async throws -> Void
    ) {
        self.init(
            name, aliases, summary, discussion, parameters, examples, sections, isHidden: isHidden,
            handlesSignals: handlesSignals
        ) { arguments in
            try await run(arguments)
            return 0
        }
    }

    /// A verb that returns exit codes of its own, and says what they mean.
    package init(
        _ name: String, aliases: [String] = [], _ summary: String, discussion: String = "",
        parameters: [any Declaration] = [], examples: [Example] = [],
        exitCodes: [(term: String, text: String)], isHidden: Bool = false,
        handlesSignals: Bool = false, run: @escaping Action
    ) {
        self.init(
            name, aliases, summary, discussion, parameters, examples,
            [Section("EXIT CODES", exitCodes)], isHidden: isHidden, handlesSignals: handlesSignals,
            action: run)
    }

    /// A word that leads to subcommands; its parameters can be given before and after theirs.
    package init(
        _ name: String, _ summary: String, discussion: String = "",
        parameters: [any Declaration] = [], examples: [Example] = [], sections: [Section] = [],
        groups: [Group]
    ) {
        self.init(name, [], summary, discussion, parameters, examples, sections, groups: groups)
    }

    /// The same with subcommands that need no titles.
    package init(_ name: String, _ summary: String, subcommands: [Command]) {
        self.init(name, summary, groups: [Group("", subcommands)])
    }

    private init(
        _ name: String, _ aliases: [String], _ summary: String, _ discussion: String,
        _ parameters: [any Declaration], _ examples: [Example], _ sections: [Section],
        groups: [Group] = [], isHidden: Bool = false, handlesSignals: Bool = false,
        action: Action? = nil
    ) {
        self.name = name
        self.aliases = aliases
        self.summary = summary
        self.discussion = discussion
        self.parameters = parameters.map(\.parameter)
        self.examples = examples
        self.sections = sections
        self.groups = groups
        self.isHidden = isHidden
        self.handlesSignals = handlesSignals
        self.action = action
    }

    func answers(to word: String) -> Bool { name == word || aliases.contains(word) }

    /// The parameters of a kind, in the order of declaration.
    func parameters(_ kinds: Parameter.Kind...) -> [Parameter] {
        parameters.filter { kinds.contains($0.kind) }
    }
}

/// What was given to a command, checked.
package struct Arguments: Sendable {
    /// The commands from the root to the verb.
    package let path: [Command]
    let values: [String: [String]]

    /// The name of the verb as it is written: `image rm`.
    package var verb: String { path.dropFirst().map(\.name).joined(separator: " ") }

    package subscript<Value>(key: Key<Value>) -> Value {
        let id = key.parameter.id
        guard path.contains(where: { $0.parameters.contains { $0.id == id } }),
            let value = key.decode(values[id] ?? [])
        else {
            // SAFETY: a verb that reads a key it does not declare is a mistake in its source that
            // its first run shows; texts that do not decode were refused by the parser.
            preconditionFailure("'\(verb)' reads \(key.parameter.label) without declaring it")
        }
        return value
    }

    /// Whether it was written on the command line, default or not.
    package func isGiven<Value>(_ key: Key<Value>) -> Bool { values[key.parameter.id] != nil }

    /// Runs the verb and returns its exit code.
    package func run() async throws -> Int32 { try await path.last?.action?(self) ?? 0 }
}
