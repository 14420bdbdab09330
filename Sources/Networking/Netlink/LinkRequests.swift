// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// The requests about interfaces, as pure functions of what they are to do.
enum LinkRequest {
    static func list() -> NetlinkMessage {
        var message = NetlinkMessage(RTM.getLink, flags: NL.dump)
        message.interface(0)
        return message
    }

    static func get(_ name: String) throws(SystemError) -> NetlinkMessage {
        let name = try interfaceName(name)
        var message = NetlinkMessage(RTM.getLink)
        message.interface(0)
        message.attribute(IFLA.name, name)
        return message
    }

    /// A new interface; `data` is what only its kind knows.
    private static func add(
        _ name: String, kind: String, mac: MACAddress?, group: UInt32, parent: Int32? = nil,
        _ data: (inout NetlinkMessage) -> Void
    ) throws(SystemError) -> NetlinkMessage {
        let name = try interfaceName(name)
        var message = NetlinkMessage(RTM.newLink, flags: NL.createNew)
        message.interface(0)
        message.attribute(IFLA.name, name)
        if let parent { message.attribute(IFLA.parent, parent) }
        if let mac { message.attribute(IFLA.address, mac.octets) }
        if group != 0 { message.attribute(IFLA.group, group) }
        message.nest(IFLA.linkInfo) { info in
            info.attribute(IFLA.kind, Array(kind.utf8))
            info.nest(IFLA.data, data)
        }
        return message
    }

    static func addBridge(
        _ name: String, mac: MACAddress, group: UInt32
    ) throws(SystemError) -> NetlinkMessage {
        try add(name, kind: "bridge", mac: mac, group: group) { data in
            data.attribute(IFLA.forwardDelay, UInt32(0))
            data.attribute(IFLA.spanningTree, UInt32(0))
            // Snooping without a querier loses multicast, and with it IPv6's neighbours.
            data.attribute(IFLA.multicastSnooping, UInt8(0))
        }
    }

    static func addMacvtap(
        _ name: String, parent: Int32, mode: MacvtapMode, mac: MACAddress, group: UInt32
    ) throws(SystemError) -> NetlinkMessage {
        let number: UInt32 =
            switch mode {
            case .private: 1
            case .vepa: 2
            case .bridge: 4
            case .passthru: 8
            case .source: 16
            }
        return try add(name, kind: "macvtap", mac: mac, group: group, parent: parent) {
            $0.attribute(IFLA.macvlanMode, number)
        }
    }

    static func addIFB(_ name: String, group: UInt32) throws(SystemError) -> NetlinkMessage {
        try add(name, kind: "ifb", mac: nil, group: group) { _ in }
    }

    static func addVeth(
        _ name: String, peer: String, namespace: Int32?, group: UInt32
    ) throws(SystemError) -> NetlinkMessage {
        let peer = try interfaceName(peer)
        return try add(name, kind: "veth", mac: nil, group: group) { data in
            data.nest(IFLA.vethPeer) { other in
                other.interface(0)
                other.attribute(IFLA.name, peer)
                if let namespace { other.attribute(IFLA.namespace, namespace) }
            }
        }
    }

    static func change(_ index: Int32, _ changes: LinkChanges) throws(SystemError) -> NetlinkMessage
    {
        let alias: [UInt8]?
        if let text = changes.alias { alias = try interfaceAlias(text) } else { alias = nil }
        var message = NetlinkMessage(RTM.setLink)
        message.interface(
            index, flags: changes.isUp == true ? 1 : 0, change: changes.isUp == nil ? 0 : 1)
        if let mac = changes.mac { message.attribute(IFLA.address, mac.octets) }
        if let mtu = changes.mtu { message.attribute(IFLA.mtu, mtu) }
        if let master = changes.master { message.attribute(IFLA.master, master) }
        if let alias { message.attribute(IFLA.alias, alias) }
        if let group = changes.group { message.attribute(IFLA.group, group) }
        if changes.withoutLinkLocal {
            message.nest(IFLA.familySpecific) { families in
                families.nest(UInt16(AF_INET6)) { $0.attribute(IFLA.addressGeneration, UInt8(1)) }
            }
        }
        return message
    }

    static func changePort(_ index: Int32, _ changes: PortChanges) -> NetlinkMessage {
        var message = NetlinkMessage(RTM.setLink)
        message.interface(index, family: UInt8(AF_BRIDGE))
        message.nest(IFLA.protocolInfo) { port in
            let flags = [
                (IFLA.portGuard, changes.hasGuard), (IFLA.portLearning, changes.learns),
                (IFLA.portIsolated, changes.isIsolated),
            ]
            for case (let flag, let isOn?) in flags { port.attribute(flag, UInt8(isOn ? 1 : 0)) }
        }
        return message
    }

    /// A static entry of a bridge's forwarding table (struct ndmsg, linux/neighbour.h).
    static func place(_ mac: MACAddress, behind index: Int32) -> NetlinkMessage {
        var message = NetlinkMessage(RTM.newNeighbour, flags: NL.create)
        message.append(UInt32(AF_BRIDGE))
        message.append(index)
        // NUD_NOARP; NTF_MASTER: the bridge's table, and not the port's own.
        message.append(UInt16(0x40))
        message.append(UInt16(0x04))
        message.attribute(2, mac.octets)
        return message
    }

    static func delete(_ index: Int32) -> NetlinkMessage {
        var message = NetlinkMessage(RTM.deleteLink)
        message.interface(index)
        return message
    }

    static func delete(group: UInt32) -> NetlinkMessage {
        var message = NetlinkMessage(RTM.deleteLink)
        message.interface(0)
        message.attribute(IFLA.group, group)
        return message
    }
}
