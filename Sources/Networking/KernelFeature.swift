// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// Something of the kernel that networks are made with.
package enum KernelFeature: String, Sendable, CaseIterable {
    case nftables, sets, connections, translation, local, rates, frames, rules
    case bridges, taps, macvtaps, queues, ifb, turning, flows, ipv6

    /// Its name for people, with the module that brings it.
    package var name: String {
        switch self {
        case .nftables: "nftables (nf_tables)"
        case .sets: "sets and maps of nftables (nf_tables)"
        case .connections: "connection tracking (nft_ct)"
        case .translation: "NAT (nft_nat, nft_masq)"
        case .local: "lookups of addresses (nft_fib_inet)"
        case .rates: "rates (nft_limit)"
        case .frames: "nftables on bridges (nf_tables, family bridge)"
        case .rules: "the rules as a whole"
        case .bridges: "bridges (bridge)"
        case .taps: "taps (tun, /dev/net/tun)"
        case .macvtaps: "macvtaps (macvtap)"
        case .queues: "queues with a rate (sch_htb)"
        case .ifb: "intermediate devices (ifb)"
        case .turning: "redirection (sch_ingress, cls_u32, act_mirred)"
        case .flows: "a list of connections (nf_conntrack_netlink)"
        case .ipv6: "IPv6"
        }
    }

    package var purpose: String {
        switch self {
        case .nftables, .sets, .connections, .rates, .frames, .rules: "the rules of all networks"
        case .translation: "the way out, and `ports`"
        case .local: "`ports`"
        case .bridges, .taps: "networks behind NAT and on bridges"
        case .macvtaps: "networks with `macvtap`"
        case .queues, .ifb, .turning: "`limits.network`"
        case .flows: "cutting connections that a change forbids"
        case .ipv6: "networks with `ipv6: true`"
        }
    }

    /// Rules that need this feature and little else; nil for what is no part of nftables.
    private var sample: String? {
        let chain = "chain c { type filter hook forward priority 0;"
        return switch self {
        case .nftables: "table inet t { \(chain)\n}\n}"
        case .sets:
            "table inet t { set s { type ifname . ipv4_addr; flags interval; }\n"
                + "\(chain) iifname . ip saddr @s accept;\n}\n}"
        case .connections: "table inet t { \(chain) ct state established accept;\n}\n}"
        case .translation:
            "table inet t { map m { type inet_proto . inet_service : ipv4_addr . inet_service; }\n"
                + "chain d { type nat hook prerouting priority -100; "
                + "dnat ip to meta l4proto . th dport map @m;\n}\n"
                + "chain s { type nat hook postrouting priority 100; masquerade;\n}\n}"
        case .local: "table inet t { \(chain) fib daddr type local accept;\n}\n}"
        case .rates:
            "table inet t { set r { type ifname; size 65535; flags dynamic; timeout 60s; }\n"
                + "\(chain) update @r { iifname limit rate over 9/second } drop;\n}\n}"
        case .frames:
            "table bridge t { chain c { type filter hook prerouting priority -300; "
                + "ether type arp arp operation request accept;\n}\n}"
        case .rules: Ruleset.text("martlet-check")
        default: nil
        }
    }
}

// MARK: - Trying them

extension KernelFeature {
    /// Tries everything, and returns what does not work, each with the reason.
    ///
    /// It does so in a network namespace of its own, which is gone afterwards: nothing of it is ever
    /// seen outside. EPERM is who may not make one.
    package static func missing() async throws -> [KernelFeature: String] {
        try await blocking {
            try enterNewNetwork()
            var missing: [KernelFeature: String] = [:]
            for feature in allCases {
                do { try feature.attempt() } catch { missing[feature] = "\(error)" }
            }
            return named(missing)
        }
    }

    /// Leaves the rules as a whole out where a part of them that is missing has been named; pure.
    static func named(_ missing: [KernelFeature: String]) -> [KernelFeature: String] {
        let isNamed = missing.keys.contains { $0.isRule }
        return isNamed ? missing.filter { $0.key != .rules } : missing
    }

    /// Whether it is one of the parts of nftables that `rules` puts together.
    private var isRule: Bool { self != .rules && sample != nil }

    private func attempt() throws {
        if let sample { return try Nftables.check(sample) }
        switch self {
        case .bridges:
            _ = try RouteSocket().addBridge("b0", mac: Self.mac, alias: "", group: 0)
        case .taps: _ = try Tap.open("t0", owner: nil).raw
        case .macvtaps:
            try withTap { tap, socket in
                _ = try socket.addMacvtap(
                    "m0", parent: tap.index, mode: .bridge, mac: Self.mac, alias: "", group: 0)
            }
        case .ifb: _ = try RouteSocket().addIFB("i0", alias: "", group: 0)
        case .queues:
            try withTap { tap, _ in
                try run("tc", "qdisc add dev \(tap.name) root handle 1: htb default 1")
            }
        case .turning:
            try withTap { tap, _ in
                try run("tc", "qdisc add dev \(tap.name) clsact")
                try run(
                    "tc",
                    "filter add dev \(tap.name) ingress protocol all u32 match u32 0 0 "
                        + "action mirred egress redirect dev \(tap.name)")
            }
        case .flows: try run("conntrack", "-L")
        case .ipv6: _ = try Sysctl.read("net/ipv6/conf/all/forwarding")
        default: break
        }
    }

    /// Makes a tap for one feature, under a name that no other has.
    ///
    /// It may outlive its descriptor: a child that another thread has just forked has a copy until
    /// its exec.
    private func withTap(_ body: (Link, borrowing RouteSocket) throws -> Void) throws {
        let name = "t-\(rawValue)"
        let tap = try Tap.open(name, owner: nil)
        let socket = try RouteSocket()
        if let link = try socket.link(name) { try body(link, socket) }
        _ = consume tap
    }

    /// Runs a tool; where it is not installed, nothing can be said.
    private func run(_ name: String, _ words: String) throws {
        guard let path = findProgram(name) else { return }
        let errors = try Pipe().split()
        let reader = Descriptor(owning: errors.reader)
        var program = Program(path, words.split(separator: " ").map(String.init))
        program.descriptors = [2: errors.writer]
        let child: Child
        do {
            child = try program.spawn()
        } catch {
            close(errors.writer)
            throw error
        }
        close(errors.writer)
        let said = String(decoding: try reader.readAll(limit: 65536), as: UTF8.self)
        guard try child.waitBlocking().isSuccess else {
            throw NetworkError.failed(
                what: name, reason: String(said.split(separator: "\n").first ?? "no reason given"))
        }
    }

    private static let mac = MACAddress(bits: 0x0200_0000_0001)
}
