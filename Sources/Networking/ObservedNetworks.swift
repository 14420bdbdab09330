// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Glibc
import Linux

/// The networks of one fleet as they were found on the host.
package struct ObservedNetworks: Sendable {
    package enum Rules: String, Sendable {
        /// As this version of Martlet makes them, with every element that is needed.
        case current
        /// They are there, and say something else.
        case different
        case missing
        /// Only root can look.
        case unknown
    }

    package struct Interface: Sendable {
        package let port: Segment.Port
        package let network: Network
        package let addresses: [String]
        /// Nil when the host has no such link.
        package let link: Link?
    }

    package struct Observed: Sendable {
        package let network: Network
        /// The bridge, or the parent of macvtaps; nil when the host has none.
        package let link: Link?
        /// Whether its own server for names and addresses runs; nil for one that has none.
        package let hasServer: Bool?
        package let leases: [Lease]
    }

    /// An address that was given by DHCP.
    package struct Lease: Sendable, Equatable {
        package let mac: String
        package let address: String
        package let name: String?
    }

    package let rules: Rules
    package let segments: [Observed]
    package let interfaces: [Interface]
    /// Packets dropped, by reason; nil where only root can look.
    package let drops: [String: UInt64]?
}

extension HostNetwork {
    /// Looks at what is there of a fleet's networks, and changes nothing.
    package func observe(_ networks: [Network], _ wanted: FleetNetworks) throws -> ObservedNetworks
    {
        let links = try RouteSocket().links()
        // For anybody else the library fails with words of its own on standard error.
        let rules = geteuid() == 0 ? try? HostRules(of: owner) : nil
        let state: ObservedNetworks.Rules =
            if let rules {
                !rules.exists
                    ? .missing
                    : rules.isCurrent && rules.elements == wanted.elements ? .current : .different
            } else {
                .unknown
            }
        return ObservedNetworks(
            rules: state,
            segments: networks.map { network in
                let name = Networking.Segment(network: network, fleet: owner.fleet, ports: []).link
                let folder = "\(self.folder)/\(network.name)"
                return .init(
                    network: network, link: links.first { $0.name == name },
                    hasServer: network.kind == .nat ? DnsmasqServer.isRunning(folder) : nil,
                    leases: ObservedNetworks.leases(
                        (try? Files.readText("\(folder)/leases/leases")) ?? ""))
            },
            interfaces: wanted.segments.flatMap { segment in
                segment.ports.map { port in
                    .init(
                        port: port, network: segment.network,
                        addresses: segment.addresses(of: port),
                        link: links.first { $0.name == port.tap })
                }
            }, drops: rules?.drops)
    }
}

extension ObservedNetworks {
    /// The lines of dnsmasq's own file; what is no lease of IPv4 is left out.
    static func leases(_ text: String) -> [Lease] {
        text.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ").map(String.init)
            guard words.count >= 4, IPv4(words[2]) != nil else { return nil }
            return Lease(mac: words[1], address: words[2], name: words[3] == "*" ? nil : words[3])
        }
    }
}
