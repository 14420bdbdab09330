// SPDX-License-Identifier: Apache-2.0

/// What a shell should offer for the word under the cursor.
package struct Completion: Sendable, Equatable {
    package var candidates: [Candidate] = []
    package var paths = Candidates.Paths.none
}

extension Command {
    /// Completes the last of the words that follow the program's name.
    package func complete(_ words: [String]) async -> Completion {
        let typed = words.last ?? ""
        var parser = Parser(self)
        for word in words.dropLast() {
            // What stands before the cursor may be unfinished or wrong; completion goes on.
            try? parser.consume(word)
        }
        if let option = parser.pending {
            return await values(of: option, typed, parser)
        }
        if parser.isTerminated {
            return Completion(paths: .files)
        }
        if typed.hasPrefix("--"), let equals = typed.firstIndex(of: "=") {
            let name = String(typed[..<equals])
            let parameter = parser.path.reversed().flatMap(\.parameters)
                .first { $0.kind == .option && "--\($0.name)" == name }
            guard let parameter else { return Completion() }
            let value = String(typed[typed.index(after: equals)...])
            return await values(of: parameter, value, parser, prefix: "\(name)=")
        }
        if typed.hasPrefix("-") { return parser.options(typed) }
        if !parser.command.groups.isEmpty { return parser.verbs(typed) }
        let arguments = parser.command.parameters(.argument)
        let position = parser.positionals.count
        guard
            let argument = position < arguments.count
                ? arguments[position] : arguments.last(where: \.isRepeated)
        else { return Completion() }
        return await values(of: argument, typed, parser)
    }

    private func values(
        of parameter: Parameter, _ typed: String, _ parser: Parser, prefix: String = ""
    ) async -> Completion {
        let source = parameter.candidates
        var found = source.words.map { Candidate($0) }
        if let find = source.find { found += await find(parser.partial) }
        // A VM that is already named is not offered again.
        let used = Set(parameter.isRepeated ? parser.positionals : [])
        let fitting = found.filter { $0.word.hasPrefix(typed) && !used.contains($0.word) }
        return Completion(
            candidates: fitting.map { Candidate(prefix + $0.word, $0.description) },
            paths: source.paths)
    }
}

extension Parser {
    fileprivate func verbs(_ typed: String) -> Completion {
        let fitting = command.subcommands.filter { !$0.isHidden && $0.name.hasPrefix(typed) }
        return Completion(candidates: fitting.map { Candidate($0.name, $0.summary) })
    }

    fileprivate func options(_ typed: String) -> Completion {
        let fresh = path.reversed().flatMap(\.parameters).filter {
            $0.isNamed && ($0.isRepeated || values[$0.id] == nil)
        }
        let all =
            fresh.map { Candidate("--\($0.name)", $0.help) } + [
                Candidate("--help", "Show help.")
            ]
        return Completion(candidates: all.filter { $0.word.hasPrefix(typed) })
    }
}
