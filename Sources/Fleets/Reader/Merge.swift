// SPDX-License-Identifier: Apache-2.0

/// One partial VM that a VM is merged from, and what to call it.
package struct Layer: Sendable {
    /// `defaults`, `service web`, `profile big`; empty for the VM's own entry.
    package let label: String
    let node: Node
}

/// Merges partial VMs, later ones winning: maps merge, everything else replaces.
///
/// `image`, `health` and `memory` are values, though they may be written as maps: merging two
/// different sources or checks would make neither.
func mergeVM(_ layers: [Layer]) -> Node {
    let merged = layers.dropFirst().reduce(layers.first?.node ?? Node(.mapping([]), Mark())) {
        merge($0, with: $1.node, values: valueKeys)
    }
    return Node(.mapping(merged.entries.filter { !mergeKeys.contains($0.name) }), merged.mark)
}

let valueKeys: Set<String> = ["image", "health", "memory"]

/// Keys of a VM's entry that steer the merging and are gone after it.
let mergeKeys: Set<String> = ["profiles", "count"]

private func merge(_ base: Node, with node: Node, values: Set<String> = []) -> Node {
    guard case .mapping(var entries) = base.content, case .mapping(let over) = node.content else {
        // An empty entry, as in `web:`, says nothing and takes nothing away.
        return node.isNull && !base.entries.isEmpty ? base : node
    }
    for entry in over {
        guard let index = entries.firstIndex(where: { $0.name == entry.name }) else {
            entries.append(entry)
            continue
        }
        let isValue = values.contains(entry.name) || entry.value.isNull
        let value = isValue ? entry.value : merge(entries[index].value, with: entry.value)
        entries[index] = Node.Entry(name: entry.name, mark: entry.mark, value: value)
    }
    return Node(.mapping(entries), node.mark)
}

extension Node {
    /// Whether `{n}` stands in any text of the tree.
    var hasNumber: Bool {
        switch content {
        case .scalar(let text, _): text.contains("{n}")
        case .sequence(let items): items.contains(where: \.hasNumber)
        case .mapping(let entries):
            entries.contains { $0.name.contains("{n}") || $0.value.hasNumber }
        }
    }

    /// The tree with `{n}` replaced by a number; what has none is shared, not copied.
    func numbered(_ number: Int) -> Node {
        guard hasNumber else { return self }
        switch content {
        case .scalar(let text, let plain):
            return Node(.scalar(numberedText(text, number), plain: plain), mark)
        case .sequence(let items): return Node(.sequence(items.map { $0.numbered(number) }), mark)
        case .mapping(let entries):
            let all = entries.map {
                Entry(
                    name: numberedText($0.name, number), mark: $0.mark,
                    value: $0.value.numbered(number))
            }
            return Node(.mapping(all), mark)
        }
    }

    /// The node at a dotted path of keys, as far as it goes.
    func find(_ keys: some Collection<String>) -> Node? {
        var node: Node = self
        for key in keys {
            guard let next = node[key] else { return nil }
            node = next
        }
        return node
    }
}

func numberedText(_ text: String, _ number: Int) -> String {
    var out = ""
    var rest = text[...]
    while let range = rest.firstRange(of: "{n}") {
        out += rest[..<range.lowerBound] + String(number)
        rest = rest[range.upperBound...]
    }
    return out + rest
}
