// SPDX-License-Identifier: Apache-2.0

/// The addresses that VMs were given, by VM and network.
package typealias KeptAddresses = [String: [String: IPv4]]

extension Fleet {
    /// The fleet with an address for each interface whose network has a subnet.
    ///
    /// What was given once is kept as long as it fits; a new VM gets the lowest address that is
    /// free and that no absent VM has. Pure, so that `plan` names the address that `up` will give.
    package func assigningAddresses(_ kept: KeptAddresses) -> Fleet {
        var result = self
        for network in networks where network.hasOwnAddresses {
            result.assignAddresses(on: network, kept)
        }
        return result
    }

    private mutating func assignAddresses(on network: Network, _ kept: KeptAddresses) {
        guard let subnet = network.subnet else { return }
        var taken: Set<IPv4> = Set(
            vms.flatMap(\.interfaces).filter { $0.network == network.name }.compactMap(\.address))
        if let router = network.router { taken.insert(router) }
        var waiting: [(vm: Int, interface: Int)] = []
        for (vm, interface) in unaddressed(on: network) {
            let before = kept[vms[vm].name]?[network.name]
            if let before, subnet.isHost(before), taken.insert(before).inserted {
                vms[vm].interfaces[interface].address = before
            } else {
                waiting.append((vm, interface))
            }
        }
        let absent = Set(kept.values.compactMap { $0[network.name] })
        let hosts = (subnet.base.value &+ 1..<subnet.broadcast.value).lazy.map { IPv4($0) }
        var fresh = hosts.filter { !taken.contains($0) && !absent.contains($0) }.makeIterator()
        // A subnet without room for more takes back what absent VMs had.
        var used = hosts.filter { !taken.contains($0) && absent.contains($0) }.makeIterator()
        for (vm, interface) in waiting {
            vms[vm].interfaces[interface].address = fresh.next() ?? used.next()
        }
    }

    private func unaddressed(on network: Network) -> [(Int, Int)] {
        vms.indices.flatMap { vm in
            vms[vm].interfaces.indices.filter { index in
                let interface = vms[vm].interfaces[index]
                return interface.network == network.name && interface.address == nil
            }.map { (vm, $0) }
        }
    }
}

extension Network {
    /// Whether guests get their addresses from the fleet, and not from somebody's DHCP.
    package var hasOwnAddresses: Bool { subnet != nil && kind != .macvtap }
}

extension CIDR {
    /// Whether an address can be that of a host in it.
    package func isHost(_ address: IPv4) -> Bool {
        contains(address) && address != base && address != broadcast
    }

    /// How many hosts it has room for.
    package var capacity: Int { max(0, (1 << (32 - prefix)) - 2) }
}
