// SPDX-License-Identifier: Apache-2.0

/// One key that differs between two VMs: its dotted path in the file, and both values as written.
package struct FieldChange: Sendable, Equatable {
    /// Such as `memory`, `ssh.user`, `volumes[cache].size`.
    package let field: String
    /// Nil where the key was not set.
    package let from: String?
    package let to: String?

    package init(field: String, from: String?, to: String?) {
        self.field = field
        self.from = from
        self.to = to
    }
}

extension VM {
    /// What changes from an older VM to this one, in the order of the keys; names are not compared.
    ///
    /// Members of lists that have a name (volumes, shares, users) are matched by it.
    package func differences(from old: VM) -> [FieldChange] {
        guard self != old else { return [] }
        var changes: [FieldChange] = []
        compare("", old.json, json, into: &changes)
        return changes
    }
}

/// Values that are shown to nobody.
private let hidden: Set<String> = ["rootPasswordHash"]

private func compare(
    _ path: String, _ old: JSONValue?, _ new: JSONValue?, into changes: inout [FieldChange]
) {
    guard old != new else { return }
    if case .object(let before)? = old, case .object(let after)? = new {
        let added = after.filter { member in !before.contains { $0.key == member.key } }
        for key in before.map(\.key) + added.map(\.key) {
            compare(path.isEmpty ? key : "\(path).\(key)", old?[key], new?[key], into: &changes)
        }
        return
    }
    if case .array(let before)? = old, case .array(let after)? = new,
        let oldKeys = identities(before), let newKeys = identities(after)
    {
        for key in oldKeys + newKeys.filter({ !oldKeys.contains($0) }) {
            let at = { (keys: [String], all: [JSONValue]) in
                keys.firstIndex(of: key).map { all[$0] }
            }
            compare("\(path)[\(key)]", at(oldKeys, before), at(newKeys, after), into: &changes)
        }
        return
    }
    let show = { (value: JSONValue?) in
        value.map { hidden.contains(path) ? "(hidden)" : $0.flow }
    }
    changes.append(FieldChange(field: path, from: show(old), to: show(new)))
}

/// What tells the members of a list apart; nil when it is a list of plain values.
private func identities(_ all: [JSONValue]) -> [String]? {
    var keys: [String] = []
    for (index, element) in all.enumerated() {
        guard case .object = element else { return nil }
        let key = element["name"]?.string ?? element["tag"]?.string ?? String(index)
        if keys.contains(key) { return nil }
        keys.append(key)
    }
    return keys
}
