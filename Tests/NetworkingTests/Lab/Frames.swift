// SPDX-License-Identifier: Apache-2.0
import Fleets
import Synchronization
import Testing

/// A crafted Ethernet frame, by which it is recognised wherever it comes out: it carries a marker.
///
/// `mac` is the frame's own source address, `to` its destination unless the protocol has one.
/// Addresses of both families make packets of both families.
struct Frame: Sendable, CustomStringConvertible {
    /// What a failure calls it.
    var label: String
    /// Eight characters that no other frame has; the last four are the `xid` of DHCP.
    let marker: String
    private var fields: [String: JSONValue]

    private static let counter = Atomic(0)
    static let broadcast = "ff:ff:ff:ff:ff:ff"

    private init(_ label: String, _ kind: String, mac: String, _ fields: [String: JSONValue]) {
        let number = Frame.counter.wrappingAdd(1, ordering: .relaxed).newValue
        let text = String(number, radix: 36, uppercase: true)
        self.label = label
        marker = "mt" + String(repeating: "0", count: max(0, 6 - text.count)) + text
        self.fields = fields
        self.fields["kind"] = .string(kind)
        self.fields["source"] = .string(mac)
        self.fields["marker"] = .string(marker)
    }

    var description: String { label }

    /// The same under another name in failures.
    func called(_ label: String) -> Frame {
        var copy = self
        copy.label = label
        return copy
    }

    /// The same in an 802.1Q tag.
    func tagged(_ vlan: Int) -> Frame {
        var copy = self
        copy.label += " tagged \(vlan)"
        copy.fields["vlan"] = JSONValue(vlan)
        return copy
    }

    var request: JSONValue {
        .object(fields.sorted { $0.key < $1.key }.map { .init($0.key, $0.value) })
    }

    static func udp(
        mac: String, to target: String = broadcast, _ source: String, _ sourcePort: Int,
        _ destination: String, _ port: Int
    ) -> Frame {
        Frame(
            "udp \(source) to \(destination)", "udp", mac: mac,
            [
                "destination": .string(target), "from": .string(source),
                "to": .string(destination), "sport": JSONValue(sourcePort),
                "dport": JSONValue(port),
            ])
    }

    /// A segment with a payload; `flags` are TCP's, a SYN unless given.
    static func tcp(
        mac: String, to target: String = broadcast, _ source: String, _ sourcePort: Int,
        _ destination: String, _ port: Int, flags: Int = 2
    ) -> Frame {
        Frame(
            "tcp \(source) to \(destination)", "tcp", mac: mac,
            [
                "destination": .string(target), "from": .string(source),
                "to": .string(destination), "sport": JSONValue(sourcePort),
                "dport": JSONValue(port), "flags": JSONValue(flags),
            ])
    }

    static func ping(
        mac: String, to target: String = broadcast, _ source: String, _ destination: String
    ) -> Frame {
        Frame(
            "ping \(source) to \(destination)", "ping", mac: mac,
            [
                "destination": .string(target), "from": .string(source),
                "to": .string(destination),
            ])
    }

    /// An ARP request from `sender`, which the packet claims to be at `claimed`.
    static func arpRequest(
        mac: String, claimed: String? = nil, sender: String, asking target: String
    ) -> Frame {
        arp(
            "arp request \(sender)", 1, mac, broadcast, claimed ?? mac, sender,
            "00:00:00:00:00:00", target)
    }

    /// An ARP reply that says to `to` that `sender` is at `claimed`.
    static func arpReply(
        mac: String, claimed: String? = nil, sender: String, to target: String,
        _ address: String
    ) -> Frame {
        arp("arp reply \(sender)", 2, mac, target, claimed ?? mac, sender, target, address)
    }

    /// An ARP announcement to everybody.
    static func gratuitousARP(mac: String, claimed: String? = nil, _ address: String) -> Frame {
        // A kernel takes a reply for gratuitous only where its target is the sender in all respects.
        let claimed = claimed ?? mac
        return arp(
            "gratuitous arp \(address)", 2, mac, broadcast, claimed, address, claimed, address)
    }

    private static func arp(
        _ label: String, _ operation: Int, _ source: String, _ destination: String,
        _ sender: String, _ from: String, _ target: String, _ to: String
    ) -> Frame {
        Frame(
            label, "arp", mac: source,
            [
                "destination": .string(destination), "operation": JSONValue(operation),
                "sender": .string(sender), "from": .string(from), "target": .string(target),
                "to": .string(to),
            ])
    }

    static func neighbourSolicitation(mac: String, _ source: String, asking target: String) -> Frame
    {
        icmp6("neighbour solicitation \(source)", "solicitation", mac, source, ["target": target])
    }

    /// Says that `target` is at `claimed`.
    static func neighbourAdvertisement(
        mac: String, claimed: String? = nil, _ source: String, about target: String
    ) -> Frame {
        icmp6(
            "neighbour advertisement \(target)", "advertisement", mac, source,
            ["target": target, "claimed": claimed ?? mac])
    }

    /// A router that offers a prefix of 64 bits and itself.
    static func routerAdvertisement(mac: String, _ source: String, prefix: String) -> Frame {
        icmp6("router advertisement", "router advertisement", mac, source, ["prefix": prefix])
    }

    static func routerSolicitation(mac: String, _ source: String) -> Frame {
        icmp6("router solicitation", "router solicitation", mac, source, [:], to: "ff02::2")
    }

    /// Says that `about` is better reached through `target`.
    static func redirect(mac: String, _ source: String, about: String, through target: String)
        -> Frame
    {
        icmp6("redirect", "redirect", mac, source, ["about": about, "target": target])
    }

    private static func icmp6(
        _ label: String, _ kind: String, _ mac: String, _ source: String,
        _ more: [String: String], to: String = "ff02::1"
    ) -> Frame {
        var fields = more.mapValues { JSONValue.string($0) }
        fields["from"] = .string(source)
        fields["to"] = .string(to)
        let last = to == "ff02::2" ? "02" : "01"
        fields["destination"] = .string("33:33:00:00:00:\(last)")
        return Frame(label, kind, mac: mac, fields)
    }

    /// A client's search for a server; `client` is the hardware address that it gives.
    static func dhcpDiscover(mac: String, client: String? = nil) -> Frame {
        dhcp(
            "dhcp discover", 1, mac, "0.0.0.0", 68, 67,
            ["client": .string(client ?? mac)])
    }

    /// What a server that nobody asked for would say to everybody.
    static func dhcpOffer(mac: String, server: String, client: String, offered: String) -> Frame {
        dhcp(
            "dhcp offer", 2, mac, server, 67, 68,
            ["client": .string(client), "offered": .string(offered)])
    }

    private static func dhcp(
        _ label: String, _ message: Int, _ mac: String, _ from: String, _ sourcePort: Int,
        _ port: Int, _ more: [String: JSONValue]
    ) -> Frame {
        let common: [String: JSONValue] = [
            "message": JSONValue(message), "from": .string(from), "to": "255.255.255.255",
            "sport": JSONValue(sourcePort), "dport": JSONValue(port),
        ]
        return Frame(label, "dhcp", mac: mac, common.merging(more) { $1 })
    }

    /// An advertisement of a DHCPv6 server.
    static func dhcpv6Server(mac: String, _ source: String, to address: String = "ff02::1") -> Frame
    {
        Frame(
            "dhcpv6 server", "dhcpv6", mac: mac,
            [
                "message": 2, "from": .string(source), "to": .string(address),
                "destination": "33:33:00:00:00:01", "sport": 547, "dport": 546,
            ])
    }

    /// A spanning tree message, as of a switch that wants to be the root.
    static func bpdu(mac: String) -> Frame { Frame("bpdu", "bpdu", mac: mac, [:]) }

    /// A frame of another protocol, such as 0x88CC.
    static func other(mac: String, to target: String = broadcast, type: Int) -> Frame {
        Frame(
            "type 0x\(String(type, radix: 16))", "other", mac: mac,
            ["destination": .string(target), "type": JSONValue(type)])
    }

    /// The very bytes, which must hold the marker that they are to be recognised by.
    static func bytes(_ make: (_ marker: [UInt8]) -> [UInt8]) -> Frame {
        var frame = Frame("bytes", "hex", mac: "", [:])
        frame.fields["hex"] = .string(hexadecimal(make(Array(frame.marker.utf8))))
        return frame
    }
}

/// Two digits for each byte.
func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}
