// SPDX-License-Identifier: Apache-2.0
@testable import Fleets
@testable import Networking

/// Networks as they could have been found on a host.
enum MadeUpNetworks {
    static let network = {
        var network = Network(name: "one")
        network.subnet = CIDR("10.1.0.0/24")
        return network
    }()

    static func link(_ name: String, isUp: Bool = true) -> Link {
        Link(
            index: 7, name: name, kind: "bridge", group: Owner.group, isUp: isUp, hasCarrier: true,
            mtu: 1500,
            statistics: .init(
                receivedBytes: 2 << 20, sentBytes: 3 << 10, receivedPackets: 9, sentPackets: 8))
    }

    static let port = Segment.Port(
        vm: "web", index: 0, tap: "mv-web-abcdef", mac: MACAddress(bits: 0x0200_0000_0001),
        address: IPv4("10.1.0.2"), forwards: [PortForward(host: 8080, guest: 80)], limit: nil)

    /// One network of ours with one VM on it, or none.
    static func observed(
        rules: ObservedNetworks.Rules = .current, hasServer: Bool = true, isUsed: Bool = true
    ) -> ObservedNetworks {
        ObservedNetworks(
            rules: rules,
            segments: [
                .init(
                    network: network, link: isUsed ? link("mb-one-abcdef") : nil,
                    hasServer: hasServer,
                    leases: isUsed
                        ? [.init(mac: "02:00:00:00:00:01", address: "10.1.0.2", name: "web")] : [])
            ],
            interfaces: isUsed
                ? [
                    .init(
                        port: port, network: network, addresses: ["10.1.0.2"],
                        link: link("mv-web-abcdef"))
                ] : [], drops: isUsed ? ["egress": 3, "spoofed": 40, "host": 0] : nil)
    }
}
