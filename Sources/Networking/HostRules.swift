// SPDX-License-Identifier: Apache-2.0
import Fleets

/// A fleet's two tables as they are in the kernel.
package struct HostRules: Sendable {
    package let elements: Elements
    /// Whether these are the rules of this version; false also when there are none.
    package let isCurrent: Bool
    package let exists: Bool
    /// Packets dropped, by reason; both tables together.
    package let drops: [String: UInt64]

    package init(of owner: Owner) throws(NftablesError) {
        var elements = Elements()
        var drops: [String: UInt64] = [:]
        var chains: Set<String> = []
        var found = 0
        let tables = try Nftables.list("list tables").compactMap { $0["table"] }
        for family in [Elements.Family.inet, .bridge] {
            guard
                tables.contains(where: {
                    $0["family"]?.string == family.rawValue && $0["name"]?.string == owner.table
                })
            else { continue }
            found += 1
            let objects = try Nftables.list("list table \(family.rawValue) \(owner.table)")
            elements.read(objects, family)
            for object in objects {
                if let chain = object["chain"]?["name"]?.string { chains.insert(chain) }
                guard let counter = object["counter"], let name = counter["name"]?.string,
                    case .integer(let packets)? = counter["packets"]
                else { continue }
                drops[name, default: 0] += UInt64(max(0, packets))
            }
        }
        self.elements = elements
        self.drops = drops
        exists = found > 0
        isCurrent = found == 2 && chains.contains(Ruleset.version)
    }

    /// Makes the kernel hold these elements, in one transaction; returns what changed.
    ///
    /// Tables of other rules, or half of them, are made anew: nothing passes in between.
    package static func apply(
        _ wanted: Elements, of owner: Owner
    ) throws(NftablesError) -> Elements.Difference {
        let now = try HostRules(of: owner)
        let difference = wanted.difference(from: now.elements)
        if !now.isCurrent {
            let all = wanted.difference(from: Elements())
            try Nftables.run(Ruleset.text(owner.table) + all.commands(owner.table))
        } else if !difference.isEmpty {
            try Nftables.run(difference.commands(owner.table))
        }
        return difference
    }

    /// Removes both tables.
    package static func remove(_ owner: Owner) throws(NftablesError) {
        guard try HostRules(of: owner).exists else { return }
        var text = ""
        for family in ["inet", "bridge"] {
            text += "table \(family) \(owner.table)\ndelete table \(family) \(owner.table)\n"
        }
        try Nftables.run(text)
    }
}
