// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// The links, rules and servers of one fleet in the calling thread's network namespace.
///
/// `apply` looks at what is there and makes the difference: it can be killed anywhere and run again.
/// Whoever calls it holds the fleet's lock. Links without our alias are never touched.
package struct HostNetwork: Sendable {
    package let owner: Owner
    /// Holds the files of the servers; it is made before all else and goes last, so it tells
    /// whether something of ours can be here.
    package let folder: String

    package init(owner: Owner, folder: String) {
        self.owner = owner
        self.folder = folder
    }

    package var hasTraces: Bool { Files.exists(folder) }

    /// The programs that networks cannot be without, and their Debian packages.
    static let tools = [
        (name: "conntrack", package: "conntrack"),
        (name: DnsmasqServer.program, package: DnsmasqServer.package),
    ]

    /// Makes the host as the fleet needs it; nothing is left when it needs nothing.
    ///
    /// What closes comes before what opens: rules before links, and links before rules go. The
    /// networks that are new are checked first, and refused before anything is changed; one that is
    /// in use stays as it is, whatever became of the host since.
    package func apply(
        _ wanted: FleetNetworks, checking isNew: (Segment) -> Bool = { _ in true }
    ) throws {
        let socket = try RouteSocket()
        let links = try socket.links()
        try wanted.check(wanted.segments.filter(isNew), links, try socket.connectedSubnets())
        try Files.makeFolder(folder)
        let difference = try HostRules.apply(wanted.elements, of: owner)
        for segment in wanted.segments where segment.kind == .nat {
            try makeBridge(segment, wanted, links, socket)
        }
        try adjustPorts(wanted, links, socket)
        try Forwarding.open(for: wanted)
        let servers = Dnsmasq.all(for: wanted, below: folder)
        for server in servers { try DnsmasqServer(server).apply() }
        let names = Set(servers.map(\.network.name))
        for name in try Files.list(folder) where !names.contains(name) {
            let path = "\(folder)/\(name)"
            if Files.isFolder(path, followLinks: false) { try DnsmasqServer.remove(path) }
        }
        try removeStale(wanted, links, socket)
        try Flows.cut(difference, wanted)
        guard wanted.isEmpty else { return }
        try HostRules.remove(owner)
        try Files.remove(folder)
    }

    // MARK: - Bridges

    private func makeBridge(
        _ segment: Segment, _ wanted: FleetNetworks, _ links: [Link],
        _ socket: borrowing RouteSocket
    ) throws {
        let alias = owner.alias("network", segment.network.name)
        let existing = links.first { $0.name == segment.link }
        if let existing { try owner.checkOwned(existing) }
        let index =
            try existing?.index
            ?? socket.addBridge(
                segment.link, mac: segment.mac, alias: alias, group: Owner.group)
        let conf = "net/ipv4/conf/\(segment.link)"
        // Forwards from the host's own 127.0.0.1; the rules drop what VMs send to such addresses.
        try Sysctl.write("\(conf)/route_localnet", "1")
        // Between isolated ports the host answers for a neighbour, and so judges what passes.
        let isOpened = segment.network.isolated && wanted.hasOpening(within: segment)
        try Sysctl.write("\(conf)/proxy_arp_pvlan", isOpened ? "1" : "0")
        try Sysctl.write("\(conf)/send_redirects", "0")
        let conf6 = "net/ipv6/conf/\(segment.link)"
        if (try? Sysctl.read("\(conf6)/disable_ipv6")) != nil {
            try Sysctl.write("\(conf6)/accept_ra", "0")
            try Sysctl.write("\(conf6)/disable_ipv6", segment.network.ipv6 ? "0" : "1")
        }
        var changes = LinkChanges(isUp: true)
        if existing?.alias == nil { changes.alias = alias }
        if existing?.mac != segment.mac { changes.mac = segment.mac }
        try socket.set(index, changes)
        try setAddresses(segment, index, socket)
    }

    private func setAddresses(
        _ segment: Segment, _ index: Int32, _ socket: borrowing RouteSocket
    ) throws(SystemError) {
        var wanted: [InterfaceAddress] = []
        if let subnet = segment.network.subnet, let router = segment.network.router {
            wanted.append(.init(index: index, address: .v4(router), prefix: subnet.prefix))
        }
        if let subnet = segment.network.subnet6, let router = segment.network.router6 {
            wanted.append(.init(index: index, address: .v6(router), prefix: subnet.prefix))
        }
        for old in try socket.addresses() where old.index == index && !wanted.contains(old) {
            if case .v6(let address) = old.address, address.high == 0xFE80 << 48 { continue }
            try socket.removeAddress(index, old.address, prefix: old.prefix)
        }
        for address in wanted {
            try socket.addAddress(index, address.address, prefix: address.prefix)
        }
    }

    /// What a change of the file asks of taps that are in use.
    private func adjustPorts(
        _ wanted: FleetNetworks, _ links: [Link], _ socket: borrowing RouteSocket
    ) throws {
        for segment in wanted.segments where segment.kind != .macvtap {
            for port in segment.ports {
                guard let link = links.first(where: { $0.name == port.tap }), let at = link.port
                else { continue }
                if at.learns { try pin(port, link.index, segment, socket) }
                if at.isIsolated != segment.network.isolated {
                    try socket.setIsolated(link.index, segment.network.isolated)
                }
                try Shaper(port, owner, folder).apply(links, socket)
            }
        }
    }

    /// Removes links of ours that nobody wants; taps go by themselves with their VM.
    private func removeStale(
        _ wanted: FleetNetworks, _ links: [Link], _ socket: borrowing RouteSocket
    ) throws(SystemError) {
        var names = Set(wanted.segments.filter { $0.kind == .nat }.map(\.link))
        for port in wanted.taps { names.formUnion([port.tap, Derived.shaper(tap: port.tap)]) }
        for link in links where link.alias?.hasPrefix(owner.aliasPrefix) == true {
            if !names.contains(link.name) { try socket.delete(link.index) }
        }
    }

    // MARK: - Taps

    /// Opens a VM's interfaces in their order, each attached to its network and up; the caller closes
    /// the descriptors.
    ///
    /// The rules for them have been made by `apply`: there is no moment without.
    package func openTaps(
        of vm: String, in wanted: FleetNetworks, user: UInt32?
    ) throws -> [Int32] {
        let socket = try RouteSocket()
        var opened: [(index: Int, descriptor: Int32)] = []
        do {
            for segment in wanted.segments {
                for port in segment.ports where port.vm == vm {
                    let tap = try openTap(port, segment, user: user, socket)
                    opened.append((port.index, tap.release()))
                }
            }
        } catch {
            for tap in opened { close(tap.descriptor) }
            throw error
        }
        return opened.sorted { $0.index < $1.index }.map(\.descriptor)
    }

    private func openTap(
        _ port: Segment.Port, _ segment: Segment, user: UInt32?, _ socket: borrowing RouteSocket
    ) throws -> Descriptor {
        let alias = owner.alias("vm", port.vm, String(port.index))
        if segment.kind == .macvtap {
            return try openMacvtap(port, segment, alias: alias, socket)
        }
        let tap = try claimTap(port, user: user, socket)
        try attach(port.tap, to: segment, alias: alias, socket)
        try Shaper(port, owner, folder).apply(try socket.links(), socket)
        return tap
    }

    /// Opens a tap; one of ours that is still there may go at any moment.
    ///
    /// It is gone with its last descriptor, and a program that has just been started has copies of
    /// all of them until its exec.
    private func claimTap(
        _ port: Segment.Port, user: UInt32?, _ socket: borrowing RouteSocket
    ) throws -> Descriptor {
        let patience = Clock.monotonic() + 3_000_000_000
        while true {
            do {
                return try Tap.open(port.tap, owner: user)
            } catch {
                guard error.isBusy else { throw error }
                let alias = try socket.link(port.tap)?.alias
                let isOurs = alias?.hasPrefix(owner.aliasPrefix) ?? true
                guard isOurs, Clock.monotonic() < patience else {
                    throw NetworkError.foreignLink(name: port.tap, alias: alias)
                }
                usleep(20_000)
            }
        }
    }

    /// Makes a link a port of its network: closed to its neighbours first, and only then up.
    package func attach(
        _ name: String, to segment: Segment, alias: String, _ socket: borrowing RouteSocket
    ) throws {
        guard let link = try socket.link(name), let bridge = try socket.link(segment.link) else {
            throw SystemError("attach \(name) to \(segment.link)", ENODEV)
        }
        try socket.set(
            link.index,
            LinkChanges(
                master: bridge.index, alias: alias, group: Owner.group, mtu: bridge.mtu,
                withoutLinkLocal: true))
        try socket.setIsolated(link.index, segment.network.isolated)
        for port in segment.ports where port.tap == name {
            try pin(port, link.index, segment, socket)
        }
        try socket.set(link.index, LinkChanges(isUp: true))
    }

    /// Says to the bridge where a VM is, and that it must not learn it.
    ///
    /// A bridge takes frames to 01:80:c2:00:00:00 and up (LLDP, 802.1X) for its own: they pass no
    /// chain of nftables, and yet it would learn from their sender's address, so that a VM could have
    /// the frames to another. The bridge of a LAN may speak STP besides: whoever sends such a frame
    /// into it from a VM wants to be the LAN's root, and its port is shut.
    private func pin(
        _ port: Segment.Port, _ index: Int32, _ segment: Segment, _ socket: borrowing RouteSocket
    ) throws(SystemError) {
        try socket.setPort(
            index,
            PortChanges(hasGuard: segment.kind == .bridge ? true : nil, learns: false))
        try socket.place(port.mac, behind: index)
    }

    private func openMacvtap(
        _ port: Segment.Port, _ segment: Segment, alias: String, _ socket: borrowing RouteSocket
    ) throws -> Descriptor {
        guard let parent = try socket.link(segment.link) else {
            throw NetworkError.noParent(network: segment.network.name, name: segment.link)
        }
        if let old = try socket.link(port.tap) {
            try owner.checkOwned(old)
            try socket.delete(old.index)
        }
        let index = try socket.addMacvtap(
            port.tap, parent: parent.index, mode: segment.network.mode, mac: port.mac,
            alias: alias, group: Owner.group)
        try socket.set(index, LinkChanges(isUp: true, withoutLinkLocal: true))
        return try Macvtap.open(index)
    }
}

extension FleetNetworks {
    /// Whether VMs of one network may reach each other by an entry of `allow`.
    func hasOpening(within segment: Segment) -> Bool {
        let vms = Set(segment.ports.map(\.vm))
        return openings.contains { vms.contains($0.from) && vms.contains($0.to) }
    }

    /// Refuses what this host cannot give, before anything is changed.
    func check(
        _ segments: [Segment], _ links: [Link], _ subnets: [(subnet: CIDR, device: Int32)]
    ) throws(NetworkError) {
        // Not only when they are needed: then there would be no way back.
        for tool in segments.isEmpty ? [] : HostNetwork.tools where findProgram(tool.name) == nil {
            throw .missingTool(name: tool.name, package: tool.package)
        }
        for segment in segments {
            let link = links.first { $0.name == segment.link }
            switch segment.kind {
            case .bridge:
                guard let link else {
                    throw .noBridge(network: segment.network.name, name: segment.link)
                }
                guard link.kind == "bridge" else {
                    throw .notABridge(
                        network: segment.network.name, name: segment.link,
                        kind: link.kind ?? "network card")
                }
            case .macvtap:
                if link == nil {
                    throw .noParent(network: segment.network.name, name: segment.link)
                }
            case .nat:
                if let link { try owner.checkOwned(link) }
                guard let wanted = segment.network.subnet else { continue }
                for (subnet, device) in subnets where subnet.overlaps(wanted) {
                    let other = links.first { $0.index == device }
                    let isOurs = other?.alias?.hasPrefix(owner.aliasPrefix) == true
                    guard let other, !isOurs, !trusted.contains(other.name) else { continue }
                    throw .overlap(
                        network: segment.network.name, subnet: wanted.description,
                        link: other.name, route: subnet.description)
                }
            }
        }
    }
}

extension Owner {
    /// Refuses a link of somebody else under a name that we need.
    ///
    /// One of our group without an alias is ours as well: a killed run had not come to name it.
    func checkOwned(_ link: Link) throws(NetworkError) {
        let isOurs = link.alias?.hasPrefix(aliasPrefix) ?? (link.group == Owner.group)
        guard isOurs else { throw .foreignLink(name: link.name, alias: link.alias) }
    }
}
