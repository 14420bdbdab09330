// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// A chain of somebody else's firewall that drops what our bridges carry.
///
/// A packet passes the chains of all tables: what another one drops, no rule of ours can save.
package struct ForeignFirewall: Sendable, Equatable {
    package enum Maker: String, Sendable { case docker, ufw, firewalld, other }
    package enum Hook: String, Sendable { case forward, input }

    package let family: String
    package let table: String
    package let chain: String
    package let hook: Hook
    package let maker: Maker
    /// Those of our bridges that it closes.
    package let bridges: [String]

    /// A bridge whose packets pass the hooks of the packet filter.
    package struct Bridge: Sendable, Equatable {
        package let name: String
        package let subnet: CIDR?
        package let hasIPv6: Bool
        /// Whether it is one of ours, whose VMs ask this host for addresses and names.
        package let isOurs: Bool

        package init(name: String, subnet: CIDR?, hasIPv6: Bool = false, isOurs: Bool = true) {
            self.name = name
            self.subnet = subnet
            self.hasIPv6 = hasIPv6
            self.isOurs = isOurs
        }
    }

    package var text: String {
        let owner =
            switch maker {
            case .docker: " (Docker)"
            case .ufw: " (ufw)"
            case .firewalld: " (firewalld)"
            case .other: ""
            }
        let what =
            hook == .forward
            ? "forwarded packets of \(bridges.joined(separator: ", "))"
            : "what \(bridges.joined(separator: ", ")) asks of this host (DHCP and DNS of VMs)"
        return "the chain '\(family) \(table) \(chain)'\(owner) drops \(what)"
    }

    /// The commands that open it for our bridges.
    package var commands: [String] {
        switch (maker, hook) {
        case (.ufw, .forward):
            bridges.flatMap { ["ufw route allow in on \($0)", "ufw route allow out on \($0)"] }
        case (.ufw, .input): bridges.map { "ufw allow in on \($0)" }
        case (.firewalld, _):
            bridges.map { "firewall-cmd --permanent --zone=trusted --add-interface=\($0)" }
                + ["firewall-cmd --reload"]
        case (.docker, _): insertions("DOCKER-USER")
        case (.other, _): insertions(chain)
        }
    }

    /// Whether the commands act until the firewall is loaded anew, and no longer.
    package var isTransient: Bool { maker == .docker || maker == .other }

    private func insertions(_ chain: String) -> [String] {
        let ends = hook == .forward ? ["iifname", "oifname"] : ["iifname"]
        var names = bridges.filter { !$0.hasPrefix("mb-") }
        // All of ours by one rule, also those that are yet to come.
        if names.count < bridges.count { names.insert("mb-*", at: 0) }
        return names.flatMap { name in
            ends.map { "nft insert rule \(family) \(table) \(chain) \($0) \"\(name)\" accept" }
        }
    }
}

// MARK: - Finding them

extension ForeignFirewall {
    /// The closed chains of the calling thread's network namespace.
    package static func look(for bridges: [Bridge]) throws(NftablesError) -> [ForeignFirewall] {
        var found: [ForeignFirewall] = []
        for (family, table) in suspects(try Nftables.list("list chains")) {
            found += find(in: try Nftables.list("list table \(family) \(table)"), for: bridges)
        }
        return found
    }

    /// The tables that may drop what is ours; pure.
    static func suspects(_ chains: [JSONValue]) -> [(family: String, table: String)] {
        var found: [(family: String, table: String)] = []
        for chain in chains.compactMap({ $0["chain"].flatMap(FirewallChain.init) })
        where chain.hook != nil && !found.contains(where: { $0 == (chain.family, chain.table) }) {
            found.append((chain.family, chain.table))
        }
        return found
    }

    /// The closed chains among the objects of a table; pure.
    static func find(in objects: [JSONValue], for bridges: [Bridge]) -> [ForeignFirewall] {
        let chains = objects.compactMap { $0["chain"].flatMap(FirewallChain.init) }
        var rules: [String: [FirewallRule]] = [:]
        for rule in objects.compactMap({ $0["rule"] }) {
            guard let chain = rule["chain"]?.string else { continue }
            rules[chain, default: []].append(FirewallRule(rule["expr"]?.elements ?? []))
        }
        return chains.compactMap { chain in
            guard let hook = chain.hook else { return nil }
            let closed = bridges.filter { bridge in
                if chain.family == "ip6", !bridge.hasIPv6 { return false }
                return packets(of: bridge, hook, chain).contains { packet in
                    switch FirewallRule.judge(packet, chain.name, rules) {
                    case .accept: false
                    case .drop: true
                    case nil: chain.drops
                    }
                }
            }
            guard !closed.isEmpty else { return nil }
            return ForeignFirewall(
                family: chain.family, table: chain.table, chain: chain.name, hook: hook,
                maker: maker(chain, hook, chains.map(\.name)), bridges: closed.map(\.name))
        }
    }

    /// The packets that must pass for the bridge's VMs to be served.
    private static func packets(
        of bridge: Bridge, _ hook: Hook, _ chain: FirewallChain
    ) -> [FirewallRule.Packet] {
        let leaving = FirewallRule.Packet(link: bridge.name, end: .input, subnet: bridge.subnet)
        if hook == .input {
            guard bridge.isOurs else { return [] }
            // Who asks for an address has none yet.
            let lease = FirewallRule.Packet(link: bridge.name, end: .input, port: 67)
            var name = leaving
            name.port = 53
            return chain.family == "ip6" ? [name] : [lease, name]
        }
        // firewalld judges by where a packet comes from, and lets forwards pass by itself.
        if chain.table == "firewalld" { return [leaving] }
        return [leaving, .init(link: bridge.name, end: .output, subnet: bridge.subnet)]
    }

    private static func maker(_ chain: FirewallChain, _ hook: Hook, _ chains: [String]) -> Maker {
        if chain.table == "firewalld" { return .firewalld }
        if hook == .forward, chains.contains("DOCKER-USER") { return .docker }
        let isUFW = chains.contains { $0.hasPrefix("ufw-") || $0.hasPrefix("ufw6-") }
        return isUFW ? .ufw : .other
    }
}

/// A chain of somebody else.
private struct FirewallChain {
    let family: String
    let table: String
    let name: String
    /// Nil for a chain at another place, and one that is only jumped to.
    let hook: ForeignFirewall.Hook?
    /// Whether it drops what no rule decides.
    let drops: Bool

    /// Nil for chains of ours, and of families that never see what our bridges carry.
    init?(_ chain: JSONValue) {
        guard let family = chain["family"]?.string, let table = chain["table"]?.string,
            let name = chain["name"]?.string, ["ip", "ip6", "inet"].contains(family),
            !table.hasPrefix("martlet-")
        else { return nil }
        self.family = family
        self.table = table
        self.name = name
        let isFilter = chain["type"]?.string == "filter"
        hook = isFilter ? chain["hook"]?.string.flatMap(ForeignFirewall.Hook.init) : nil
        drops = chain["policy"]?.string == "drop"
    }
}
