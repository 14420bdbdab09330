// SPDX-License-Identifier: Apache-2.0
import Fleets

extension Draft {
    mutating func interface(_ element: Element) {
        let mac = element.at("mac")?["address"]
        let source = element.at("source")
        let type = element["type"] ?? ""
        switch type {
        case "network": network(source?["network"] ?? "default", mac)
        case "bridge":
            if let bridge = source?["bridge"] { hostBridge(bridge, mac) }
        case "direct": direct(source, mac)
        case "user":
            userInterface(mac: mac)
            for forward in element.all("portForward") { portForward(forward) }
            if element.at("ip") != nil {
                note("addresses of the user interface", "every guest has the same ones there")
            }
        case "hostdev": hostInterface(source)
        default:
            note(
                "an interface of the type '\(type)'", "there is no such network in a fleet file",
                "add one to `interfaces`")
        }
        extras(element)
    }

    /// A network of libvirt: what carries it says its own XML, where that is at hand.
    private mutating func network(_ name: String, _ mac: String?) {
        let xml = host.network(name).flatMap { try? parseXML($0) }
        let forward = xml?.at("forward")
        if let bridge = xml?.at("bridge")?["name"], forward?["mode"] == "bridge" {
            return hostBridge(bridge, mac)
        }
        let modes = ["bridge", "vepa", "private", "passthrough"]
        let parent = forward?["dev"] ?? forward?.at("interface")?["dev"]
        if let parent, let mode = forward?["mode"], modes.contains(mode) {
            return macvtap(parent, mode: mode == "passthrough" ? "passthru" : mode, mac: mac)
        }
        let isClosed = xml != nil && forward == nil
        privateNetwork(name, egress: isClosed ? "none" : nil, mac: mac)
        let address = xml?.at("ip").flatMap(cidr)
        note(
            "the network '\(name)' of libvirt", "it stays libvirt's own",
            "`networks` declares one of the same name, with addresses of its own"
                + (address.map { " instead of \($0)" } ?? "")
                + "; VMs on it are closed to each other until `allow` opens a port")
    }

    /// `192.168.122.1` and `255.255.255.0`, or a prefix, in one text.
    private func cidr(_ ip: Element) -> String? {
        guard let address = ip["address"] else { return nil }
        return ip["prefix"].map { "\(address)/\($0)" }
            ?? ip["netmask"].map { "\(address), netmask \($0)" } ?? address
    }

    private mutating func hostBridge(_ bridge: String, _ mac: String?) {
        self.bridge(bridge, mac: mac)
        if bridge.hasPrefix("virbr") {
            note(
                "the bridge \(bridge)", "libvirt makes it, and takes it away",
                "give the network a `subnet` instead of `bridge` to leave libvirt")
        }
    }

    private mutating func direct(_ source: Element?, _ mac: String?) {
        guard let parent = source?["dev"] else {
            return note("a macvtap interface", "it names no interface of the host")
        }
        let mode = source?["mode"] ?? "vepa"
        macvtap(parent, mode: mode == "passthrough" ? "passthru" : mode, mac: mac)
    }

    private mutating func hostInterface(_ source: Element?) {
        guard let address = source?.at("address").flatMap(pciAddress) else {
            return note("an interface of the host", "its address cannot be read", "use `devices`")
        }
        device("pci", address)
    }

    private mutating func portForward(_ forward: Element) {
        let transport = forward["proto"] == "udp" ? TransportProtocol.udp : .tcp
        let address = forward["address"].flatMap { IPAddress($0) } ?? .any
        if forward["dev"] != nil {
            note(
                "the interface '\(forward["dev"] ?? "")' of a forward", "forwards go by address",
                "write that interface's address before the port")
        }
        for range in forward.all("range") {
            guard let start = range["start"].flatMap(UInt16.init), start > 0 else { continue }
            let end = range["end"].flatMap(UInt16.init) ?? start
            let target = range["to"].flatMap(UInt16.init) ?? start
            if range["exclude"] == "yes" {
                note("ports \(start) to \(end), left out of a forward", "only named ports are open")
                continue
            }
            guard end >= start, end - start < 100, Int(target) + Int(end - start) < 65536 else {
                note("the forward of ports \(start) to \(end)", "each port is named by itself here")
                continue
            }
            for number in start...end {
                port(
                    PortForward(
                        address, host: number, guest: target + (number - start), transport))
            }
        }
        if forward.all("range").isEmpty {
            note("a forward of all ports", "each port is named by itself here", "use `ports`")
        }
    }

    private mutating func extras(_ element: Element) {
        let others = [
            (
                "virtualport", "the virtual port (Open vSwitch or 802.1Qbh)",
                "bridges are the kernel's"
            ),
            ("vlan", "the VLAN tag", "name a bridge that is in the VLAN"),
            ("mtu", "the MTU of an interface", "it is that of the network"),
            (
                "filterref", "the network filter",
                "MAC and address are pinned here, and `allow` and `egress` open what may pass"
            ),
        ]
        for (name, what, why) in others where element.at(name) != nil { note(what, why) }
        if element.at("link")?["state"] == "down" {
            note("an interface whose link is down", "interfaces are up", "take it out instead")
        }
        guard let bandwidth = element.at("bandwidth") else { return }
        let rates = ["inbound", "outbound"].compactMap {
            bandwidth.at($0)?["average"].flatMap(UInt64.init)
        }
        guard let rate = rates.max(), rate < 1 << 40,
            !limits.contains(where: { $0.key == "network" }),
            // libvirt counts kilobytes, as tc does: a thousand bytes.
            let limit = BitRate("\(rate * 8)kbit/s")
        else { return note("the bandwidth of an interface", "a VM has one limit", "see `limits`") }
        limits.append(.init("network", .string(limit.description)))
        if rates.count != 2 || rates[0] != rates[1] {
            note("different bandwidths in and out", "one limit holds for both", "it is \(limit)")
        }
    }
}

/// `0000:06:12.5` of the four attributes that libvirt writes; nil when they are none.
func pciAddress(_ address: Element) -> String? {
    func number(_ name: String, _ limit: UInt32) -> UInt32? {
        let text = address[name] ?? (name == "domain" ? "0x0000" : "")
        let digits = text.hasPrefix("0x") ? String(text.dropFirst(2)) : text
        return UInt32(digits, radix: text.hasPrefix("0x") ? 16 : 10).flatMap {
            $0 <= limit ? $0 : nil
        }
    }
    guard let domain = number("domain", 0xFFFF), let bus = number("bus", 0xFF),
        let slot = number("slot", 0x1F), let function = number("function", 7)
    else { return nil }
    func hex(_ value: UInt32, _ count: Int) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: max(0, count - text.count)) + text
    }
    return "\(hex(domain, 4)):\(hex(bus, 2)):\(hex(slot, 2)).\(function)"
}
