// SPDX-License-Identifier: Apache-2.0

/// What `Record.declare` speaks to: it reads, writes or describes each key that is named to it.
package final class Fields {
    enum Mode {
        case reading(Scope, [Node.Entry])
        case writing
        case describing
    }

    package enum Presence { case required }

    private let mode: Mode
    private var found = 0
    private(set) var members: [JSONValue.Member] = []
    private(set) var required: [String] = []
    private(set) var failed = false

    init(_ mode: Mode) { self.mode = mode }

    /// A key whose default is the value's current one; `null` means the default.
    package func callAsFunction<T: Declared>(_ name: String, _ value: inout T, _ help: String) {
        declare(name, &value, isRequired: false, help)
    }

    /// A key that must be given.
    package func callAsFunction<T: Declared>(
        _ name: String, _ value: inout T, _ presence: Presence, _ help: String
    ) {
        declare(name, &value, isRequired: true, help)
    }

    /// A key that holds a path: a relative one starts at the folder of the file it stands in.
    ///
    /// What begins with `prefix` is something else than a path, and stays as it is.
    package func path(
        _ name: String, _ value: inout String?, unlessPrefixed prefix: String? = nil, _ help: String
    ) {
        let before = value
        self(name, &value, help)
        guard let text = value, text != before else { return }
        if let prefix, text.hasPrefix(prefix) { return }
        value = resolve(name, text)
    }

    /// A path that must be given.
    package func path(
        _ name: String, _ value: inout String, _ presence: Presence, _ help: String
    ) {
        let before = value
        self(name, &value, presence, help)
        if value != before { value = resolve(name, value) }
    }

    private func resolve(_ name: String, _ text: String) -> String {
        guard case .reading(let scope, let entries) = mode,
            let entry = entries.first(where: { $0.name == name })
        else { return text }
        return scope.diagnostics.resolve(text, from: entry.value.mark.file)
    }

    private func declare<T: Declared>(
        _ name: String, _ value: inout T, isRequired: Bool, _ help: String
    ) {
        switch mode {
        case .reading(let scope, let entries):
            guard let entry = entry(name, in: entries), !entry.value.isNull else {
                if isRequired {
                    scope.fail("'\(name)' is required: \(help)")
                    failed = true
                }
                return
            }
            if let read = T.read(scope.at(entry)) { value = read } else { failed = true }
        case .writing: members.append(JSONValue.Member(name, value.json))
        case .describing:
            describe(name, T.schema, isRequired ? nil : value.json, help, isRequired: isRequired)
            if isRequired { required.append(name) }
        }
    }

    /// A key that may be absent.
    package func callAsFunction<T: Declared>(_ name: String, _ value: inout T?, _ help: String) {
        switch mode {
        case .reading(let scope, let entries):
            guard let entry = entry(name, in: entries), !entry.value.isNull else { return }
            if let read = T.read(scope.at(entry)) { value = read } else { failed = true }
        case .writing: if let value { members.append(JSONValue.Member(name, value.json)) }
        case .describing: describe(name, T.schema, nil, help)
        }
    }

    private func entry(_ name: String, in entries: [Node.Entry]) -> Node.Entry? {
        guard let entry = entries.first(where: { $0.name == name }) else { return nil }
        found += 1
        return entry
    }

    private func describe(
        _ name: String, _ schema: JSONValue, _ value: JSONValue?, _ help: String,
        isRequired: Bool = false
    ) {
        var described = (isRequired ? schema : schema.nullable).described(help).members
        if let value { described.append(JSONValue.Member("default", value)) }
        members.append(JSONValue.Member(name, .object(described)))
    }

    /// Notes every key that `declare` did not name; what it names is asked for only then.
    func refuseUnknown(_ names: () -> [String]) {
        guard case .reading(let scope, let entries) = mode, found < entries.count else { return }
        let known = names()
        for entry in entries where !known.contains(entry.name) {
            scope.diagnostics.add(
                entry.mark, Path.key(scope.path, entry.name).text,
                "unknown key '\(entry.name)'" + nearest(entry.name, in: known))
            failed = true
        }
    }
}

/// A list that may also be written as its only item.
package struct OneOrMore<Element: Declared>: Declared {
    package var elements: [Element]

    package init(_ elements: [Element]) { self.elements = elements }

    package static func read(_ scope: Scope) -> OneOrMore? {
        if case .sequence = scope.node.content { return [Element].read(scope).map { Self($0) } }
        return Element.read(scope).map { Self([$0]) }
    }
    package var json: JSONValue { elements.json }
    package static var schema: JSONValue {
        ["anyOf": .array([Element.schema, [Element].schema])]
    }
}

extension String: Declared {
    package static func read(_ scope: Scope) -> String? {
        switch scope.node.content {
        case .scalar(let text, plain: true) where text == "true" || text == "false":
            scope.fail("expected text, found \(text); put it in quotes if text is meant")
            return nil
        default: return scope.parse("text") { $0 }
        }
    }
    package var json: JSONValue { .string(self) }
    package static var schema: JSONValue { ["type": ["string", "number"]] }
}

extension Bool: Declared {
    package static func read(_ scope: Scope) -> Bool? {
        if case .scalar(let text, plain: true) = scope.node.content {
            if text == "true" || text == "True" || text == "TRUE" { return true }
            if text == "false" || text == "False" || text == "FALSE" { return false }
        }
        scope.expected("true or false")
        return nil
    }
    package var json: JSONValue { .bool(self) }
    package static var schema: JSONValue { ["type": "boolean"] }
}

extension Int: Declared {
    package static func read(_ scope: Scope) -> Int? {
        if case .scalar(let text, plain: true) = scope.node.content, let value = integer(text) {
            return value
        }
        scope.expected("a whole number")
        return nil
    }

    /// YAML's core schema: decimal, `0o17` and `0x1F`.
    private static func integer(_ text: String) -> Int? {
        if text.hasPrefix("0x") { return Int(text.dropFirst(2), radix: 16) }
        if text.hasPrefix("0o") { return Int(text.dropFirst(2), radix: 8) }
        return Int(text)
    }
    package var json: JSONValue { JSONValue(self) }
    package static var schema: JSONValue { ["type": "integer"] }
}

extension Array: Declared where Element: Declared {
    package static func read(_ scope: Scope) -> [Element]? {
        guard let items = scope.items() else { return nil }
        let all = items.compactMap { Element.read($0) }
        return all.count == items.count ? all : nil
    }
    package var json: JSONValue { .array(map(\.json)) }
    package static var schema: JSONValue { ["type": "array", "items": Element.schema] }
}

extension Dictionary: Declared where Key == String, Value: Declared {
    package static func read(_ scope: Scope) -> [String: Value]? {
        guard let entries = scope.mapping() else { return nil }
        var all: [String: Value] = [:]
        for entry in entries { all[entry.name] = Value.read(scope.at(entry)) }
        return all.count == entries.count ? all : nil
    }
    package var json: JSONValue {
        .object(sorted { $0.key < $1.key }.map { JSONValue.Member($0.key, $0.value.json) })
    }
    package static var schema: JSONValue {
        ["type": "object", "additionalProperties": Value.schema]
    }
}
