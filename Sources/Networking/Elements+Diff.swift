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
            for element in set["elem"]?.elements ?? [] {
                // A map's element is a pair.
                let pair = object["map"] == nil ? [element] : element.elements
                guard let key = pair.first else { continue }
                insert(
                    Element(
                        key: Elements.text(key),
                        value: pair.count > 1 ? Elements.text(pair[1]) : nil),
                    Key(family: family, name: name))
            }
        }
    }

    private static func text(_ value: JSONValue) -> String {
        (value["concat"]?.elements ?? [value]).map { part in
            let text = word(part)
            return isLink(part, text) ? "\"\(text)\"" : text
        }.joined(separator: " . ")
    }

    /// Whether a part is the name of a link, which has quotes around it in commands.
    ///
    /// Not by the set's type: versions of nftables differ in how they list one that is `typeof`.
    private static func isLink(_ part: JSONValue, _ text: String) -> Bool {
        part.string != nil && !text.contains(":") && !text.hasPrefix("0x") && IPv4(text) == nil
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
