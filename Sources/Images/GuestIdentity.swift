// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// A file that the hypervisor shows to the guest under a name, through fw_cfg.
package struct FirmwareEntry: Sendable, Equatable {
    package let name: String
    package let content: [UInt8]

    package var text: String { String(decoding: content, as: UTF8.self) }
}

/// A value that cannot be handed to a guest.
package enum IdentityError: Error, Equatable, CustomStringConvertible {
    case badValue(what: String, value: String)
    case longName(String)

    package var description: String {
        switch self {
        case .badValue(let what, let value):
            "the \(what) '\(value)' cannot be handed to the guest: it is empty or holds a space or a line break"
        case .longName(let name):
            "the credential name '\(name)' is longer than the 28 bytes that fw_cfg leaves for it: shorten it"
        }
    }
}

/// Everything that makes one VM differ from another of the same image.
///
/// What systemd takes as a credential travels as one; what read-only `/etc` cannot take from a
/// credential stands in one text of our own, which the initramfs carries out (guest/identity.c).
package struct GuestIdentity: Sendable, Equatable {
    /// A login account.
    package struct User: Sendable, Equatable {
        package var name: String
        package var authorizedKeys: [String]
        package var sudo: Bool
        package var groups: [String]
        /// The number of the account; derived from the name unless given.
        package var uid: UInt32?

        package init(
            name: String, authorizedKeys: [String] = [], sudo: Bool = false,
            groups: [String] = [], uid: UInt32? = nil
        ) {
            self.name = name
            self.authorizedKeys = authorizedKeys
            self.sudo = sudo
            self.groups = groups
            self.uid = uid
        }
    }

    /// A network card and how it gets its address.
    package enum Interface: Sendable, Equatable {
        case dhcp(mac: String, metric: Int? = nil)
        /// Addresses with their prefix lengths, such as `10.1.0.2/24`; a gateway of each family at most.
        case fixed(mac: String, addresses: [String], gateways: [String], metric: Int? = nil)

        /// A card on QEMU's user-mode network, whose addresses are always the same.
        package static func user(mac: String, metric: Int? = nil) -> Interface {
            .fixed(mac: mac, addresses: ["10.0.2.15/24"], gateways: ["10.0.2.2"], metric: metric)
        }
    }

    package var hostname: String
    /// 32 hexadecimal digits.
    package var machineID: String
    /// The image's digest: the guest fills its data volume once for each.
    package var image: String
    /// Keys that log in as `admin` and `user`, and as root when `allowsRoot`.
    package var authorizedKeys: [String] = []
    package var allowsRoot = false
    package var users: [User] = []
    /// A crypt(3) hash that opens the console; nil keeps root locked.
    package var rootPasswordHash: String?
    package var timezone = "UTC"
    package var hardening = HardeningFiles()
    /// Ports open in the guest's firewall, besides 22.
    package var tcpPorts: [UInt16] = []
    package var udpPorts: [UInt16] = []
    package var interfaces: [Interface] = []
    /// Name servers; 10.0.2.3 on QEMU's user-mode network.
    package var dns: [String] = []
    /// OpenSSH's private host key, as text.
    package var hostKey: String
    /// The public key of `exec`'s own sshd; nil: no exec through the virtio-serial port.
    package var execKey: String?
    /// What the guest mounts beside its data volume: volumes and shares.
    package var mounts: [Mount] = []
    /// Further systemd credentials, by name.
    package var credentials: [String: [UInt8]] = [:]

    package init(hostname: String, machineID: String, image: String, hostKey: String) {
        self.hostname = hostname
        self.machineID = machineID
        self.image = image
        self.hostKey = hostKey
    }

    /// The name of the entry that the initramfs reads.
    package static let entryName = "opt/org.martlet/identity"

    /// The entries for the hypervisor; pure.
    ///
    /// They hold the host key: mode 0600 wherever they lie.
    package func firmwareEntries() throws(IdentityError) -> [FirmwareEntry] {
        var entries = [
            FirmwareEntry(name: GuestIdentity.entryName, content: Array(try text().utf8))
        ]
        func credential(_ name: String, _ content: [UInt8]) throws(IdentityError) {
            guard name.utf8.count <= 28 else { throw .longName(name) }
            entries.append(
                FirmwareEntry(name: "opt/io.systemd.credentials/\(name)", content: content))
        }
        try credential("system.hostname", Array(word("hostname", hostname).utf8))
        try credential("system.machine_id", Array(word("machine id", machineID).utf8))
        for (index, interface) in interfaces.enumerated() {
            try credential(
                "network.network.\(10 + index)-martlet", Array(interface.networkUnit.utf8))
        }
        for (name, content) in credentials.sorted(by: { $0.key < $1.key }) {
            try credential(name, content)
        }
        return entries
    }
}

// MARK: - The text for the initramfs

extension GuestIdentity {
    /// The accounts that every image with sshd has, and those of the fleet.
    private var allUsers: [User] {
        [
            User(name: "admin", authorizedKeys: authorizedKeys, uid: 1000),
            User(name: "user", authorizedKeys: authorizedKeys, uid: 1001),
        ] + users
    }

    private func text() throws(IdentityError) -> String {
        var lines = ["martlet-identity 1", "image \(try word("image", image))"]
        if timezone != "UTC" { lines.append("timezone \(try word("timezone", timezone))") }
        for mount in mounts {
            try line("mount point", mount.path)
            if mount.needsFolder { lines.append("folder \(mount.path)") }
        }
        for case .fixed(let mac, let addresses, let gateways, nil) in interfaces.prefix(1) {
            // Only IPv4: it is what ssh waits for. networkd sets everything soon after.
            guard let address = addresses.first(where: { !$0.contains(":") }) else { continue }
            let via = gateways.first { !$0.contains(":") } ?? "-"
            lines.append("address \(mac) \(address) \(via)")
        }
        lines += files()
        let uids = GuestIdentity.uids(users)
        for user in users {
            let groups = (user.sudo ? ["sudo"] : []) + user.groups
            for group in groups { _ = try word("group", group) }
            let list = groups.isEmpty ? "-" : groups.joined(separator: ",")
            lines.append("user \(try word("user name", user.name)) \(uids[user.name] ?? 0) \(list)")
        }
        if let rootPasswordHash {
            lines.append("password root \(try word("password hash", rootPasswordHash))")
        }
        return lines.joined(separator: "\n") + "\nend\n"
    }

    private func files() -> [String] {
        var lines: [String] = []
        func file(_ name: String, _ mode: String, _ text: String) {
            lines.append("file \(name) \(mode) \(escaped(text))")
        }
        func keys(_ list: [String]) -> String { list.map { $0 + "\n" }.joined() }
        for user in allUsers { file("keys/\(user.name)", "0644", keys(user.authorizedKeys)) }
        if allowsRoot { file("keys/root", "0644", keys(authorizedKeys)) }
        let allowed = allUsers.map(\.name) + (allowsRoot ? ["root"] : [])
        // The first word counts: this file is read before the image's own.
        let root = allowsRoot ? "" : "PermitRootLogin no\n"
        file("sshd.conf", "0600", "AllowUsers \(allowed.joined(separator: " "))\n\(root)")
        file("ssh_host_ed25519_key", "0600", hostKey)
        if let execKey { file("exec.keys", "0600", keys([execKey])) }
        file("hosts", "0644", hosts)
        file("resolv.conf", "0644", dns.map { "nameserver \($0)\n" }.joined())
        let open = tcpPorts.map { ProtocolPort(.tcp, $0) } + udpPorts.map { ProtocolPort(.udp, $0) }
        file("firewall.nft", "0600", GuestIdentity.firewall(open: open))
        file("sysctl.conf", "0644", hardening.sysctl)
        if !hardening.lateSysctl.isEmpty {
            file("sysctl-late.conf", "0644", hardening.lateSysctl)
        }
        file("modprobe.conf", "0644", hardening.modprobe)
        if rootPasswordHash != nil { file("console-login", "0600", "") }
        for mount in mounts {
            lines.append("unit \(mount.unitName) local-fs.target \(escaped(mount.unit))")
        }
        return lines
    }

    /// A text as one line, as init reads it.
    private func escaped(_ text: String) -> String {
        String(
            text.flatMap { character -> [Character] in
                switch character {
                case "\n": ["\\", "n"]
                case "\\": ["\\", "\\"]
                default: [character]
                }
            })
    }

    private var hosts: String {
        """
        127.0.0.1 localhost
        127.0.1.1 \(hostname)
        ::1 localhost ip6-localhost ip6-loopback

        """
    }

    /// What comes in: answers, what the fleet opens, 22, and the ICMP that networks need to work.
    package static func firewall(open: [ProtocolPort]) -> String {
        func rule(_ transport: TransportProtocol, _ ports: [UInt16] = []) -> String {
            let kind = transport.rawValue
            let list = Set(ports + open.filter { $0.transport == transport }.map(\.port)).sorted()
                .map(String.init).joined(separator: ", ")
            return list.isEmpty ? "" : "        \(kind) dport { \(list) } accept\n"
        }
        return """
            table inet martlet
            delete table inet martlet
            table inet martlet {
                chain input {
                    type filter hook input priority filter; policy drop;
                    ct state established,related accept
                    iif lo accept
                    ct state invalid drop
                    meta l4proto { icmp, icmpv6 } accept
                    udp dport { 68, 546 } accept

            """ + rule(.tcp, [22]) + rule(.udp) + "    }\n}\n"
    }

    private func word(_ what: String, _ value: String) throws(IdentityError) -> String {
        guard !value.isEmpty, !value.contains(where: { $0.isWhitespace }) else {
            throw .badValue(what: what, value: value)
        }
        return value
    }

    private func line(_ what: String, _ value: String) throws(IdentityError) {
        guard !value.isEmpty, !value.contains(where: \.isNewline) else {
            throw .badValue(what: what, value: value)
        }
    }

    /// The uid of each user: given, or derived from the name alone.
    ///
    /// Files on the data volume belong to numbers, so a number must not move when the list of
    /// users changes its order. 20000 to 59999 is free in Debian's scheme.
    package static func uids(_ users: [User]) -> [String: UInt32] {
        var result: [String: UInt32] = [:]
        var taken = Set(users.compactMap(\.uid))
        for user in users where user.uid != nil { result[user.name] = user.uid }
        for name in users.filter({ $0.uid == nil }).map(\.name).sorted() {
            // FNV-1a: Swift's own hash differs from run to run.
            var hash: UInt32 = 2_166_136_261
            for byte in name.utf8 { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
            var uid = 20_000 + hash % 40_000
            while !taken.insert(uid).inserted { uid = 20_000 + (uid - 20_000 + 1) % 40_000 }
            result[name] = uid
        }
        return result
    }
}

extension GuestIdentity.Interface {
    /// The systemd.network file of the card.
    fileprivate var networkUnit: String {
        switch self {
        case .dhcp(let mac, let metric):
            // The name and the time zone are the fleet's to say, whatever the LAN has for others.
            return "[Match]\nMACAddress=\(mac)\n[Network]\nDHCP=yes\n"
                + "[DHCPv4]\nUseHostname=no\nUseTimezone=no\n"
                + (metric.map { "RouteMetric=\($0)\n" } ?? "")
        case .fixed(let mac, let addresses, let gateways, let metric):
            var text = "[Match]\nMACAddress=\(mac)\n[Network]\nIPv6AcceptRA=no\n"
            // The initramfs has set the address already: taking it over must not drop connections.
            text += "KeepConfiguration=static\n"
            // Nobody else has them, and what asks first whether somebody has is a second late: who
            // is told to listen on such an address when the guest starts would fail.
            text += "IPv6DuplicateAddressDetection=0\n"
            for address in addresses { text += "Address=\(address)\n" }
            for gateway in gateways {
                text += "[Route]\nGateway=\(gateway)\n"
                // An IPv6 address is its host's alone: what is next to it is reached by its gateway.
                if gateway.contains(":") { text += "GatewayOnLink=yes\n" }
                if let metric { text += "Metric=\(metric)\n" }
            }
            return text
        }
    }
}
