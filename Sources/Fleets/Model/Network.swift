// SPDX-License-Identifier: Apache-2.0

/// A network that VMs are attached to.
package struct Network: Record {
    package var name = ""
    package var subnet: CIDR?
    package var subnet6: CIDR6?
    package var ipv6 = false
    package var egress = Egress.internet
    package var dns: [IPAddress] = []
    package var isolated = true
    package var bridge: String?
    package var gateway: IPv4?
    package var macvtap: String?
    package var mode = MacvtapMode.bridge

    package init() {}
    package init(name: String) { self.name = name }

    package enum Kind: Sendable { case nat, bridge, macvtap }

    /// What carries the network: our own bridge with NAT, a bridge of the host, or a macvtap.
    package var kind: Kind { bridge != nil ? .bridge : macvtap != nil ? .macvtap : .nat }

    /// The address that guests route through; the first of the subnet unless given.
    package var router: IPv4? { gateway ?? (kind == .nat ? subnet?.firstHost : nil) }

    /// The IPv6 gateway of a network of ours.
    package var router6: IPv6? {
        kind == .nat && ipv6 ? subnet6.map { IPv6(high: $0.base.high, low: $0.base.low | 1) } : nil
    }

    /// The IPv6 address that goes with an IPv4 address: the same number within its subnet.
    package func address6(of address: IPv4?) -> IPv6? {
        guard kind == .nat, ipv6, let address, let subnet, let subnet6 else { return nil }
        let number = UInt64(address.value - subnet.base.value)
        return IPv6(high: subnet6.base.high, low: subnet6.base.low | number)
    }

    package mutating func declare(_ key: Fields) {
        key("subnet", &subnet, "Addresses of the network; the first one is the gateway.")
        key("subnet6", &subnet6, "IPv6 addresses; derived from the fleet's name with `ipv6: true`.")
        key("ipv6", &ipv6, "Whether guests get IPv6 addresses as well.")
        key("egress", &egress, "What guests may reach: internet, all, none, or a list of rules.")
        key("dns", &dns, "Upstream resolvers; none stands for those of the host.")
        key("isolated", &isolated, "Whether VMs on this network are closed to each other.")
        key("bridge", &bridge, "An existing bridge of the host to attach to.")
        key("gateway", &gateway, "The router of a bridged network.")
        key("macvtap", &macvtap, "A host interface to share through macvtap.")
        key("mode", &mode, "How macvtap shares the host interface.")
    }
}

package enum MacvtapMode: String, Choice { case bridge, vepa, `private`, passthru, source }

package enum TransportProtocol: String, Choice { case tcp, udp }

/// What guests of a network may reach.
package enum Egress: Declared {
    /// Everything but private ranges.
    case internet
    case all
    case none
    case only([EgressRule])

    package static func read(_ scope: Scope) -> Egress? {
        if case .sequence = scope.node.content { return [EgressRule].read(scope).map(only) }
        switch scope.scalar() {
        case "internet": return .internet
        case "all": return .all
        case "none": return Egress.none
        default:
            scope.expected("internet, all, none, or a list such as [\"tcp:443\", 10.9.0.0/16]")
            return nil
        }
    }
    package var json: JSONValue {
        switch self {
        case .internet: "internet"
        case .all: "all"
        case .none: "none"
        case .only(let rules): rules.json
        }
    }
    package static var schema: JSONValue {
        ["anyOf": [["enum": ["internet", "all", "none"]], [EgressRule].schema]]
    }
}

/// One opening to the outside: `tcp:443`, `udp:53@9.9.9.9`, `10.9.0.0/16`.
package struct EgressRule: Notation {
    package var port: ProtocolPort?
    package var destination: CIDR?

    package init?(_ text: String) {
        let parts = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        if let port = ProtocolPort(String(parts[0])) {
            self.port = port
            guard parts.count == 2 else { return }
            guard let destination = Self.destination(String(parts[1])) else { return nil }
            self.destination = destination
        } else {
            guard parts.count == 1, let destination = Self.destination(text) else { return nil }
            self.destination = destination
        }
    }

    private static func destination(_ text: String) -> CIDR? {
        CIDR(text) ?? IPv4(text).map { CIDR(base: $0, prefix: 32) }
    }

    package var description: String {
        let target = destination.map { $0.prefix == 32 ? $0.base.description : $0.description }
        return [port?.description, target].compactMap { $0 }.joined(separator: "@")
    }
    package static var expected: String { "tcp:443, udp:53@9.9.9.9 or a subnet" }
    package static var pattern: String { "^((tcp|udp):[0-9]+(@[0-9./]+)?|[0-9./]+)$" }
}

/// A port of one protocol, written `tcp:8085`.
package struct ProtocolPort: Notation {
    package var transport: TransportProtocol
    package var port: UInt16

    package init(_ transport: TransportProtocol, _ port: UInt16) {
        self.transport = transport
        self.port = port
    }
    package init?(_ text: String) {
        let parts = text.pieces(":")
        guard parts.count == 2, let transport = TransportProtocol(rawValue: String(parts[0])),
            let port = UInt16(parts[1]), port > 0
        else { return nil }
        self.init(transport, port)
    }

    package var description: String { "\(transport.rawValue):\(port)" }
    package static var expected: String { "a port such as tcp:443" }
    package static var pattern: String { "^(tcp|udp):[0-9]+$" }
}

/// An opening between two VMs; everything else between them is closed.
package struct Opening: Record {
    package var from = ""
    package var to = ""
    package var ports: [ProtocolPort] = []
    package var reason: String?

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("from", &from, .required, "The VM that opens connections.")
        key("to", &to, .required, "The VM that accepts them.")
        key("ports", &ports, .required, "The ports that are open, such as tcp:8085.")
        key("reason", &reason, "Why, for whoever reads this later.")
    }
}

/// A VM's connection to a network.
package struct Interface: Record {
    package var network = "user"
    package var address: IPv4?
    /// Given, or derived from fleet, VM and position: never nil in a fleet.
    package var mac: MACAddress?
    /// Given or derived likewise; nil for a `user` interface, which has no tap.
    package var tap: String?

    package init() {}
    package init(network: String) { self.network = network }

    package var isUser: Bool { network == "user" }

    package mutating func declare(_ key: Fields) {
        key("network", &network, .required, "A network's name, or `user`.")
        key("address", &address, "A fixed IPv4 address within the network's subnet.")
        key("mac", &mac, "The hardware address; derived from the VM's name unless given.")
        key("tap", &tap, "The host's name of the interface; derived unless given.")
    }
}

/// A port of the host that leads to one of the guest: `127.0.0.1:2201:22`, `5353:53/udp`.
package struct PortForward: Notation {
    package var address: IPAddress
    package var host: UInt16
    package var guest: UInt16
    package var transport: TransportProtocol

    package init(
        _ address: IPAddress = .any, host: UInt16, guest: UInt16,
        _ transport: TransportProtocol = .tcp
    ) {
        self.address = address
        self.host = host
        self.guest = guest
        self.transport = transport
    }

    package init?(_ text: String) {
        var rest = text[...]
        transport = .tcp
        if let slash = rest.utf8.lastIndex(of: UInt8(ascii: "/")) {
            guard let named = TransportProtocol(rawValue: String(rest[rest.index(after: slash)...]))
            else { return nil }
            transport = named
            rest = rest[..<slash]
        }
        address = .any
        if rest.hasPrefix("["), let end = rest.firstIndex(of: "]") {
            guard let address = IPv6(String(rest[rest.index(after: rest.startIndex)..<end])),
                rest[end...].hasPrefix("]:")
            else { return nil }
            self.address = .v6(address)
            rest = rest[rest.index(end, offsetBy: 2)...]
        }
        var parts = rest.pieces(":")
        if parts.count == 3, text.first != "[", let address = IPv4(String(parts[0])) {
            self.address = .v4(address)
            parts.removeFirst()
        }
        guard parts.count == 2, let host = UInt16(parts[0]), let guest = UInt16(parts[1]), host > 0,
            guest > 0
        else { return nil }
        self.host = host
        self.guest = guest
    }

    /// `127.0.0.1:2201` or `[::1]:2201`.
    package var hostEndpoint: String {
        if case .v6 = address { return "[\(address)]:\(host)" }
        return "\(address):\(host)"
    }

    package var description: String {
        let front = address == .any ? "\(host)" : hostEndpoint
        return "\(front):\(guest)" + (transport == .udp ? "/udp" : "")
    }
    package static var expected: String {
        "[address:]host:guest[/udp] with ports from 1 to 65535, such as 8080:80"
    }
    package static var pattern: String {
        #"^((\[[0-9A-Fa-f:]+\]|[0-9.]+):)?[0-9]+:[0-9]+(/(tcp|udp))?$"#
    }
}

/// A TCP or UDP port.
package struct Port: Declared, Codable, Hashable, ExpressibleByIntegerLiteral {
    package var number: UInt16

    package init(_ number: UInt16) { self.number = number }
    package init(integerLiteral value: UInt16) { number = value }

    package static func read(_ scope: Scope) -> Port? {
        scope.parse("a port from 1 to 65535") { UInt16($0).flatMap { $0 > 0 ? Port($0) : nil } }
    }
    package var json: JSONValue { JSONValue(number) }
    package static var schema: JSONValue { ["type": "integer", "minimum": 1, "maximum": 65535] }
}

/// Ports that the guest's own firewall opens.
package struct Firewall: Record {
    package var tcp: [Port] = []
    package var udp: [Port] = []

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("tcp", &tcp, "TCP ports open inside the guest; 22 is always open to the host.")
        key("udp", &udp, "UDP ports open inside the guest.")
    }
}

extension VM {
    /// The interface that forwards lead to and that is preferred on the way out: the first one on a
    /// network, else the first.
    package var mainInterface: Int? {
        interfaces.firstIndex { !$0.isUser } ?? interfaces.indices.first
    }

    /// Whether it has an interface that the host's network must be made for.
    package var isOnNetwork: Bool { interfaces.contains { !$0.isUser } }

    /// Every port that the guest's firewall opens, in order and once.
    ///
    /// Those of `firewall`, and those that `ports`, `publish` and the fleet's openings lead to.
    /// Health checks need none: they ask from inside.
    package func openPorts(allow: [Opening] = []) -> [ProtocolPort] {
        var all = firewall.tcp.map { ProtocolPort(.tcp, $0.number) }
        all += firewall.udp.map { ProtocolPort(.udp, $0.number) }
        all += ports.map { ProtocolPort($0.transport, $0.guest) }
        all += publish.compactMap { $0.port.map { ProtocolPort(.tcp, $0.number) } }
        all += allow.filter { $0.to == name }.flatMap(\.ports)
        return Set(all).sorted {
            ($0.port, $0.transport.rawValue) < ($1.port, $1.transport.rawValue)
        }
    }
}
