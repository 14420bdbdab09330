// SPDX-License-Identifier: Apache-2.0

/// `kind,key=value,key=value`: what most options of hypervisors look like.
struct OptionList {
    /// The parts, a part without `=` having an empty value.
    let pairs: [(key: String, value: String)]

    /// Takes a text apart; with `doubled` as QEMU does, where two commas are one of a value, and else
    /// with brackets and quotes around values.
    init(_ text: String, doubled: Bool = false) {
        pairs = Self.parts(text, doubled).map { part in
            guard let equals = part.firstIndex(of: "=") else { return (part, "") }
            return (String(part[..<equals]), String(part[part.index(after: equals)...]))
        }
    }

    /// The first word, which says what the rest is about.
    var kind: String { pairs.first?.key ?? "" }

    subscript(key: String) -> String? { pairs.first { $0.key == key }?.value }
    func all(_ key: String) -> [String] { pairs.filter { $0.key == key }.map(\.value) }
    func isOn(_ key: String) -> Bool { ["on", "true", "yes"].contains(self[key] ?? "") }

    private static func parts(_ text: String, _ doubled: Bool) -> [String] {
        var parts: [String] = []
        var part = ""
        var depth = 0
        var isQuoted = false
        var rest = text[...]
        while let character = rest.popFirst() {
            switch character {
            case "," where doubled && rest.first == ",":
                rest.removeFirst()
                part.append(character)
            case "," where depth == 0 && !isQuoted:
                parts.append(part)
                part = ""
            case "\"" where !doubled: isQuoted.toggle()
            case "[" where !doubled:
                depth += 1
                part.append(character)
            case "]" where !doubled:
                depth = max(0, depth - 1)
                part.append(character)
            default: part.append(character)
            }
        }
        return (parts + [part]).filter { !$0.isEmpty }
    }
}

/// The words of a command line as options with their values.
struct OptionReader {
    private(set) var options: [(name: String, values: [String])] = []
    /// Words that belong to no option.
    private(set) var others: [String] = []

    /// Sorts words; flags take no value, and lists take every word up to the next option.
    init(_ words: [String], flags: Set<String>, lists: Set<String> = []) {
        var rest = words[...]
        while let word = rest.popFirst() {
            guard word.hasPrefix("-"), word != "-" else {
                others.append(word)
                continue
            }
            var name = word.drop { $0 == "-" }
            var values: [String] = []
            if word.hasPrefix("--"), let equals = name.firstIndex(of: "=") {
                values = [String(name[name.index(after: equals)...])]
                name = name[..<equals]
            } else if lists.contains(String(name)) {
                while let value = rest.first, !value.hasPrefix("-") {
                    values.append(value)
                    rest.removeFirst()
                }
            } else if !flags.contains(String(name)), let value = rest.popFirst() {
                values = [value]
            }
            options.append((String(name), values))
        }
    }

    /// The last value of an option.
    subscript(name: String) -> String? { options.last { $0.name == name }?.values.last }
    /// All values of an option, in their order.
    func all(_ names: String...) -> [String] {
        options.filter { names.contains($0.name) }.flatMap(\.values)
    }
    func has(_ name: String) -> Bool { options.contains { $0.name == name } }
}

/// `512`, `512M` or `1G` in bytes; `unit` is meant where there is none.
func hypervisorSize(_ text: String, unit: UInt64 = 1 << 20) -> UInt64? {
    let units: [Character: UInt64] = [
        "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "B": 1,
    ]
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    let end = text.dropFirst(digits.count)
    guard let count = UInt64(digits), end.count <= 3 else { return nil }
    guard let factor = end.isEmpty ? unit : end.uppercased().first.flatMap({ units[$0] }) else {
        return nil
    }
    let (bytes, overflow) = count.multipliedReportingOverflow(by: factor)
    return overflow ? nil : bytes
}
