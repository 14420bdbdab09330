// SPDX-License-Identifier: Apache-2.0

/// Who reaches whom: addresses that are known, openings that can be made, forwards that lead somewhere.
extension Validator {
    /// A network must have room for its VMs, and a parent that can be shared so often.
    func checkRoom(_ network: Network) {
        let users = fleet.vms.filter { vm in
            vm.interfaces.contains { $0.network == network.name }
        }
        if network.kind == .macvtap, network.mode == .passthru, users.count > 1 {
            places.fail(
                "networks." + network.name, ["mode"],
                "'passthru' gives the interface to one VM alone, and \(users.count) name it: "
                    + users.map(\.name).joined(separator: ", "))
        }
        guard network.hasOwnAddresses, let subnet = network.subnet, subnet.prefix <= 30 else {
            return
        }
        let wanted = fleet.vms.reduce(0) { sum, vm in
            sum + vm.interfaces.count { $0.network == network.name }
        }
        // One is the gateway's.
        if wanted > subnet.capacity - 1 {
            places.fail(
                "networks." + network.name, ["subnet"],
                "\(subnet) has room for \(max(0, subnet.capacity - 1)) VMs, and \(wanted) "
                    + "interfaces are on it; choose a shorter prefix")
        }
    }

    func checkForward(_ vm: VM, _ forward: PortForward, _ at: [Step]) {
        guard let main = vm.mainInterface else { return }
        let network = networks[vm.interfaces[main].network]
        if case .v6 = forward.address, !forward.address.isAny {
            guard let network else {
                return fail(
                    vm, at,
                    "QEMU forwards ports of IPv4 addresses only; name one, or use a network")
            }
            // From `::1` a relay leads to the VM's IPv4 address.
            let isLoopback = forward.address == .v6(IPv6(high: 0, low: 1))
            if isLoopback ? !network.hasOwnAddresses : !network.ipv6 || network.kind != .nat {
                fail(
                    vm, at,
                    "leads from an IPv6 address, and '\(network.name)' has no IPv6: "
                        + "add 'ipv6: true' to it")
            }
        } else if let network, network.kind == .bridge, network.subnet == nil {
            fail(
                vm, at,
                "the LAN gives '\(vm.name)' its address, so a forward cannot lead there: connect "
                    + "to it directly, or give the network '\(network.name)' a 'subnet'")
        }
    }

    func checkLimits(_ vm: VM) {
        guard vm.limits.network != nil else { return }
        for interface in vm.interfaces where networks[interface.network]?.kind == .macvtap {
            fail(
                vm, ["limits", "network"],
                "traffic on macvtap ('\(interface.network)') passes the host's queues by; "
                    + "use a network with 'subnet' or 'bridge'")
        }
    }

    func checkAllow() {
        for (index, opening) in fleet.allow.enumerated() {
            let base = "allow[\(index)]"
            for (key, name) in [("from", opening.from), ("to", opening.to)] {
                guard let vm = vms[name].map({ fleet.vms[$0] }) else {
                    if !isKnown("vms", name) {
                        places.fail(
                            base, [.key(key)], "no VM '\(name)'" + nearest(name, in: vms.keys))
                    }
                    continue
                }
                if vm.interfaces.allSatisfy({ $0.isUser }) {
                    places.fail(
                        base, [.key(key)],
                        "'\(name)' has only a 'user' interface, which other VMs cannot reach; "
                            + "give it one on a network")
                }
            }
            checkWay(opening, base)
            if opening.from == opening.to {
                places.fail(base, ["to"], "a VM reaches itself without an opening")
            }
            if opening.ports.isEmpty {
                places.fail(base, ["ports"], "opens nothing; name ports such as tcp:8085")
            }
        }
    }

    /// An opening is made of addresses: both ends must have one that the fleet knows.
    private func checkWay(_ opening: Opening, _ base: String) {
        func reachable(_ name: String) -> [Network]? {
            vms[name].map { fleet.vms[$0].interfaces.compactMap { networks[$0.network] } }
        }
        guard let from = reachable(opening.from), let to = reachable(opening.to) else { return }
        for (key, name, found) in [("from", opening.from, from), ("to", opening.to, to)] {
            guard !found.isEmpty, !found.contains(where: \.hasOwnAddresses) else { continue }
            places.fail(
                base, [.key(key)],
                "the LAN gives '\(name)' its address, so an opening cannot name it; give it an "
                    + "interface on a network with 'subnet'")
        }
        guard !from.isEmpty, !to.isEmpty else { return }
        let onlyBridges = (from + to).allSatisfy { $0.kind == .bridge }
        if onlyBridges, let shared = from.first(where: { one in to.contains(one) }),
            shared.isolated
        {
            places.fail(
                base, [],
                "VMs on the host's bridge are closed to each other as a whole; add "
                    + "'isolated: false' to '\(shared.name)', or use a network of Martlet's own")
        }
    }
}
