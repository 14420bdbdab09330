// SPDX-License-Identifier: Apache-2.0

/// A value that stands in the fleet file: it reads itself, prints itself and describes itself.
package protocol Declared: Sendable, Equatable {
    /// Reads the value; nil when it is wrong, and then the mistake is noted.
    static func read(_ scope: Scope) -> Self?
    /// The value as it stands in a record: in the notation of the file.
    var json: JSONValue { get }
    /// The JSON Schema of the value.
    static var schema: JSONValue { get }
}

/// A value written as one word, such as `512MiB` or `10.1.0.0/24`.
package protocol Notation: Declared, Codable, Hashable, CustomStringConvertible {
    init?(_ text: String)
    /// What to say when the text is wrong, such as "a size such as 512MiB".
    static var expected: String { get }
    /// A regular expression for editors; the reader may be stricter.
    static var pattern: String { get }
}

extension Notation {
    package static func read(_ scope: Scope) -> Self? { scope.parse(expected) { Self($0) } }
    package var json: JSONValue { .string(description) }
    package static var schema: JSONValue {
        // Under `count` any text may hold the number, which makes it what it must be only later.
        ["type": "string", "pattern": .string(#"\{n\}|"# + pattern)]
    }

    package init(from decoder: any Decoder) throws {
        let text = try decoder.singleValueContainer().decode(String.self)
        guard let value = Self(text) else {
            throw RecordError(message: "expected \(Self.expected), found '\(text)'")
        }
        self = value
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// One of a few words.
package protocol Choice: Declared, Codable, Hashable, CaseIterable, RawRepresentable<String> {}

extension Choice {
    package static func read(_ scope: Scope) -> Self? {
        if let text = scope.scalar(), let value = Self(rawValue: text) { return value }
        let words = allCases.map(\.rawValue)
        scope.expected(words.count == 1 ? words[0] : "one of \(words.joined(separator: ", "))")
        return nil
    }
    package var json: JSONValue { .string(rawValue) }
    package static var schema: JSONValue { ["enum": .array(allCases.map { .string($0.rawValue) })] }
}

/// A mapping with known keys.
///
/// Its initial values are the defaults, and `declare` is the one place
/// that names its keys: reader, record and schema all come from it.
package protocol Record: Declared, Codable {
    init()
    mutating func declare(_ key: Fields)
    /// Checks what concerns several keys at once, after all of them were read.
    mutating func finish(_ scope: Scope)
}

extension Record {
    package mutating func finish(_ scope: Scope) {}

    package static func read(_ scope: Scope) -> Self? {
        let (value, isWhole) = readAll(scope)
        return isWhole ? value : nil
    }

    /// Reads what can be read, so that the rest of it can be checked as well.
    static func readPartially(_ scope: Scope) -> Self { readAll(scope).0 }

    private static func readAll(_ scope: Scope) -> (Self, isWhole: Bool) {
        var value = Self()
        guard let entries = scope.mapping() else { return (value, false) }
        let fields = Fields(.reading(scope, entries))
        value.declare(fields)
        fields.refuseUnknown { Self.schema["properties"]?.members.map(\.key) ?? [] }
        if !fields.failed { value.finish(scope) }
        return (value, !fields.failed)
    }

    package var json: JSONValue {
        let fields = Fields(.writing)
        var copy = self
        copy.declare(fields)
        return .object(fields.members)
    }

    package static var schema: JSONValue {
        let fields = Fields(.describing)
        var value = Self()
        value.declare(fields)
        var members: [JSONValue.Member] = [
            .init("type", "object"), .init("additionalProperties", false),
            .init("properties", .object(fields.members)),
        ]
        if !fields.required.isEmpty {
            members.append(.init("required", .array(fields.required.map(JSONValue.string))))
        }
        return .object(members)
    }

    /// Reads a record; a key that this version does not know is an error, never dropped.
    package init(record: JSONValue) throws(RecordError) {
        let diagnostics = Diagnostics()
        let scope = Scope(node: Node(record), path: .root, diagnostics: diagnostics)
        guard let value = Self.read(scope), !diagnostics.hasErrors else {
            throw RecordError(
                message: diagnostics.sorted.map {
                    ($0.path.isEmpty ? "" : $0.path + ": ") + $0.message
                }.joined(separator: "; "))
        }
        self = value
    }

    package init(from decoder: any Decoder) throws {
        try self.init(record: JSONValue(from: decoder))
    }

    package func encode(to encoder: any Encoder) throws { try json.encode(to: encoder) }
}

/// A record that this version cannot read, with every reason.
package struct RecordError: Error, Equatable, CustomStringConvertible {
    package let message: String
    package var description: String { message }
}
