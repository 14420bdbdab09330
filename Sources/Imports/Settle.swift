// SPDX-License-Identifier: Apache-2.0
import Fleets

/// Takes out of an entry what the reader of fleet files refuses, each with the reader's own reason.
///
/// What other tools accept is wider than what a fleet file says: the entry that is handed out must
/// pass `validate` all the same.
func settled(_ imported: Imported) throws(ImportError) -> Imported {
    var imported = imported
    // Each turn takes something out, so there can be no more turns than there are things.
    for _ in 0..<2_000 {
        guard let mistake = imported.read().errors.first else { return imported }
        guard let next = imported.without(mistake) else {
            throw .unsuitable("\(mistake.path): \(mistake.message)")
        }
        imported = next
    }
    throw .unsuitable("there are too many things in it that a fleet file does not have")
}

extension Imported {
    /// The same without the thing that a mistake names; nil when there is no such thing.
    fileprivate func without(_ mistake: Diagnostic) -> Imported? {
        var entry = entry
        var networks = networks
        var secrets = secrets
        let removed: JSONValue?
        if let path = mistake.path.after("vms.\(name).") {
            removed = entry.remove(path)
        } else if let path = mistake.path.after("networks.") {
            let index = networks.firstIndex {
                path == $0.key || path.hasPrefix($0.key + ".")
            }
            removed = index.map { networks.remove(at: $0).value }
        } else if let path = mistake.path.after("secrets.") {
            let index = secrets.firstIndex { path == $0.key || path.hasPrefix($0.key + ".") }
            removed = index.map { secrets.remove(at: $0).value }
        } else {
            removed = nil
        }
        guard let removed else { return nil }
        let note = ImportNote("`\(mistake.path)`: \(removed.flow)", mistake.message)
        return Imported(
            name: name, origin: origin, entry: entry, networks: networks, secrets: secrets,
            notes: notes + [note], data: data)
    }
}

extension String {
    fileprivate func after(_ prefix: String) -> Substring? {
        hasPrefix(prefix) ? dropFirst(prefix.count) : nil
    }
}

extension JSONValue {
    /// Removes the smallest thing of an entry that can go by itself, and returns what it was.
    ///
    /// That is an item of a list, a member of a map such as `limits`, or else a key.
    fileprivate mutating func remove(_ path: Substring) -> JSONValue? {
        guard case .object(var all) = self else { return nil }
        let key = path.prefix { $0 != "." && $0 != "[" }
        guard let index = all.firstIndex(where: { $0.key == key }) else { return nil }
        let rest = path.dropFirst(key.count)
        var removed: JSONValue?
        switch all[index].value {
        case .array(var items) where rest.hasPrefix("["):
            guard let number = Int(rest.dropFirst().prefix { $0 != "]" }),
                items.indices.contains(number)
            else { break }
            removed = items.remove(at: number)
            all[index].value = .array(items)
        case .object(var members) where rest.hasPrefix("."):
            if key == "kernel" {
                var inner = JSONValue.object(members)
                removed = inner.remove(rest.dropFirst())
                all[index].value = inner
            } else if let at = members.firstIndex(where: {
                rest.dropFirst() == $0.key || rest.dropFirst().hasPrefix($0.key + ".")
            }), key != "memory" {
                removed = members.remove(at: at).value
                all[index].value = .object(members)
            }
        default: break
        }
        if removed == nil { removed = all.remove(at: index).value }
        // An empty list says the same as none, but for interfaces.
        all.removeAll {
            $0.key != "interfaces" && ($0.value == .array([]) || $0.value == .object([]))
        }
        self = .object(all)
        return removed
    }
}
