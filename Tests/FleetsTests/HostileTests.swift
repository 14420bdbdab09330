// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

/// Files that are broken or meant to do harm: each ends in a message, soon, in bounded memory.
@Suite(.timeLimit(.minutes(20))) struct HostileTests {
    private func load(_ bytes: [UInt8]) -> [String] {
        let file = FleetFile.load("f", from: FleetFile.Sources { _ in bytes })
        #expect(file.fleet == nil)
        return file.diagnostics.map(\.description)
    }

    @Test func explodingAliases() {
        var text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
        for level in 1...12 {
            let alias = "*a\(level - 1)"
            let items = Array(repeating: alias, count: 10).joined(separator: ",")
            text += "a\(level): &a\(level) [\(items)]\n"
        }
        #expect(
            load(Array(text.utf8)) == [
                "f:6:38: the file with its aliases written out has more than 1000000 values"
            ])
    }

    @Test func aliasInsideItsOwnAnchor() {
        #expect(
            load(Array("vms: &a { x: *a }".utf8)) == [
                "f:1:14: no anchor '&a' stands before the alias '*a'"
            ])
    }

    @Test func hugeText() {
        let text = "vms: { a: { timezone: " + String(repeating: "x", count: 2 << 20) + " } }"
        #expect(
            load(Array(text.utf8)) == ["f:1:23: a text is longer than 1 MiB; put it into a file"])
        let huge = Array(repeating: UInt8(ascii: "x"), count: 10 << 20)
        #expect(load(huge) == ["f:1:1: the file is larger than 8 MiB; is this the fleet file?"])
    }

    @Test(arguments: ["[", "{a: ", "- ", "? ", "[{a: "])
    func deepNesting(unit: String) {
        let found = load(Array(String(repeating: unit, count: 20_000).utf8))
        #expect(found.count == 1)
        #expect(found.first?.isEmpty == false)
    }

    @Test func depthLimit() {
        let deep = String(repeating: "[", count: 65) + String(repeating: "]", count: 65)
        #expect(load(Array(deep.utf8)) == ["f:1:65: nested deeper than 64 levels"])
    }

    @Test(
        arguments: [
            (
                [0x76, 0x6D, 0x73, 0x3A, 0x20, 0xFF],
                "f:1:6: the file is not UTF-8 here; save it as UTF-8"
            ),
            ([0x61, 0x0A, 0xC3, 0x28], "f:2:2: the file is not UTF-8 here; save it as UTF-8"),
            (
                [0x61, 0x3A, 0x20, 0x00],
                "f:1:4: the control character 0 cannot stand in the file; is it a text file?"
            ),
            ([0xED, 0xA0, 0x80], "f:1:1: the file is not UTF-8 here; save it as UTF-8"),
        ] as [([UInt8], String)])
    func brokenText(bytes: [UInt8], expected: String) { #expect(load(bytes) == [expected]) }

    @Test(arguments: [
        ("vms: { a: {}, a: {} }", "f:1:15: the key 'a' is there already, in line 1"),
        ("vms:\n\ta: {}", "f:2:1: a tab cannot stand here; indent with spaces"),
        ("vms: \"a\\0\"", "f:1:6: a text holds a NUL byte, which no setting can"),
        (
            "vms: { a: { <<: { vcpu: 2 } } }",
            "f:1:13: merge keys ('<<') are not supported; put what VMs have in common into 'profiles' or 'defaults'"
        ),
        (
            "vms: { a: { vcpu: 99999999999999999999 } }",
            "f:1:19: vms.a.vcpu: expected a whole number, found '99999999999999999999'"
        ),
        (
            "vms: { a: { vcpu: !!int 3 } }",
            "f:1:19: the tag 'tag:yaml.org,2002:int' means nothing here; remove it"
        ),
        ("vms: {}\n---\nvms: {}", "f:2:1: a second document starts; a file holds one"),
        (
            "? [a]\n: b",
            "f:1:3: a key must be a word, not a list or mapping; a text that starts with '{' or '[' needs quotes"
        ),
        (
            "vms: { a: {",
            "f:2:1: the file ends too early; is a quote, '}' or ']' missing?"
        ),
        ("vms: *nope", "f:1:6: no anchor '&nope' stands before the alias '*nope'"),
        ("%YAML 9.9\n---\nvms: {}", "f:1:1: found incompatible YAML document"),
    ])
    func broken(text: String, expected: String) { #expect(load(Array(text.utf8)) == [expected]) }

    @Test func manyMistakesAreBounded() {
        let text = "vms:\n" + (0..<5000).map { "  a\($0): { vcpu: x }\n" }.joined()
        #expect(load(Array(text.utf8)).count == 1000)
    }

    @Test func aliasesThatBehave() throws {
        let text = "vms: { a: &a { vcpu: 3 }, b: *a }"
        #expect(FleetFile.parse(text).fleet?.vm("b")?.vcpu == 3)
    }

    @Test func coreSchema() throws {
        let text = """
            %YAML 1.2
            ---
            vms: { a: { vcpu: 0x10, restart: no, timezone: "UTC", enable: FALSE, warm: !!str true } }
            """
        #expect(
            FleetFile.parse(text).diagnostics.map(\.message) == [
                "expected true or false, found \"true\""
            ])
        let fixed = FleetFile.parse(text.replacing("!!str ", with: ""))
        let vm = fixed.fleet?.vm("a")
        #expect(vm?.vcpu == 16)
        #expect(vm?.restart == .no)
        #expect(vm?.enable == false)
    }
}
