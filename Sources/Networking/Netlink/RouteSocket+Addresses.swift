// SPDX-License-Identifier: Apache-2.0
package import Fleets
package import Linux

import Glibc

/// An address of an interface, with the length of the prefix that it is on.
package struct InterfaceAddress: Sendable, Hashable {
    package var index: Int32
    package var address: IPAddress
    package var prefix: Int

    package init(index: Int32, address: IPAddress, prefix: Int) {
        self.index = index
        self.address = address
        self.prefix = prefix
    }
}

/// A route to other hosts; those to the host itself, and those that refuse, are none.
package struct Route: Sendable, Hashable {
    package var destination: IPAddress
    package var prefix: Int
    /// The interfaces that it leads out of: more than one if it spreads its load.
    package var devices: [Int32]
    /// 254 is the table that everybody looks into.
    package var table: UInt32
    /// Whether the destination is on the link itself, and not behind a gateway.
    package var isConnected: Bool

    package var isDefault: Bool { prefix == 0 }
}

extension RouteSocket {
    /// All addresses of all interfaces, of both families.
    package func addresses() throws(SystemError) -> [InterfaceAddress] {
        var addresses: [InterfaceAddress] = []
        for reply in try list("list addresses", AddressRequest.list())
        where reply.type == RTM.newAddress {
            if let address = try InterfaceAddress(reply) { addresses.append(address) }
        }
        return addresses
    }

    /// Gives an interface an address; one that it has is no error.
    ///
    /// An IPv6 address is not looked for on the link first, so that it can be used at once.
    package func addAddress(
        _ index: Int32, _ address: IPAddress, prefix: Int
    ) throws(SystemError) {
        let wanted = InterfaceAddress(index: index, address: address, prefix: prefix)
        do {
            try run("add address \(address)/\(prefix)", try AddressRequest.add(wanted))
        } catch {
            // An IPv6 address is also taken if it is there with another prefix.
            guard error.isExisting, try addresses().contains(wanted) else { throw error }
        }
    }

    /// Takes an address away from an interface; one that it does not have is no error.
    package func removeAddress(
        _ index: Int32, _ address: IPAddress, prefix: Int
    ) throws(SystemError) {
        let unwanted = InterfaceAddress(index: index, address: address, prefix: prefix)
        do {
            try run("remove address \(address)/\(prefix)", try AddressRequest.remove(unwanted))
        } catch {
            guard error.code == EADDRNOTAVAIL || error.code == ENODEV else { throw error }
        }
    }

    /// The routes of both families and all tables.
    package func routes() throws(SystemError) -> [Route] {
        var routes: [Route] = []
        for reply in try list("list routes", AddressRequest.listRoutes())
        where reply.type == RTM.newRoute {
            if let route = try Route(reply) { routes.append(route) }
        }
        return routes
    }

    /// The interfaces that lead to everywhere, by IPv4 or IPv6.
    package func defaultRouteDevices() throws(SystemError) -> Set<Int32> {
        Set(try routes().filter(\.isDefault).flatMap(\.devices))
    }

    /// The IPv4 subnets that are on a link of this host, and the interface of each.
    package func connectedSubnets() throws(SystemError) -> [(subnet: CIDR, device: Int32)] {
        try routes().flatMap { route -> [(subnet: CIDR, device: Int32)] in
            guard route.isConnected, !route.isDefault, case .v4(let base) = route.destination else {
                return []
            }
            return route.devices.map { (CIDR(base: base, prefix: route.prefix), $0) }
        }
    }
}

/// The requests about addresses and routes, as pure functions of what they are to do.
enum AddressRequest {
    static func list() -> NetlinkMessage {
        var message = NetlinkMessage(RTM.getAddress, flags: NL.dump)
        message.append(UInt64(0))
        return message
    }

    static func listRoutes() -> NetlinkMessage {
        var message = NetlinkMessage(RTM.getRoute, flags: NL.dump)
        message.append(UInt64(0))
        message.append(UInt32(0))
        return message
    }

    static func add(_ wanted: InterfaceAddress) throws(SystemError) -> NetlinkMessage {
        try message(RTM.newAddress, flags: NL.createNew, wanted)
    }

    static func remove(_ unwanted: InterfaceAddress) throws(SystemError) -> NetlinkMessage {
        try message(RTM.deleteAddress, flags: 0, unwanted)
    }

    private static func message(
        _ type: UInt16, flags: UInt16, _ subject: InterfaceAddress
    ) throws(SystemError) -> NetlinkMessage {
        let octets = subject.address.octets
        guard (0...8 * octets.count).contains(subject.prefix) else {
            throw SystemError("address \(subject.address)/\(subject.prefix)", EINVAL)
        }
        let isV6 = octets.count == 16
        var message = NetlinkMessage(type, flags: flags)
        message.append(UInt8(isV6 ? AF_INET6 : AF_INET))
        message.append(UInt8(subject.prefix))
        // IFA_F_NODAD
        message.append(UInt8(isV6 ? 2 : 0))
        message.append(UInt8(0))
        message.append(subject.index)
        // IFA_LOCAL and IFA_ADDRESS, which differ only on a link that has no more than two ends.
        message.attribute(2, octets)
        message.attribute(1, octets)
        return message
    }
}

extension InterfaceAddress {
    /// Reads a RTM_NEWADDR message; nil for a family that is neither IPv4 nor IPv6.
    init?(_ reply: NetlinkReply) throws(SystemError) {
        let body = reply.body
        guard let family: UInt8 = body.number(at: 0), let prefix: UInt8 = body.number(at: 1),
            let index: Int32 = body.number(at: 4)
        else { throw SystemError("netlink address", EBADMSG) }
        var address: ArraySlice<UInt8>?
        var local: ArraySlice<UInt8>?
        for (type, value) in try attributes(body.dropFirst(8)) {
            if type == 1 { address = value }
            if type == 2 { local = value }
        }
        guard let found = (local ?? address).flatMap({ IPAddress($0, family: family) }) else {
            return nil
        }
        self.init(index: index, address: found, prefix: Int(prefix))
    }
}

extension Route {
    /// Reads a RTM_NEWROUTE message; nil for a route of a kind that leads nowhere or to ourselves.
    init?(_ reply: NetlinkReply) throws(SystemError) {
        let body = reply.body
        guard let family: UInt8 = body.number(at: 0), let length: UInt8 = body.number(at: 1),
            let shortTable: UInt8 = body.number(at: 4), let kind: UInt8 = body.number(at: 7),
            body.count >= 12
        else { throw SystemError("netlink route", EBADMSG) }
        // RTN_UNICAST
        guard kind == 1 else { return nil }
        var to = IPAddress.zero(family: family)
        var devices: [Int32] = []
        var table = UInt32(shortTable)
        var hasGateway = false
        for (type, value) in try attributes(body.dropFirst(12)) {
            switch type {
            case 1: to = IPAddress(value, family: family)
            case 4: if let device: Int32 = value.number(at: 0) { devices.append(device) }
            case 5, 18: hasGateway = true
            case 9:
                let hops = try Self.hops(value)
                devices += hops.map(\.device)
                if hops.contains(where: \.hasGateway) { hasGateway = true }
            case 15: table = value.number(at: 0) ?? table
            default: break
            }
        }
        guard let to else { return nil }
        self.init(
            destination: to, prefix: Int(length), devices: devices, table: table,
            isConnected: !hasGateway)
    }

    /// The branches of a route that spreads its load, `struct rtnexthop` each.
    private static func hops(
        _ bytes: ArraySlice<UInt8>
    ) throws(SystemError) -> [(device: Int32, hasGateway: Bool)] {
        var hops: [(device: Int32, hasGateway: Bool)] = []
        var rest = bytes
        while !rest.isEmpty {
            guard let length: UInt16 = rest.number(at: 0), length >= 8, length <= rest.count,
                let device: Int32 = rest.number(at: 4)
            else { throw SystemError("netlink route", EBADMSG) }
            let parts = try attributes(rest.prefix(Int(length)).dropFirst(8))
            hops.append((device, parts.contains { $0.type == 5 || $0.type == 18 }))
            rest = rest.dropFirst((Int(length) + 3) & ~3)
        }
        return hops
    }
}

extension IPAddress {
    /// Reads an address in network byte order; nil if the family is unknown or the length wrong.
    init?(_ bytes: ArraySlice<UInt8>, family: UInt8) {
        switch (Int32(family), bytes.count) {
        case (AF_INET, 4): self = .v4(IPv4(bytes.reduce(0) { $0 << 8 | UInt32($1) }))
        case (AF_INET6, 16):
            let word = { (part: ArraySlice<UInt8>) in part.reduce(0) { $0 << 8 | UInt64($1) } }
            self = .v6(IPv6(high: word(bytes.prefix(8)), low: word(bytes.suffix(8))))
        default: return nil
        }
    }

    /// 0.0.0.0 or `::`, which a default route leads to.
    static func zero(family: UInt8) -> IPAddress? {
        switch Int32(family) {
        case AF_INET: .v4(IPv4(0))
        case AF_INET6: .v6(IPv6(high: 0, low: 0))
        default: nil
        }
    }

    /// The address in network byte order.
    var octets: [UInt8] {
        switch self {
        case .v4(let address): address.octets
        case .v6(let address):
            [address.high, address.low].flatMap { word in
                (0..<8).map { UInt8(truncatingIfNeeded: word >> (56 - 8 * $0)) }
            }
        }
    }
}
