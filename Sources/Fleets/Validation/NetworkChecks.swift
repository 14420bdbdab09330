// SPDX-License-Identifier: Apache-2.0

extension Validator {
    func checkNetwork(_ network: Network) {
        let fail = { (steps: [Step], message: String) in
            places.fail("networks." + network.name, steps, message)
        }
        if network.name == "user" {
            fail([], "'user' is the built-in network without privilege; choose another name")
        }
        for (key, name) in [("bridge", network.bridge), ("macvtap", network.macvtap)] {
            if let name, !isInterfaceName(name) { fail([.key(key)], interfaceRule(name)) }
        }
        if network.bridge != nil, network.macvtap != nil {
            fail(["macvtap"], "a network is either a 'bridge' or a 'macvtap', not both")
        }
        if network.macvtap == nil, network.mode != .bridge {
            fail(["mode"], "'mode' is that of a 'macvtap' network, and this is none")
        }
        switch network.kind {
        case .nat:
            if network.subnet == nil {
                fail(
                    [],
                    "needs a 'subnet' such as 10.1.0.0/24, or a 'bridge' or 'macvtap' of the host")
            }
            if network.gateway != nil {
                fail(
                    ["gateway"], "the gateway here is Martlet's own: the first address of 'subnet'")
            }
        case .bridge:
            if network.egress != .internet {
                fail(
                    ["egress"],
                    "what passes over a bridge of the host is the LAN's to judge; use a network "
                        + "with 'subnet' and without 'bridge'")
            }
        case .macvtap:
            if network.subnet != nil || network.ipv6 {
                fail(
                    ["subnet"],
                    "guests on macvtap take their addresses from the LAN; use 'bridge' to pin them")
            }
            if network.egress != .internet {
                fail(
                    ["egress"],
                    "traffic on macvtap passes the host's firewall by; use a network with 'subnet'")
            }
        }
        checkSubnet(network, fail)
    }

    private func checkSubnet(_ network: Network, _ fail: ([Step], String) -> Void) {
        if let subnet = network.subnet {
            if !(8...30).contains(subnet.prefix) {
                fail(
                    ["subnet"],
                    "a subnet for VMs has a prefix from /8 to /30, found /\(subnet.prefix)")
            }
            let reserved = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"]
            for range in reserved.compactMap({ CIDR($0) }) where range.overlaps(subnet) {
                fail(["subnet"], "\(subnet) lies in \(range), which is reserved; use 10.x.y.0/24")
            }
            if let gateway = network.gateway, let problem = misplaced(gateway, in: subnet) {
                fail(["gateway"], problem)
            }
        } else if network.gateway != nil, network.kind == .bridge {
            fail(["gateway"], "'gateway' needs the 'subnet' it is in")
        }
        if network.subnet6 != nil, !network.ipv6 {
            fail(["subnet6"], "'subnet6' has no effect without 'ipv6: true'")
        }
        if let subnet = network.subnet6, !(48...64).contains(subnet.prefix) {
            fail(["subnet6"], "an IPv6 subnet for VMs has a prefix from /48 to /64")
        }
    }

    /// Why an address cannot be that of a host in a subnet; nil when it can.
    func misplaced(_ address: IPv4, in subnet: CIDR) -> String? {
        if !subnet.contains(address) { return "\(address) is outside the subnet \(subnet)" }
        if address == subnet.base { return "\(address) is the address of the subnet itself" }
        if address == subnet.broadcast { return "\(address) is the broadcast address of \(subnet)" }
        return nil
    }

    /// Subnets in the order of their addresses: one that starts before the last ends overlaps it.
    func checkSubnets() {
        let sorted = fleet.networks.compactMap { network in
            network.subnet.map { (name: network.name, subnet: $0) }
        }.sorted {
            ($0.subnet.base, $0.subnet.prefix) < ($1.subnet.base, $1.subnet.prefix)
        }
        guard var widest = sorted.first else { return }
        for next in sorted.dropFirst() {
            if widest.subnet.overlaps(next.subnet) {
                let place = places.place("networks." + widest.name, ["subnet"])
                places.fail(
                    "networks." + next.name, ["subnet"],
                    "\(next.subnet) overlaps \(widest.subnet) of networks.\(widest.name) (\(place)); "
                        + "packets would not find their way")
            }
            if next.subnet.broadcast > widest.subnet.broadcast { widest = next }
        }
        checkSubnets6()
    }

    private func checkSubnets6() {
        let all = fleet.networks.filter { $0.subnet6 != nil }
        for (index, network) in all.enumerated() {
            for other in all[..<index] {
                guard let a = network.subnet6, let b = other.subnet6, a.overlaps(b) else {
                    continue
                }
                places.fail(
                    "networks." + network.name, ["subnet6"],
                    "\(a) overlaps \(b) of networks.\(other.name)")
            }
        }
    }

    mutating func checkInterfaces(_ vm: VM) {
        var users = 0
        for (index, interface) in vm.interfaces.enumerated() {
            let at: [Step] = ["interfaces", .index(index)]
            if interface.isUser {
                users += 1
                if users > 1 { fail(vm, at, "one 'user' interface is all that a VM can have") }
            } else if !isKnown("networks", interface.network) {
                fail(
                    vm, at + ["network"],
                    "no network '\(interface.network)'"
                        + nearest(interface.network, in: networks.keys + ["user"]))
            }
            checkAddress(vm, interface, at)
            if let mac = interface.mac {
                if mac.isMulticast || mac.bits == 0 {
                    fail(vm, at + ["mac"], "\(mac) is no address of one machine; start it with 02:")
                }
                claim(
                    .mac(mac), vm, at + ["mac"],
                    "leave 'mac' out to derive one")
            }
            checkTap(vm, interface, at)
        }
        if let cid = vm.cid(fleet: fleet.name) {
            claim(
                .vsock(cid), vm, ["vsock"], "give one of them another number")
        }
    }

    private mutating func checkTap(_ vm: VM, _ interface: Interface, _ at: [Step]) {
        guard let tap = interface.tap else { return }
        if interface.isUser {
            return fail(vm, at + ["tap"], "a 'user' interface has no tap; remove 'tap'")
        }
        if !isInterfaceName(tap) {
            fail(vm, at + ["tap"], interfaceRule(tap))
        } else if ["vt-", "ve-", "vb-"].contains(where: tap.hasPrefix) {
            fail(
                vm, at + ["tap"],
                "systemd-networkd takes over interfaces named \(tap.prefix(3))*; choose another name"
            )
        }
        claim(.tap(tap), vm, at + ["tap"], "leave 'tap' out to derive one")
    }

    private mutating func checkAddress(_ vm: VM, _ interface: Interface, _ at: [Step]) {
        guard let address = interface.address else { return }
        let at = at + ["address"]
        if interface.isUser {
            return fail(vm, at, "the 'user' network gives every guest the same address; remove it")
        }
        guard let network = networks[interface.network] else { return }
        guard let subnet = network.subnet else {
            if network.kind != .nat {
                fail(
                    vm, at,
                    "the network '\(network.name)' has no 'subnet': its addresses come from the LAN; "
                        + "reserve \(address) there, or give the network 'subnet' and 'gateway'")
            }
            return
        }
        if let problem = misplaced(address, in: subnet) {
            fail(vm, at, "\(problem) of the network '\(network.name)'")
        } else if address == network.router {
            fail(vm, at, "\(address) is the gateway of the network '\(network.name)'")
        }
        claim(.address(address), vm, at, "give one of them another address")
    }
}
