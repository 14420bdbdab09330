// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// What one fleet needs of its host's network: plain data, from which all else follows.
package struct FleetNetworks: Sendable, Equatable {
    package let owner: Owner
    /// The networks that are in use, each with the interfaces on it.
    package let segments: [Segment]
    package let openings: [Opening]
    package let trusted: [String]
    /// The users of the living VMs that have a `user` interface as well.
    package let users: [UInt32]

    /// The networks of a fleet as its living VMs need them.
    ///
    /// A network without a living VM is not there. An interface whose network is unknown is left
    /// out: its VM was refused before.
    package init(
        owner: Owner, networks: [Network], openings: [Opening] = [], trusted: [String] = [],
        vms: [VM], users: [UInt32] = []
    ) {
        self.owner = owner
        self.users = users
        self.openings = openings
        self.trusted = trusted
        var ports: [String: [Segment.Port]] = [:]
        for vm in vms {
            for (index, interface) in vm.interfaces.enumerated() where !interface.isUser {
                guard let tap = interface.tap, let mac = interface.mac else { continue }
                ports[interface.network, default: []].append(
                    Segment.Port(
                        vm: vm.name, index: index, tap: tap, mac: mac, address: interface.address,
                        forwards: index == vm.mainInterface ? vm.ports : [],
                        limit: vm.limits.network))
            }
        }
        segments = networks.compactMap { network in
            guard let ports = ports[network.name] else { return nil }
            return Segment(network: network, fleet: owner.fleet, ports: ports)
        }
    }

    package var isEmpty: Bool { segments.isEmpty }
    package var taps: [Segment.Port] { segments.flatMap(\.ports) }
}

/// One network of a fleet on its host.
package struct Segment: Sendable, Equatable {
    package let network: Network
    /// The link that carries it: our bridge, the host's bridge, or the parent of macvtaps.
    package let link: String
    package let mac: MACAddress
    package let ports: [Port]

    init(network: Network, fleet: String, ports: [Port]) {
        self.network = network
        link =
            network.bridge ?? network.macvtap
            ?? Derived.bridge(fleet: fleet, network: network.name)
        mac = Derived.gatewayMAC(fleet: fleet, network: network.name)
        self.ports = ports
    }

    package var kind: Network.Kind { network.kind }

    /// An interface of a VM on it.
    package struct Port: Sendable, Equatable {
        package let vm: String
        /// The interface's place in the VM's list.
        package let index: Int
        /// The name of the host's end.
        package let tap: String
        package let mac: MACAddress
        /// Nil where the LAN's own DHCP gives it.
        package let address: IPv4?
        package let forwards: [PortForward]
        package let limit: BitRate?

        /// The address that the guest's kernel makes from its MAC.
        package var linkLocal: IPv6 {
            let bits = mac.bits
            let host =
                (bits >> 24 ^ 0x02_0000) << 40 | 0xFF_FE00_0000 | bits & 0xFF_FFFF
            return IPv6(high: 0xFE80 << 48, low: host)
        }
    }

    package func address6(_ port: Port) -> IPv6? { network.address6(of: port.address) }
}
