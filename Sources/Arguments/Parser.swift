// SPDX-License-Identifier: Apache-2.0

/// A command line that cannot be understood.
package struct UsageError: Error, Equatable, CustomStringConvertible {
    /// One sentence without a period at its end.
    package let message: String
    package let hint: String
    package var description: String { message }
}

/// What a command line asks for.
package enum Request: Sendable {
    case run(Arguments)
    /// The help of the last command of the path.
    case help([Command])
}

extension Command {
    /// Reads the words that follow the program's name; values are checked here, not when read.
    package func parse(_ words: [String]) throws(UsageError) -> Request {
        var parser = Parser(self)
        for word in words { try parser.consume(word) }
        return try parser.finish()
    }
}

/// One pass over the words; completion runs it over the words before the cursor.
struct Parser {
    private(set) var path: [Command]
    private(set) var values: [String: [String]] = [:]
    private(set) var positionals: [String] = []
    /// An option that still waits for its value.
    private(set) var pending: Parameter?
    /// `--` was seen.
    private(set) var isTerminated = false
    private(set) var wantsHelp = false

    init(_ root: Command) { path = [root] }

    var command: Command { path[path.count - 1] }
    var commandLine: String { path.map(\.name).joined(separator: " ") }

    mutating func consume(_ word: String) throws(UsageError) {
        if let option = pending {
            if word.count > 1, word.hasPrefix("-"), !isNegativeNumber(word) {
                throw missingValue(option, instead: word)
            }
            pending = nil
            try add(option, word)
        } else if isTerminated {
            try addAfterTerminator(word)
        } else if word == "--" {
            isTerminated = true
        } else if word.hasPrefix("--") {
            try consumeLong(word)
        } else if word.count > 1, word.hasPrefix("-"), !isNegativeNumber(word) {
            try consumeShort(word)
        } else if !command.groups.isEmpty {
            try descend(word)
        } else {
            positionals.append(word)
        }
    }

    private mutating func descend(_ word: String) throws(UsageError) {
        if let next = command.subcommands.first(where: { $0.answers(to: word) }) {
            path.append(next)
            return
        }
        if path.count == 1, word == "help" {
            wantsHelp = true
            return
        }
        let known = command.subcommands.filter { !$0.isHidden }.flatMap { [$0.name] + $0.aliases }
        throw unknown("verb", word, nearest(word, among: known))
    }

    private mutating func consumeLong(_ word: String) throws(UsageError) {
        let parts = word.dropFirst(2).split(
            separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(parts[0])
        let value = parts.count > 1 ? String(parts[1]) : nil
        if name == "help", value == nil {
            wantsHelp = true
            return
        }
        guard let parameter = find({ $0.name == name }) else {
            let known = path.flatMap { $0.parameters(.flag, .option).map { "--\($0.name)" } }
            throw unknown("option", "--\(name)", nearest("--\(name)", among: known + ["--help"]))
        }
        switch (parameter.kind, value) {
        case (.flag, nil): values[parameter.id] = [""]
        case (.flag, _): throw error("option '--\(name)' takes no value")
        case (_, let value?): try add(parameter, value)
        case (_, nil): pending = parameter
        }
    }

    /// `-q`, `-abc`, `-xVALUE`, `-x=VALUE`.
    private mutating func consumeShort(_ word: String) throws(UsageError) {
        var letters = word.dropFirst()
        while let letter = letters.popFirst() {
            guard let parameter = find({ $0.short == letter }) else {
                if letter == "h" {
                    wantsHelp = true
                    continue
                }
                throw unknown("option", "-\(letter)", nil)
            }
            if parameter.kind == .flag {
                values[parameter.id] = [""]
            } else if letters.isEmpty {
                pending = parameter
            } else {
                try add(parameter, String(letters.first == "=" ? letters.dropFirst() : letters))
                return
            }
        }
    }

    /// The nearest declaration wins: `logs -f` follows, `martlet -f FILE logs` names a file.
    private func find(_ matches: (Parameter) -> Bool) -> Parameter? {
        for command in path.reversed() {
            if let found = command.parameters.first(where: { $0.isNamed && matches($0) }) {
                return found
            }
        }
        return nil
    }

    private mutating func add(_ parameter: Parameter, _ text: String) throws(UsageError) {
        guard wantsHelp || parameter.isValid(text) else {
            let meant = nearest(text, among: parameter.spellings)
            throw error(
                "\(parameter.label): expected \(parameter.expected), found '\(text)'", meant)
        }
        values[parameter.id, default: []].append(text)
    }

    private mutating func addAfterTerminator(_ word: String) throws(UsageError) {
        guard let rest = command.parameters(.rest).first else {
            positionals.append(word)
            return
        }
        try add(rest, word)
    }

    /// Deals the words by position out to the arguments and looks for what is missing.
    mutating func finish() throws(UsageError) -> Request {
        if wantsHelp { return .help(path) }
        if let pending { throw missingValue(pending, instead: nil) }
        guard command.groups.isEmpty else {
            throw error("a verb is missing after '\(commandLine)'")
        }
        var words = positionals[...]
        for argument in command.parameters(.argument) {
            let share = argument.isRepeated ? words.count : 1
            for word in words.prefix(share) { try add(argument, word) }
            words = words.dropFirst(share)
        }
        if let extra = words.first {
            let passes = command.parameters(.rest).first
            throw error(
                "unexpected argument '\(extra)'",
                hint: passes.map { "Write the \($0.placeholder.lowercased()) after '--'." })
        }
        let required = path.flatMap(\.parameters).filter(\.isRequired)
        for parameter in required where values[parameter.id] == nil {
            let shown =
                switch parameter.kind {
                case .rest: "-- \(parameter.placeholder)"
                case .option: "\(parameter.label) \(parameter.placeholder)"
                case .argument, .flag: parameter.label
                }
            throw error("missing \(shown)")
        }
        return .run(partial)
    }

    /// What is known so far.
    var partial: Arguments { Arguments(path: path, values: values) }

    private func error(
        _ message: String, _ meant: String? = nil, hint: String? = nil
    ) -> UsageError {
        UsageError(
            message: message,
            hint: meant.map { "Did you mean '\($0)'?" } ?? hint
                ?? "See '\(commandLine) --help'.")
    }

    private func unknown(_ kind: String, _ word: String, _ meant: String?) -> UsageError {
        let passes = kind == "option" && !command.parameters(.rest).isEmpty
        return error(
            "unknown \(kind) '\(word)'", meant,
            hint: passes ? "Options of the command to run belong after '--'." : nil)
    }

    private func missingValue(_ option: Parameter, instead word: String?) -> UsageError {
        let message = "\(option.label): expected \(option.expected)"
        guard let word else { return error("\(message), found nothing") }
        return error(
            "\(message), found '\(word)'",
            hint: "A value that begins with '-' is written '\(option.label)=\(word)'.")
    }
}

private func isNegativeNumber(_ word: String) -> Bool {
    word.hasPrefix("-") && Double(word) != nil && word.dropFirst().first?.isNumber == true
}
