// SPDX-License-Identifier: Apache-2.0

/// What a command takes, as data: parsing, help, completion and the manual all read this.
package struct Parameter: Sendable {
    package enum Kind: Sendable {
        /// `--json`
        case flag
        /// `--timeout 30s`
        case option
        /// A word by position.
        case argument
        /// Everything after `--`.
        case rest
    }

    package let kind: Kind
    /// Long name without dashes, or an argument's name.
    package let name: String
    package let short: Character?
    /// What stands for the value in help, such as `SECONDS`.
    package let placeholder: String
    /// One sentence or more, ending in a period.
    package let help: String
    package let isRequired: Bool
    package let isRepeated: Bool
    /// The default as it would be typed.
    package let fallback: String?
    package let spellings: [String]
    package let candidates: Candidates
    package let expected: String
    let isValid: @Sendable (String) -> Bool

    /// Options and arguments have names of their own: `--image` beside an argument IMAGE is fine.
    var id: String { isNamed ? "--\(name)" : name }
    var isNamed: Bool { kind == .flag || kind == .option }

    /// The way messages name it: `--timeout`, or `NAME`.
    var label: String { isNamed ? "--\(name)" : placeholder }
}

/// Something that a command can declare as its parameter.
package protocol Declaration: Sendable {
    var parameter: Parameter { get }
}

/// A parameter with its type: the one constant that declares it and reads it back.
///
///     static let timeout = Key.option("timeout", "t", value: "TIME", "How long to wait.", default: Duration.seconds(60))
///     … arguments[timeout]
package struct Key<Value: Sendable>: Declaration {
    package let parameter: Parameter
    /// Nil when the texts are no value: parsing has refused those before anybody reads.
    let decode: @Sendable ([String]) -> Value?

    private init(
        _ kind: Parameter.Kind, _ name: String, short: Character? = nil, placeholder: String = "",
        _ help: String, required: Bool = false, repeated: Bool = false, fallback: String? = nil,
        candidates: Candidates? = nil, element: (any ArgumentValue.Type)? = nil,
        decode: @escaping @Sendable ([String]) -> Value?
    ) {
        let spellings = element?.spellings ?? []
        parameter = Parameter(
            kind: kind, name: name, short: short, placeholder: placeholder, help: help,
            isRequired: required, isRepeated: repeated, fallback: fallback, spellings: spellings,
            candidates: candidates ?? .words(spellings), expected: element?.expected ?? "",
            isValid: { element?.init(argument: $0) != nil })
        self.decode = decode
    }
}

extension Key where Value == Bool {
    /// `--name`: true when given.
    package static func flag(_ name: String, _ short: Character, _ help: String) -> Key {
        Key(.flag, name, short: short, help) { !$0.isEmpty }
    }

    /// A flag without a letter.
    package static func flag(_ name: String, _ help: String) -> Key {
        Key(.flag, name, help) { !$0.isEmpty }
    }
}

extension Key where Value: ArgumentValue {
    /// `--name VALUE`; the last one wins.
    package static func option(
        _ name: String, _ short: Character? = nil, value: String, _ help: String, default: Value,
        candidates: Candidates? = nil
    ) -> Key {
        Key(
            .option, name, short: short, placeholder: value, help, fallback: `default`.argument,
            candidates: candidates, element: Value.self
        ) { texts in
            texts.last.map { Value(argument: $0) } ?? `default`
        }
    }

    /// `--name VALUE` that must be given.
    package static func requiredOption(
        _ name: String, _ short: Character? = nil, value: String, _ help: String,
        candidates: Candidates? = nil
    ) -> Key {
        Key(
            .option, name, short: short, placeholder: value, help, required: true,
            candidates: candidates, element: Value.self
        ) { $0.last.flatMap { Value(argument: $0) } }
    }

    /// A word by position that must be given.
    package static func argument(
        _ name: String, _ help: String, candidates: Candidates? = nil
    ) -> Key {
        Key(
            .argument, name, placeholder: name, help, required: true, candidates: candidates,
            element: Value.self
        ) { $0.last.flatMap { Value(argument: $0) } }
    }
}

extension Key {
    /// `--name VALUE` that may be left out; the last one wins.
    package static func option<Element: ArgumentValue>(
        _ name: String, _ short: Character? = nil, value: String, _ help: String,
        candidates: Candidates? = nil
    ) -> Key where Value == Element? {
        Key(
            .option, name, short: short, placeholder: value, help, candidates: candidates,
            element: Element.self, decode: decodeOptional)
    }

    /// A word by position that may be left out.
    package static func argument<Element: ArgumentValue>(
        _ name: String, _ help: String, candidates: Candidates? = nil
    ) -> Key where Value == Element? {
        Key(
            .argument, name, placeholder: name, help, candidates: candidates,
            element: Element.self, decode: decodeOptional)
    }

    /// `--name VALUE`, as often as wanted.
    package static func options<Element: ArgumentValue>(
        _ name: String, _ short: Character? = nil, value: String, _ help: String,
        candidates: Candidates? = nil
    ) -> Key where Value == [Element] {
        Key(
            .option, name, short: short, placeholder: value, help, repeated: true,
            candidates: candidates, element: Element.self, decode: decodeList)
    }

    /// All words that are left; must be the last argument.
    package static func arguments<Element: ArgumentValue>(
        _ name: String, _ help: String, required: Bool = false, candidates: Candidates? = nil
    ) -> Key where Value == [Element] {
        Key(
            .argument, name, placeholder: name, help, required: required, repeated: true,
            candidates: candidates, element: Element.self, decode: decodeList)
    }
}

extension Key where Value == [String] {
    /// Everything after `--`, untouched.
    package static func rest(_ name: String, _ help: String, required: Bool = false) -> Key {
        Key(
            .rest, name, placeholder: name, help, required: required, repeated: true,
            candidates: .files, element: String.self, decode: decodeList)
    }
}

@Sendable private func decodeOptional<Element: ArgumentValue>(_ texts: [String]) -> Element?? {
    guard let last = texts.last else { return .some(nil) }
    guard let value = Element(argument: last) else { return nil }
    return .some(value)
}

@Sendable private func decodeList<Element: ArgumentValue>(_ texts: [String]) -> [Element]? {
    let values = texts.compactMap { Element(argument: $0) }
    return values.count == texts.count ? values : nil
}
