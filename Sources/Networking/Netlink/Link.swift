// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Glibc
import Linux

/// A network interface as the kernel describes it.
package struct Link: Sendable, Equatable {
    package var index: Int32
    package var name: String
    /// What made it: `bridge`, `tun` (a tap as well), `macvtap`, `veth`, `ifb`; nil for hardware.
    package var kind: String?
    package var alias: String?
    package var group: UInt32
    /// Nil for an interface without Ethernet addresses.
    package var mac: MACAddress?
    /// The bridge or bond that it is a port of.
    package var master: Int32?
    /// The interface below a macvtap; for a veth its peer, whose index may be of another namespace.
    package var parent: Int32?
    package var isUp: Bool
    /// Whether something is at the other end; for a tap, a process that holds it.
    package var hasCarrier: Bool
    /// Bytes of a frame without its Ethernet header.
    package var mtu: UInt32
    package var statistics: Statistics
    /// Nil unless it is a port of a bridge.
    package var port: BridgePort?

    /// Counts since the interface was made, as the host sees them: what a guest sends through its
    /// tap is received here.
    package struct Statistics: Sendable, Equatable {
        package var receivedBytes: UInt64 = 0
        package var sentBytes: UInt64 = 0
        package var receivedPackets: UInt64 = 0
        package var sentPackets: UInt64 = 0
        package var receivedDropped: UInt64 = 0
        package var sentDropped: UInt64 = 0
    }

    /// How a bridge treats one of its ports.
    package struct BridgePort: Sendable, Equatable {
        package var isIsolated = false
        package var hasGuard = false
        package var learns = false
    }
}

/// What to change of an interface; what is nil stays.
package struct LinkChanges: Sendable, Equatable {
    package var isUp: Bool?
    /// The index of a bridge, or `noMaster`.
    package var master: Int32?
    /// Empty for none.
    package var alias: String?
    package var group: UInt32?
    package var mtu: UInt32?
    package var mac: MACAddress?
    /// Gives the interface no IPv6 address of its own when it comes up, and so no voice on the link.
    package var withoutLinkLocal: Bool

    package static let noMaster: Int32 = 0

    package init(
        isUp: Bool? = nil, master: Int32? = nil, alias: String? = nil, group: UInt32? = nil,
        mtu: UInt32? = nil, mac: MACAddress? = nil, withoutLinkLocal: Bool = false
    ) {
        self.isUp = isUp
        self.master = master
        self.alias = alias
        self.group = group
        self.mtu = mtu
        self.mac = mac
        self.withoutLinkLocal = withoutLinkLocal
    }
}

/// What to change of a bridge's port; what is nil stays.
package struct PortChanges: Sendable, Equatable {
    /// Closes it to the other isolated ports.
    package var isIsolated: Bool?
    /// Shuts it when a bridge protocol frame comes in.
    package var hasGuard: Bool?
    package var learns: Bool?

    package init(isIsolated: Bool? = nil, hasGuard: Bool? = nil, learns: Bool? = nil) {
        self.isIsolated = isIsolated
        self.hasGuard = hasGuard
        self.learns = learns
    }
}

extension Link {
    /// Reads a RTM_NEWLINK message.
    init(_ reply: NetlinkReply) throws(SystemError) {
        guard let index: Int32 = reply.body.number(at: 4),
            let flags: UInt32 = reply.body.number(at: 8), reply.body.count >= 16
        else { throw SystemError("netlink interface", EBADMSG) }
        self.init(
            index: index, name: "", group: 0, isUp: flags & 0x1 != 0,
            hasCarrier: flags & 0x10000 != 0, mtu: 0, statistics: Statistics())
        for (type, value) in try attributes(reply.body.dropFirst(16)) {
            switch type {
            case IFLA.name: name = value.text
            case IFLA.alias: alias = value.text
            case IFLA.group: group = value.number(at: 0) ?? 0
            case IFLA.mtu: mtu = value.number(at: 0) ?? 0
            case IFLA.master: master = value.number(at: 0)
            case IFLA.parent: parent = value.number(at: 0)
            case IFLA.address where value.count == 6:
                mac = MACAddress(bits: value.reduce(0) { $0 << 8 | UInt64($1) })
            case IFLA.statistics: statistics = Statistics(value)
            case IFLA.linkInfo: try readInfo(value)
            default: break
            }
        }
    }

    private mutating func readInfo(_ info: ArraySlice<UInt8>) throws(SystemError) {
        var portKind: String?
        for (type, value) in try attributes(info) {
            switch type {
            case IFLA.kind: kind = value.text
            case IFLA.portKind: portKind = value.text
            // The kernel writes the kind first.
            case IFLA.portData where portKind == "bridge": port = try BridgePort(value)
            default: break
            }
        }
    }
}

extension Link.Statistics {
    /// Reads `struct rtnl_link_stats64`.
    fileprivate init(_ bytes: ArraySlice<UInt8>) {
        let counter = { (position: Int) -> UInt64 in bytes.number(at: 8 * position) ?? 0 }
        receivedPackets = counter(0)
        sentPackets = counter(1)
        receivedBytes = counter(2)
        sentBytes = counter(3)
        receivedDropped = counter(6)
        sentDropped = counter(7)
    }
}

extension Link.BridgePort {
    fileprivate init(_ data: ArraySlice<UInt8>) throws(SystemError) {
        for (type, value) in try attributes(data) {
            switch type {
            case IFLA.portIsolated: isIsolated = value.first == 1
            case IFLA.portGuard: hasGuard = value.first == 1
            case IFLA.portLearning: learns = value.first == 1
            default: break
            }
        }
    }
}
