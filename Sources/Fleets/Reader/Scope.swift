// SPDX-License-Identifier: Apache-2.0

/// The way from the root of the document to a value.
indirect enum Path {
    case root
    case key(Path, String)
    case index(Path, Int)

    var text: String {
        switch self {
        case .root: ""
        case .key(.root, let name): name
        case .key(let path, let name): path.text + "." + name
        case .index(let path, let index): path.text + "[\(index)]"
        }
    }
}

/// A node, the way to it, and where mistakes go.
package struct Scope {
    let node: Node
    let path: Path
    let diagnostics: Diagnostics

    func fail(_ message: String) { diagnostics.add(node.mark, path.text, message) }

    func expected(_ what: String) { fail("expected \(what), found \(node.found)") }

    func at(_ entry: Node.Entry) -> Scope {
        Scope(node: entry.value, path: .key(path, entry.name), diagnostics: diagnostics)
    }

    /// The entries of a mapping; nothing written counts as an empty one.
    func mapping() -> [Node.Entry]? {
        if case .mapping(let entries) = node.content { return entries }
        if node.isNull { return [] }
        expected("a mapping")
        return nil
    }

    /// The items of a list; nothing written counts as an empty one.
    func items() -> [Scope]? {
        guard case .sequence(let items) = node.content else {
            if node.isNull { return [] }
            expected("a list")
            return nil
        }
        return items.indices.map {
            Scope(node: items[$0], path: .index(path, $0), diagnostics: diagnostics)
        }
    }

    /// The text of a scalar, quoted or not.
    func scalar() -> String? {
        guard case .scalar(let text, _) = node.content, !node.isNull else { return nil }
        return text
    }

    /// A text made from its notation; the mistake names what was expected.
    func parse<T>(_ what: String, _ make: (String) -> T?) -> T? {
        if let text = scalar(), let value = make(text) { return value }
        expected(what)
        return nil
    }
}

/// The known names that are nearest to a mistyped one, ready to append to a message.
package func nearest(_ name: String, in known: some Sequence<String>) -> String {
    let best = known.map { ($0, distance(name.lowercased(), $0.lowercased())) }.min {
        ($0.1, $0.0) < ($1.1, $1.0)
    }
    if let (candidate, edits) = best, edits <= max(1, min(3, name.count / 2)) {
        return "; did you mean '\(candidate)'?"
    }
    let all = known.sorted()
    if all.isEmpty { return "" }
    return all.count > 16 ? "" : "; known: \(all.joined(separator: ", "))"
}

/// Edits between two words (optimal string alignment: a swap of neighbours is one edit).
private func distance(_ a: String, _ b: String) -> Int {
    let (a, b) = (Array(a.utf8.prefix(64)), Array(b.utf8.prefix(64)))
    var before: [Int] = []
    var previous = Array(0...b.count)
    for i in a.indices {
        var row = [i + 1]
        for j in b.indices {
            var cost = min(
                previous[j] + (a[i] == b[j] ? 0 : 1), min(previous[j + 1], row[j]) + 1)
            if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] {
                cost = min(cost, before[j - 1] + 1)
            }
            row.append(cost)
        }
        (before, previous) = (previous, row)
    }
    return previous[b.count]
}
