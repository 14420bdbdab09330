// SPDX-License-Identifier: Apache-2.0
package import Fleets
package import Linux

import Glibc

extension RouteSocket {
    /// All interfaces of the namespace.
    package func links() throws(SystemError) -> [Link] {
        var links: [Link] = []
        for reply in try list("list interfaces", LinkRequest.list()) where reply.type == RTM.newLink
        {
            links.append(try Link(reply))
        }
        return links
    }

    /// The interface of a name, nil if there is none.
    package func link(_ name: String) throws(SystemError) -> Link? {
        let request = try LinkRequest.get(name)
        do {
            let replies = try run("interface \(name)", request)
            guard let reply = replies.first(where: { $0.type == RTM.newLink }) else { return nil }
            return try Link(reply)
        } catch {
            if error.code == ENODEV { return nil }
            throw error
        }
    }

    /// Makes a bridge that forwards at once, and returns its index.
    ///
    /// The address is fixed: without one, a bridge takes the lowest of its ports', and the gateway
    /// of the guests changes as they come and go.
    ///
    /// This and the other calls that make an interface give it its alias in a second step, for the
    /// kernel ignores one in the first. A process that is killed in between leaves an interface
    /// that has its group and no alias.
    @discardableResult
    package func addBridge(
        _ name: String, mac: MACAddress, alias: String, group: UInt32
    ) throws(SystemError) -> Int32 {
        let request = try LinkRequest.addBridge(name, mac: mac, group: group)
        return try add(name, "bridge", request, alias: alias)
    }

    /// Makes a macvtap on top of the interface `parent`, and returns its index.
    ///
    /// Not with every mode is the address the one asked for: in `passthru` it is the parent's, and
    /// changing it changes the parent's.
    @discardableResult
    package func addMacvtap(
        _ name: String, parent: Int32, mode: MacvtapMode, mac: MACAddress, alias: String,
        group: UInt32
    ) throws(SystemError) -> Int32 {
        let request = try LinkRequest.addMacvtap(
            name, parent: parent, mode: mode, mac: mac, group: group)
        return try add(name, "macvtap", request, alias: alias)
    }

    /// Makes an interface that traffic can be redirected to, to be limited there; returns its index.
    @discardableResult
    package func addIFB(
        _ name: String, alias: String, group: UInt32
    ) throws(SystemError) -> Int32 {
        try add(name, "ifb", try LinkRequest.addIFB(name, group: group), alias: alias)
    }

    /// Makes two interfaces that are the ends of one cable, and returns the index of the first.
    ///
    /// The second end may be made in another namespace, given by a descriptor of it.
    @discardableResult
    package func addVeth(
        _ name: String, peer: String, peerNamespace: Int32? = nil, alias: String = "",
        group: UInt32 = 0
    ) throws(SystemError) -> Int32 {
        let request = try LinkRequest.addVeth(
            name, peer: peer, namespace: peerNamespace, group: group)
        return try add(name, "veth", request, alias: alias)
    }

    private func add(
        _ name: String, _ kind: String, _ request: NetlinkMessage, alias: String
    ) throws(SystemError) -> Int32 {
        // What cannot be an alias is found before the interface exists.
        _ = try interfaceAlias(alias)
        try run("add \(kind) \(name)", request)
        guard let index = try link(name)?.index else {
            throw SystemError("add \(kind) \(name)", ENODEV)
        }
        if !alias.isEmpty {
            do {
                try set(index, LinkChanges(alias: alias))
            } catch {
                try? delete(index)
                throw error
            }
        }
        return index
    }

    /// Changes an interface; the kernel stops at the first thing that it refuses.
    ///
    /// A port that is to be isolated becomes a port first, then isolated, and only then goes up:
    /// else it is open for a moment. `withoutLinkLocal` is for an interface that is still down; it
    /// takes no address away.
    package func set(_ index: Int32, _ changes: LinkChanges) throws(SystemError) {
        let what = "change interface \(index)"
        var rest = changes
        if changes.withoutLinkLocal {
            // In a message of its own: in one with the others, the kernel first puts the interface
            // up, which gives it its address, and then reads that it should have none.
            rest.withoutLinkLocal = false
            do {
                try run(what, try LinkRequest.change(index, LinkChanges(withoutLinkLocal: true)))
            } catch {
                // Where the interface, or the kernel, has no IPv6, there is no address to hold back.
                guard error.code == EAFNOSUPPORT else { throw error }
            }
        }
        if rest != LinkChanges() { try run(what, try LinkRequest.change(index, rest)) }
    }

    /// Closes a bridge's port to the other isolated ports of that bridge, or opens it.
    package func setIsolated(_ index: Int32, _ on: Bool) throws(SystemError) {
        try setPort(index, PortChanges(isIsolated: on))
    }

    /// Changes how a bridge treats one of its ports; EINVAL or EOPNOTSUPP if it is none.
    package func setPort(_ index: Int32, _ changes: PortChanges) throws(SystemError) {
        try run("change bridge port \(index)", LinkRequest.changePort(index, changes))
    }

    /// Tells a bridge that a hardware address is behind one of its ports, for as long as the port is
    /// one; an address that was elsewhere moves.
    package func place(_ mac: MACAddress, behind index: Int32) throws(SystemError) {
        try run("place \(mac) behind port \(index)", LinkRequest.place(mac, behind: index))
    }

    /// Removes an interface; one that is gone is no error.
    package func delete(_ index: Int32) throws(SystemError) {
        do {
            try run("delete interface \(index)", LinkRequest.delete(index))
        } catch {
            guard error.code == ENODEV else { throw error }
        }
    }

    /// Removes all interfaces of a group, far faster than one by one; none is no error.
    ///
    /// Group 0 has every interface that nobody put anywhere, and is refused with EPERM. EOPNOTSUPP
    /// is the answer if hardware is among them, and then none is removed.
    package func delete(group: UInt32) throws(SystemError) {
        guard group != 0 else { throw SystemError("delete interfaces of group 0", EPERM) }
        do {
            try run("delete interfaces of group \(group)", LinkRequest.delete(group: group))
        } catch {
            guard error.code == ENODEV else { throw error }
        }
    }
}
