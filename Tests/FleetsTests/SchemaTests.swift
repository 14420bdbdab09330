// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

@Suite struct SchemaTests {
    private func tree(_ text: String) throws -> JSONValue {
        let diagnostics = Diagnostics()
        let node = try #require(parseYAML(Array(text.utf8), file: 0, diagnostics))
        return JSONValue(node)
    }

    @Test func acceptsTheExample() throws {
        let example = try tree(try repositoryFile("examples/fleet.example.yaml"))
        #expect(SchemaChecker().problems(example) == [])
    }

    /// The schema, the reader and the example know the same keys.
    @Test func exampleHasEveryKey() throws {
        let example = try tree(try repositoryFile("examples/fleet.example.yaml"))
        var written: Set<String> = []
        collect(example, "", &written)
        // Both forms of these cannot stand in one entry; `mode` and others have defaults to show.
        let elsewhere: Set<String> = [
            "images.*.files.*.text", "images.*.files.*.source", "images.*.files.*.mode",
            "vms.*.health.dns", "vms.*.health.exec", "vms.*.health.tcp", "networks.*.mode",
            "vms.*.publish.tls.cert", "vms.*.publish.tls.key", "vms.*.host", "hosts.*.ssh",
        ]
        let missing = SchemaChecker().keys.subtracting(written).subtracting(elsewhere).filter {
            !$0.hasPrefix("vms.*.image.") && !$0.hasSuffix("keep.hourly")
                && !$0.hasSuffix("keep.yearly") && !$0.hasSuffix("keep.monthly")
                && !$0.hasPrefix("defaults.") && !$0.hasPrefix("profiles.") && !isLikeArchive($0)
        }
        #expect(missing.sorted() == [])
    }

    /// What is inside of these is written as it is inside of `archive`, and shown there.
    private func isLikeArchive(_ key: String) -> Bool {
        key.hasPrefix("images.*.sources.binary.") || key.hasPrefix("images.*.sources.deb.")
    }

    private func collect(_ value: JSONValue, _ path: String, _ keys: inout Set<String>) {
        for element in value.elements { collect(element, path, &keys) }
        let isNamed = Section.all.contains { $0.name == path && $0.kind == .named }
        let isFree = ["vms.*.credentials", "images.*.files"].contains(path)
        for member in value.members {
            let key = isNamed || isFree ? "*" : member.key
            let inner = path.isEmpty ? key : path + "." + key
            keys.insert(inner.replacing("defaults.", with: "vms.*."))
            collect(member.value, inner, &keys)
        }
    }

    @Test(arguments: [
        ("vms: { a: { memory: lots } }", "vms.a.memory"), ("vms: { a: { memroy: 1GiB } }", "vms.a"),
        ("vms: { a: { vcpu: two } }", "vms.a.vcpu"), ("nets: {}", ""),
        ("vms: { a: { users: [{}] } }", "vms.a.users[0]"), ("allow: {}", "allow"),
        ("vms: { a: { restart: maybe } }", "vms.a.restart"),
    ])
    func refuses(text: String, path: String) throws {
        #expect(SchemaChecker().problems(try tree(text)) == [path])
    }

    @Test(arguments: [
        "vms: {hello: }", "vms: { a: { uuid: null, health: [{ tcp: 80 }], vsock: 7 } }",
    ])
    func accepts(text: String) throws { #expect(SchemaChecker().problems(try tree(text)) == []) }

    @Test func referenceShowsValidFleets() throws {
        let blocks = try repositoryFile("docs/fleet-file.md").split(separator: "```")
        let fleets = blocks.filter { $0.hasPrefix("yaml") && $0.contains("\nvms:") }
        #expect(fleets.count == 3)
        for fleet in fleets {
            #expect(FleetFile.parse(String(fleet.dropFirst(4))).diagnostics == [])
        }
    }

    /// Every key of the schema has a line in the reference, and the reference names no other.
    @Test func reference() throws {
        let text = try repositoryFile("docs/fleet-file.md")
        var documented: Set<String> = []
        for line in text.split(separator: "\n") where line.hasPrefix("| `") {
            documented.formUnion(line.split(separator: "`").prefix(2).map(String.init))
        }
        documented = Set(documented.filter { $0 != "| " })
        let keys = Set(
            SchemaChecker().keys.filter {
                !$0.hasPrefix("defaults.") && !$0.hasPrefix("profiles.")
                    && !$0.hasPrefix("vms.*.image.") && !isLikeArchive($0)
            }.map { $0.replacing("vms.*.", with: "").replacing(".*", with: ".NAME") })
        #expect(keys.subtracting(documented).sorted() == [], "keys without a line")
        #expect(documented.subtracting(keys).sorted() == [], "lines without a key")
    }
}

/// The part of JSON Schema that the fleet file's schema uses.
private struct SchemaChecker {
    let root = FleetFile.schema

    /// The paths of values that the schema refuses.
    func problems(_ value: JSONValue) -> [String] { check(value, root, "") }

    private func check(_ value: JSONValue, _ schema: JSONValue, _ path: String) -> [String] {
        if schema["$ref"]?.string == "#/$defs/vm" {
            return check(value, root["$defs"]?["vm"] ?? nil, path)
        }
        if let all = schema["anyOf"] {
            return all.elements.contains { check(value, $0, path).isEmpty } ? [] : [path]
        }
        if let all = schema["enum"] { return all.elements.contains(value) ? [] : [path] }
        if let types = schema["type"] {
            let names = types.string.map { [$0] } ?? types.elements.compactMap(\.string)
            guard names.contains(where: { matches(value, $0) }) else { return [path] }
        }
        if let pattern = schema["pattern"]?.string, let text = value.string,
            (try? Regex(pattern).firstMatch(in: text)) == nil
        {
            return [path]
        }
        if let number = value.integer {
            if let least = schema["minimum"]?.integer, number < least { return [path] }
            if let most = schema["maximum"]?.integer, number > most { return [path] }
        }
        let names = value.members.map(\.key)
        for name in schema["required"]?.elements ?? [] where !names.contains(name.string ?? "") {
            return [path]
        }
        var found: [String] = []
        for member in value.members {
            let inner = path.isEmpty ? member.key : path + "." + member.key
            if let property = schema["properties"]?[member.key] {
                found += check(member.value, property, inner)
            } else if let other = schema["additionalProperties"] {
                found += other == false ? [path] : check(member.value, other, inner)
            }
        }
        for (index, element) in value.elements.enumerated() {
            found += check(element, schema["items"] ?? [:], "\(path)[\(index)]")
        }
        return found
    }

    private func matches(_ value: JSONValue, _ type: String) -> Bool {
        switch value {
        case .null: type == "null"
        case .bool: type == "boolean"
        case .integer: type == "integer" || type == "number"
        case .number: type == "number"
        case .string: type == "string"
        case .array: type == "array"
        case .object: type == "object"
        }
    }

    /// Every key by its path; `*` stands for a name that the user chooses.
    var keys: Set<String> {
        var all: Set<String> = []
        collect(root, "", &all)
        return all
    }

    private func collect(_ schema: JSONValue, _ path: String, _ keys: inout Set<String>) {
        let schema = schema["$ref"] == nil ? schema : root["$defs"]?["vm"] ?? nil
        for member in schema["properties"]?.members ?? [] {
            let inner = path.isEmpty ? member.key : path + "." + member.key
            keys.insert(inner)
            collect(member.value, inner, &keys)
        }
        if let other = schema["additionalProperties"], other != false {
            if other["properties"] != nil || other["$ref"] != nil || other["anyOf"] != nil {
                collect(other, path + ".*", &keys)
            }
        }
        if let items = schema["items"] { collect(items, path, &keys) }
        for form in schema["anyOf"]?.elements ?? [] { collect(form, path, &keys) }
    }
}
