// SPDX-License-Identifier: Apache-2.0
import Fleets

/// A key of the networks of a fleet that differs from what was applied, as one VM feels it.
struct NetworkChange: Equatable {
    let field: String
    let from: String
    let to: String
    let consequence: Consequence
}

/// What the changes of a fleet's networks mean for a VM that runs; pure.
func networkChanges(
    for vm: VM, from old: NetworkSettings, to new: NetworkSettings
) -> [NetworkChange] {
    var changes: [NetworkChange] = []
    for name in Set(vm.interfaces.filter { !$0.isUser }.map(\.network)).sorted() {
        guard let before = old.network(name), let after = new.network(name) else { continue }
        for key in differingKeys(before.json, after.json) {
            changes.append(
                NetworkChange(
                    field: "networks.\(name).\(key)", from: text(before.json[key]),
                    to: text(after.json[key]),
                    consequence: consequence(ofChangingNetwork: key, of: after)))
        }
    }
    guard vm.isOnNetwork else { return changes }
    let mine = { (settings: NetworkSettings) in
        settings.allow.filter { $0.from == vm.name || $0.to == vm.name }
    }
    if mine(old) != mine(new) {
        changes.append(
            NetworkChange(
                field: "allow", from: text(mine(old)), to: text(mine(new)),
                consequence: .live))
    }
    if old.trusted != new.trusted {
        changes.append(
            NetworkChange(
                field: "trusted", from: words(old.trusted), to: words(new.trusted),
                consequence: .live))
    }
    return changes
}

/// The keys of `publishing` that differ from what was applied; pure.
func publishingChanges(from old: Publishing, to new: Publishing) -> [NetworkChange] {
    let (before, after) = (old.json, new.json)
    return differingKeys(before, after).map { key in
        NetworkChange(
            field: "publishing.\(key)", from: text(before[key]), to: text(after[key]),
            consequence: .live)
    }
}

/// What it costs to change a key of a network: the guest itself knows its addresses and resolvers.
func consequence(ofChangingNetwork key: String, of network: Network) -> Consequence {
    switch key {
    case "egress", "isolated": .live
    // The network's own server asks them; on the host's bridge the guests do.
    case "dns": network.kind == .nat ? .live : .restart
    default: .restart
    }
}

private func differingKeys(_ a: JSONValue, _ b: JSONValue) -> [String] {
    var keys: [String] = []
    for member in a.members + b.members where !keys.contains(member.key) {
        if a[member.key] != b[member.key] { keys.append(member.key) }
    }
    return keys
}

private func text(_ openings: [Opening]) -> String {
    words(
        openings.map { opening in
            "\(opening.from) to \(opening.to) \(opening.ports.map(\.description).joined(separator: " "))"
        })
}

private func words(_ all: [String]) -> String {
    all.isEmpty ? "none" : all.joined(separator: ", ")
}

private func text(_ value: JSONValue?) -> String {
    switch value {
    case nil, .null: "none"
    case .string(let text): text
    case let value?: value.text()
    }
}
