// SPDX-License-Identifier: Apache-2.0
import Fleets

/// The rules of a fleet's two tables.
///
/// They never change with the fleet: VMs exist only as elements of the sets and maps, so what a
/// packet costs does not grow with their number. Two tables are the least: the family `inet` never
/// sees ARP, and `bridge` cannot translate addresses. Numbers stand for protocols, since a host
/// without /etc/protocols has no names for them (6 tcp, 17 udp, 58 icmpv6).
package enum Ruleset {
    /// Both tables, without elements, in place of what was there.
    static func text(_ table: String) -> String {
        var text = ""
        for family in ["inet", "bridge"] {
            text += "table \(family) \(table)\ndelete table \(family) \(table)\n"
        }
        return text + body(table) + "add chain inet \(table) \(version)\n"
    }

    private static func body(_ table: String) -> String { routed(table) + bridged(table) }

    /// The name of an empty chain that says which rules these are: tables without it are replaced.
    static let version = "rules-" + Derived.fingerprint(body("martlet"))

    /// The mark of a packet that came from a VM on a bridge of the host, in the upper half: the
    /// lower one is left to others.
    private static let lanMark = "0x6d760000"

    /// The mark of a VM's packet that the host routes, and that no entry of `allow` lets to a VM.
    ///
    /// Who is behind which address of a LAN is not known before the bridge has chosen the port. It is
    /// not the mark above: what the host itself answers carries that, where it reflects marks.
    private static let routedMark = "0x6d770000"

    /// Why packets were dropped: a named counter each, and the word that people see.
    package static let drops = [
        "spoofed", "invalid", "flood", "vm-to-vm", "egress", "inbound", "host", "rogue-server",
    ]

    /// What a reason means, for people.
    package static func explanation(_ reason: String) -> String {
        switch reason {
        case "spoofed": "sent with an address that is not the VM's own"
        case "invalid": "belongs to no connection"
        case "flood": "more than 1000 new connections a second"
        case "vm-to-vm": "from one VM to another without an entry of `allow`"
        case "egress": "to where the network's `egress` does not lead"
        case "inbound": "from outside to a VM, past its forwards"
        case "host": "to a service of this host"
        case "rogue-server": "a VM that played DHCP server or router"
        default: ""
        }
    }

    private static let counters = drops.map { "    counter \($0) { }\n" }.joined()

    private static func list(_ ranges: [some CustomStringConvertible]) -> String {
        ranges.map(\.description).joined(separator: ", ")
    }

    private static func drop(_ counter: String) -> String { "counter name \"\(counter)\" drop" }
}

// MARK: - What is routed

extension Ruleset {
    private static func routed(_ table: String) -> String {
        """
        table inet \(table) {
        \(counters)\(routedSets)
        \(guardChains)
        \(translationChains)
        \(forwardChains)
        \(inputChains)
        \(ownChains)
        }

        """
    }

    private static let routedSets = """
            set nets { type ifname; }
            set open-pairs { type ifname . ifname; }
            set trusted { type ifname; }
            set egress-all { type ifname; }
            set egress-internet { type ifname; }
            set egress-ports { type ifname . inet_proto . inet_service; }
            set egress-nets { type ifname . ipv4_addr; flags interval; }
            set egress-at { type ifname . ipv4_addr . inet_proto . inet_service; flags interval; }
            set sources4 { type ifname . ipv4_addr; flags interval; }
            set sources6 { type ifname . ipv6_addr; flags interval; }
            set nat4 { type ipv4_addr; flags interval; }
            set nat6 { type ipv6_addr; flags interval; }
            set gateways4 { type ifname . ipv4_addr; }
            set gateways6 { type ifname . ipv6_addr; }
            set allow4 { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
            set users { type uid; }
            set lan-guests4 { type ipv4_addr; }
            set allow6 { type ipv6_addr . ipv6_addr . inet_proto . inet_service; }
            set rate { type ifname; size 65535; flags dynamic; timeout 60s; }
            map forwards4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
            map forwards6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
            map forwards4-at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
            map forwards6-at { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
            set private4 { type ipv4_addr; flags interval; elements = { \(list(PrivateRanges.v4)) } }
            set private6 { type ipv6_addr; flags interval; elements = { \(list(PrivateRanges.v6)) } }
        """

    /// Before anything else: what a VM sends must come from its network's addresses.
    private static let guardChains = """
            chain guard {
                type filter hook prerouting priority raw; policy accept;
                iifname @nets jump guard-source
            }
            chain guard-source {
                ip daddr 127.0.0.0/8 \(drop("spoofed")) comment "route_localnet is on for forwards"
                ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
                meta nfproto ipv4 iifname . ip saddr != @sources4 \(drop("spoofed"))
                ip6 saddr fe80::/64 accept
                ip6 saddr :: accept
                meta nfproto ipv6 iifname . ip6 saddr != @sources6 \(drop("spoofed"))
            }
        """

    /// What comes from ::1 cannot leave the host: a relay of ours answers there, and must be reached.
    private static let translation = """
                fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @forwards4-at
                fib daddr type local dnat ip to meta l4proto . th dport map @forwards4
                ip6 daddr != ::1 fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @forwards6-at
                ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @forwards6
        """

    /// Forwards for others (prerouting) and for the host itself (output), and NAT on the way out.
    ///
    /// A VM on the LAN answers to whoever asks on the LAN by itself, past the host: the host must ask.
    private static let translationChains = """
            chain translate {
                type nat hook prerouting priority dstnat; policy accept;
        \(translation)
            }
            chain translate-own {
                type nat hook output priority -100; policy accept;
        \(translation)
            }
            chain outbound {
                type nat hook postrouting priority srcnat; policy accept;
                ct status dnat ip daddr @lan-guests4 masquerade
                oifname @nets ip saddr 127.0.0.0/8 masquerade
                oifname @nets accept
                ip saddr @nat4 masquerade
                ip6 saddr @nat6 masquerade
            }
        """

    /// What passes through the host; only what comes from a VM or goes to one is judged.
    private static let forwardChains = """
            chain forward {
                type filter hook forward priority filter; policy accept;
                meta mark & 0xffff0000 == \(lanMark) goto from-lan
                iifname @nets goto from-vm
                oifname @nets goto to-vm
            }
            chain from-vm {
                ct state established,related accept
                ct state invalid \(drop("invalid"))
                update @rate { iifname limit rate over 1000/second burst 2000 packets } \(drop("flood"))
                ip saddr . ip daddr . meta l4proto . th dport @allow4 accept
                ip6 saddr . ip6 daddr . meta l4proto . th dport @allow6 accept
                iifname . oifname @open-pairs accept
                oifname @nets \(drop("vm-to-vm"))
                meta mark set meta mark & 0x0000ffff | \(routedMark)
                iifname @egress-all accept
                iifname . ip daddr @egress-nets accept
                iifname . ip daddr . meta l4proto . th dport @egress-at accept
                ip daddr @private4 \(drop("egress"))
                ip6 daddr @private6 \(drop("egress"))
                iifname @egress-internet accept
                iifname . meta l4proto . th dport @egress-ports accept
                \(drop("egress"))
            }
            chain from-lan {
                ct state established,related accept
                ip saddr . ip daddr . meta l4proto . th dport @allow4 accept
                ip6 saddr . ip6 daddr . meta l4proto . th dport @allow6 accept
                meta mark set meta mark & 0x0000ffff | \(routedMark)
                oifname @nets goto to-vm
            }
            chain to-vm {
                ct state established,related accept
                ct status dnat accept
                iifname @trusted accept
                \(drop("inbound"))
            }
        """

    /// What comes out of a hypervisor by itself, for a `user` interface.
    ///
    /// To the host that is a process of its own, which may go anywhere; a VM that also is on a
    /// network would have a way around all of the above.
    private static let ownChains = """
            chain own {
                type filter hook output priority filter; policy accept;
                meta skuid \(Derived.users.lowerBound)-\(Derived.users.upperBound) goto from-hypervisor
            }
            chain from-hypervisor {
                ct state established,related accept
                ip daddr @nat4 \(drop("vm-to-vm")) comment "a forward changes the way out after us"
                ip6 daddr @nat6 \(drop("vm-to-vm"))
                meta skuid != @users accept
                meta l4proto { 6, 17 } th dport 53 accept comment "the host's resolver, which QEMU asks"
                fib daddr type local \(drop("host"))
                ip daddr @private4 \(drop("egress"))
                ip6 daddr @private6 \(drop("egress"))
            }
        """

    /// What VMs may ask of the host: addresses, names, and whether it is there.
    ///
    /// A network's gateway, and with it the names that it knows, is for its own VMs.
    private static let inputChains = """
            chain input {
                type filter hook input priority filter; policy accept;
                iifname @nets goto from-vm-to-host
                meta mark & 0xffff0000 == \(lanMark) goto from-lan-to-host
                iifname "lo" accept
                ip daddr @nat4 goto from-outside-to-gateway
                ip6 daddr @nat6 goto from-outside-to-gateway
            }
            chain from-outside-to-gateway {
                ct state established,related accept
                iifname @trusted accept
                \(drop("inbound")) comment "the kernel takes its addresses for its own from any side"
            }
            chain from-vm-to-host {
                ct state established,related accept
                udp sport 68 udp dport 67 accept
                udp dport 547 ip6 daddr ff02::1:2 accept
                icmpv6 type { 130, 131, 132, 133, 135, 136, 143 } accept
                iifname . ip daddr @gateways4 meta l4proto { 6, 17 } th dport 53 accept
                iifname . ip6 daddr @gateways6 meta l4proto { 6, 17 } th dport 53 accept
                iifname . ip daddr @gateways4 icmp type 8 limit rate 100/second accept
                iifname . ip6 daddr @gateways6 icmpv6 type 128 limit rate 100/second accept
                \(drop("host"))
            }
            chain from-lan-to-host {
                ct state established,related accept
                ip daddr @nat4 \(drop("host"))
                ip6 daddr @nat6 \(drop("host"))
                udp sport 68 udp dport 67 accept
                icmpv6 type { 130, 131, 132, 133, 135, 136, 143 } accept
                meta l4proto { 6, 17 } th dport 53 accept
                icmp type 8 limit rate 100/second accept
                icmpv6 type 128 limit rate 100/second accept
                \(drop("host"))
            }
        """
}

// MARK: - What is bridged

extension Ruleset {
    /// Each frame of a VM is held against what its interface may send; the rest is dropped.
    private static func bridged(_ table: String) -> String {
        """
        table bridge \(table) {
        \(counters)
            set ports { type ifname; }
            set lan { type ifname; }
            set isolated { type ifname; }
            set macs { type ifname . ether_addr; }
            set own4 { type ifname . ipv4_addr; }
            set own6 { type ifname . ipv6_addr; }
            set own6-raw { typeof iifname . @th,64,128; }
            set any4 { type ifname; }
            set any6 { type ifname; }
            chain guard {
                type filter hook prerouting priority -300; policy accept;
                iifname @ports goto frame
            }
            chain frame {
                iifname . ether saddr != @macs \(drop("spoofed"))
                iifname @lan meta mark set meta mark & 0x0000ffff | \(lanMark)
                ether type vmap { ip : goto frame-ip, ip6 : goto frame-ip6, arp : goto frame-arp }
                \(drop("spoofed"))
            }
            chain frame-ip {
                udp sport 67 \(drop("rogue-server"))
                udp dport 68 \(drop("rogue-server")) comment "clients look at no other port"
                ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
                iifname . ip saddr @own4 accept
                iifname @any4 accept
                \(drop("spoofed"))
            }
            chain frame-arp {
                arp htype != 1 \(drop("spoofed"))
                arp ptype != ip \(drop("spoofed"))
                arp hlen != 6 \(drop("spoofed"))
                arp plen != 4 \(drop("spoofed"))
                iifname . arp saddr ether != @macs \(drop("spoofed"))
                arp saddr ip 0.0.0.0 arp operation request accept
                iifname . arp saddr ip @own4 accept
                iifname @any4 accept
                \(drop("spoofed"))
            }
            chain frame-ip6 {
                icmpv6 type { 134, 137 } \(drop("rogue-server")) comment "router advert, redirect"
                udp sport 547 \(drop("rogue-server"))
                udp dport 546 \(drop("rogue-server"))
                iifname @any6 accept
                icmpv6 type 136 iifname . @th,64,128 != @own6-raw \(drop("spoofed"))
                iifname . ip6 saddr @own6 accept
                ip6 saddr :: icmpv6 type { 131, 133, 135, 143 } accept
                \(drop("spoofed"))
            }
            chain isolation {
                type filter hook forward priority 0; policy accept;
                iifname @isolated oifname @isolated \(drop("vm-to-vm"))
            }
            chain routed {
                type filter hook output priority 0; policy accept;
                meta mark & 0xffff0000 == \(routedMark) oifname @lan \(drop("vm-to-vm"))
            }
        }

        """
    }
}
