// SPDX-License-Identifier: Apache-2.0
import Fleets

extension Elements {
    /// What leads from one state of the sets to another.
    package struct Difference: Sendable, Equatable {
        package var added: [Key: Set<Element>] = [:]
        package var removed: [Key: Set<Element>] = [:]

        package var isEmpty: Bool { added.isEmpty && removed.isEmpty }
    }

    package func difference(from old: Elements) -> Difference {
        var difference = Difference()
        for key in Set(sets.keys).union(old.sets.keys) {
            let (new, old) = (sets[key] ?? [], old.sets[key] ?? [])
            if !new.isSubset(of: old) { difference.added[key] = new.subtracting(old) }
            if !old.isSubset(of: new) { difference.removed[key] = old.subtracting(new) }
        }
        return difference
    }
}

extension Elements.Difference {
    /// The commands of one transaction; what goes, goes first, for a map's key has one value.
    package func commands(_ table: String) -> String {
        var text = ""
        for (key, elements) in removed.sorted(by: { $0.key < $1.key }) {
            let list = elements.sorted().map(\.key).joined(separator: ", ")
            text += "delete element \(key.family.rawValue) \(table) \(key.name) { \(list) }\n"
        }
        for (key, elements) in added.sorted(by: { $0.key < $1.key }) {
            let list = elements.sorted().map(\.text).joined(separator: ", ")
            text += "add element \(key.family.rawValue) \(table) \(key.name) { \(list) }\n"
        }
        return text
    }
}

// MARK: - Reading back

extension Elements {
    /// Sets that the kernel or the rules themselves fill.
    private static let unmanaged: Set<String> = ["rate", "private4", "private6"]

    /// What libnftables' JSON list of a table holds.
    mutating func read(_ objects: [JSONValue], _ family: Family) {
        for object in objects {
            guard let set = object["set"] ?? object["map"], let name = set["name"]?.string,
                !Elements.unmanaged.contains(name)
            else { continue }
            let types = Elements.list(set["type"]).compactMap(\.string)
            let values = set["map"]?.string?.split(separator: " . ").map(String.init) ?? []
            for element in set["elem"]?.elements ?? [] {
                // A map's element is a pair.
                let pair = object["map"] == nil ? [element] : element.elements
                guard let key = pair.first else { continue }
                insert(
                    Element(
                        key: Elements.text(key, types),
                        value: pair.count > 1 ? Elements.text(pair[1], values) : nil),
                    Key(family: family, name: name))
            }
        }
    }

    private static func list(_ value: JSONValue?) -> [JSONValue] {
        guard let value else { return [] }
        return value.string == nil ? value.elements : [value]
    }

    private static func text(_ value: JSONValue, _ types: [String]) -> String {
        let parts = value["concat"]?.elements ?? [value]
        return parts.enumerated().map { index, part in
            let text = word(part)
            return index < types.count && types[index] == "ifname" ? "\"\(text)\"" : text
        }.joined(separator: " . ")
    }

    private static func word(_ value: JSONValue) -> String {
        if let prefix = value["prefix"] {
            return "\(word(prefix["addr"] ?? .null))/\(word(prefix["len"] ?? .null))"
        }
        // An element with a counter or a comment is wrapped.
        if let wrapped = value["elem"]?["val"] { return word(wrapped) }
        if case .integer(let number) = value { return String(number) }
        return value.string ?? ""
    }
}
