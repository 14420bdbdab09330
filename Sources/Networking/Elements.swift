// SPDX-License-Identifier: Apache-2.0
import Fleets

/// The elements of a fleet's sets and maps, as nftables writes them.
package struct Elements: Sendable, Equatable {
    package enum Family: String, Sendable, Comparable {
        case inet, bridge
        package static func < (a: Family, b: Family) -> Bool { a.rawValue < b.rawValue }
    }

    package struct Key: Hashable, Sendable, Comparable {
        let family: Family
        let name: String

        package static func < (a: Key, b: Key) -> Bool {
            (a.family, a.name) < (b.family, b.name)
        }
    }

    /// An element's key, and its value in a map.
    package struct Element: Hashable, Sendable, Comparable {
        let key: String
        let value: String?

        package static func < (a: Element, b: Element) -> Bool { a.key < b.key }
        var text: String { value.map { "\(key) : \($0)" } ?? key }
    }

    package private(set) var sets: [Key: Set<Element>] = [:]

    package init() {}

    mutating func add(_ family: Family, _ set: String, _ key: Field..., to value: [Field]? = nil) {
        insert(Element(key: joined(key), value: value.map(joined)), Key(family: family, name: set))
    }

    mutating func insert(_ element: Element, _ key: Key) { sets[key, default: []].insert(element) }

    private func joined(_ fields: [Field]) -> String {
        fields.map(\.text).joined(separator: " . ")
    }

    package subscript(family: Family, set: String) -> [String] {
        (sets[Key(family: family, name: set)] ?? []).map(\.text).sorted()
    }
}

/// A part of an element.
enum Field {
    case link(String)
    case v4(IPv4)
    case net4(CIDR)
    case v6(IPv6)
    case net6(CIDR6)
    case mac(MACAddress)
    case transport(TransportProtocol)
    case port(UInt16)
    case user(UInt32)
    /// 128 bits that nftables knows no type for.
    case bits(IPv6)

    var text: String {
        switch self {
        case .link(let name): "\"\(name)\""
        case .v4(let address): address.description
        // A prefix of full length is listed without it.
        case .net4(let net): net.prefix == 32 ? net.base.description : net.description
        case .v6(let address): address.description
        case .net6(let net): net.prefix == 128 ? net.base.description : net.description
        case .mac(let mac): mac.description
        case .transport(let transport): transport == .tcp ? "6" : "17"
        case .port(let port): String(port)
        case .user(let user): String(user)
        case .bits(let value):
            // nftables leaves leading zeros out.
            value.high == 0
                ? "0x" + String(value.low, radix: 16)
                : "0x" + String(value.high, radix: 16) + padded(value.low)
        }
    }

    private func padded(_ value: UInt64) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: 16 - text.count) + text
    }
}

// MARK: - What a fleet needs

extension FleetNetworks {
    /// The elements that make this fleet's rules; pure.
    package var elements: Elements {
        var elements = Elements()
        for segment in segments where segment.kind != .macvtap {
            segment.addRouted(to: &elements)
            for port in segment.ports { segment.addBridged(port, to: &elements) }
        }
        guard !elements.sets.isEmpty else { return elements }
        for link in trusted { elements.add(.inet, "trusted", .link(link)) }
        for user in users { elements.add(.inet, "users", .user(user)) }
        for opening in openings { add(opening, to: &elements) }
        return elements
    }

    /// One element for each address of the one and each port of the other.
    private func add(_ opening: Opening, to elements: inout Elements) {
        func addresses(_ vm: String) -> [(IPv4, IPv6?)] {
            segments.flatMap { segment in
                segment.ports.filter { $0.vm == vm }.compactMap { port in
                    port.address.map { ($0, segment.address6(port)) }
                }
            }
        }
        for (from4, from6) in addresses(opening.from) {
            for (to4, to6) in addresses(opening.to) {
                for port in opening.ports {
                    elements.add(
                        .inet, "allow4", .v4(from4), .v4(to4), .transport(port.transport),
                        .port(port.port))
                    guard let from6, let to6 else { continue }
                    elements.add(
                        .inet, "allow6", .v6(from6), .v6(to6), .transport(port.transport),
                        .port(port.port))
                }
            }
        }
    }
}

extension Segment {
    fileprivate func addRouted(to elements: inout Elements) {
        for port in ports {
            addForwards(of: port, to: &elements)
            if kind == .bridge, !port.forwards.isEmpty, let address = port.address {
                elements.add(.inet, "lan-guests4", .v4(address))
            }
        }
        guard kind == .nat, let subnet = network.subnet, let router = network.router else { return }
        let link = Field.link(self.link)
        elements.add(.inet, "nets", link)
        elements.add(.inet, "sources4", link, .net4(subnet))
        elements.add(.inet, "nat4", .net4(subnet))
        elements.add(.inet, "gateways4", link, .v4(router))
        if let subnet = network.subnet6, let router = network.router6 {
            elements.add(.inet, "sources6", link, .net6(subnet))
            elements.add(.inet, "nat6", .net6(subnet))
            elements.add(.inet, "gateways6", link, .v6(router))
        }
        // A host with br_netfilter routes what is bridged past these rules, too.
        if !network.isolated { elements.add(.inet, "open-pairs", link, link) }
        addEgress(to: &elements)
    }

    private func addEgress(to elements: inout Elements) {
        let link = Field.link(self.link)
        switch network.egress {
        case .all: elements.add(.inet, "egress-all", link)
        case .internet: elements.add(.inet, "egress-internet", link)
        case .none: break
        case .only(let rules):
            for rule in rules where !rules.contains(where: { $0.covers(rule) }) {
                switch (rule.port, rule.destination) {
                case (let port?, let net?):
                    elements.add(
                        .inet, "egress-at", link, .net4(net), .transport(port.transport),
                        .port(port.port))
                case (let port?, nil):
                    elements.add(
                        .inet, "egress-ports", link, .transport(port.transport), .port(port.port))
                case (nil, let net?): elements.add(.inet, "egress-nets", link, .net4(net))
                case (nil, nil): break
                }
            }
        }
    }

    /// What an interface may send: its own addresses, where they are known.
    fileprivate func addBridged(_ port: Port, to elements: inout Elements) {
        let tap = Field.link(port.tap)
        elements.add(.bridge, "ports", tap)
        elements.add(.bridge, "macs", tap, .mac(port.mac))
        if network.isolated { elements.add(.bridge, "isolated", tap) }
        if kind == .bridge { elements.add(.bridge, "lan", tap) }
        if let address = port.address {
            elements.add(.bridge, "own4", tap, .v4(address))
        } else {
            elements.add(.bridge, "any4", tap)
        }
        // Whose IPv6 addresses the LAN gives cannot be pinned either.
        if kind == .bridge, network.ipv6 { elements.add(.bridge, "any6", tap) }
        for address in [port.linkLocal, address6(port)].compactMap({ $0 }) {
            elements.add(.bridge, "own6", tap, .v6(address))
            elements.add(.bridge, "own6-raw", tap, .bits(address))
        }
    }

    private func addForwards(of port: Port, to elements: inout Elements) {
        for forward in port.forwards {
            let transport = Field.transport(forward.transport)
            let (host, guest) = (Field.port(forward.host), Field.port(forward.guest))
            if let address = port.address, forward.address.reaches4 {
                let target = [Field.v4(address), guest]
                if case .v4(let listen) = forward.address, !forward.address.isAny {
                    elements.add(
                        .inet, "forwards4-at", .v4(listen), transport, host, to: target)
                } else {
                    elements.add(.inet, "forwards4", transport, host, to: target)
                }
            }
            if let address = address6(port), forward.address.reaches6 {
                let target = [Field.v6(address), guest]
                if case .v6(let listen) = forward.address, !forward.address.isAny {
                    elements.add(
                        .inet, "forwards6-at", .v6(listen), transport, host, to: target)
                } else {
                    elements.add(.inet, "forwards6", transport, host, to: target)
                }
            }
        }
    }
}

extension IPAddress {
    /// Whether somebody who connects by IPv4 means this address; any address is any of both families.
    fileprivate var reaches4: Bool { if case .v4 = self { true } else { isAny } }
    fileprivate var reaches6: Bool {
        // `::1` cannot be translated.
        if case .v6(let address) = self { address != IPv6(high: 0, low: 1) } else { isAny }
    }
}

extension EgressRule {
    /// Whether another rule opens all that this one does, and more: intervals must not overlap.
    fileprivate func covers(_ other: EgressRule) -> Bool {
        guard self != other, let mine = destination, let theirs = other.destination,
            port == nil ? other.port == nil : port == other.port
        else { return false }
        return mine.prefix < theirs.prefix && mine.contains(theirs.base)
    }
}
