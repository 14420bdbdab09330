// SPDX-License-Identifier: Apache-2.0
import Fleets
import Images

extension GuestIdentity {
    /// What a guest is told of itself: its declaration, and what makes it this VM and no other.
    init(
        _ vm: VM, _ settings: NetworkSettings, identity: Identity, imageDigest: String,
        defaultKeys: [String]
    ) {
        self.init(
            hostname: vm.name, machineID: identity.machineID, image: imageDigest,
            hostKey: identity.hostKey)
        authorizedKeys = vm.ssh.authorizedKeys?.map(\.text) ?? defaultKeys
        allowsRoot = vm.ssh.user == "root"
        execKey = identity.accessPublicKey
        users = vm.users.map { user in
            User(
                name: user.name, authorizedKeys: user.authorizedKeys.map(\.text),
                sudo: user.sudo, groups: user.groups)
        }
        rootPasswordHash = vm.rootPasswordHash?.text
        timezone = vm.timezone
        hardening = HardeningFiles(vm.hardening)
        let open = vm.openPorts(allow: settings.allow)
        tcpPorts = open.filter { $0.transport == .tcp }.map(\.port)
        udpPorts = open.filter { $0.transport == .udp }.map(\.port)
        interfaces = Self.interfaces(of: vm, settings)
        dns = Self.resolvers(of: vm, settings)
        mounts = vm.volumes.compactMap(Mount.init) + vm.shares.map(Mount.init)
        for (name, credential) in vm.credentials {
            guard let text = credential.text else { continue }
            credentials[vm.credentialPrefix + name] = Array(text.utf8)
        }
    }

    /// The guest's cards, in the order of the file; the first one on a network is preferred.
    private static func interfaces(of vm: VM, _ settings: NetworkSettings) -> [Interface] {
        let main = vm.mainInterface
        return vm.interfaces.enumerated().compactMap { index, interface in
            guard let mac = interface.mac?.description else { return nil }
            // Where several ways lead out, one has to come first; `user` comes last.
            let metric = index == main ? nil : (interface.isUser ? 4096 : 2048) + index
            guard let network = settings.network(interface.network) else {
                return .user(mac: mac, metric: metric)
            }
            guard let address = interface.address, let subnet = network.subnet else {
                return .dhcp(mac: mac, metric: metric)
            }
            var addresses = ["\(address)/\(subnet.prefix)"]
            if let address = network.address6(of: address) { addresses.append("\(address)/128") }
            return .fixed(
                mac: mac, addresses: addresses,
                gateways: [network.router.map { "\($0)" }, network.router6.map { "\($0)" }]
                    .compactMap { $0 },
                metric: metric)
        }
    }

    /// Who answers for names: what the VM says, else its network's own server, else the network's.
    private static func resolvers(of vm: VM, _ settings: NetworkSettings) -> [String] {
        if !vm.dns.isEmpty { return vm.dns.map(\.description) }
        guard let main = vm.mainInterface else { return [] }
        guard let network = settings.network(vm.interfaces[main].network) else {
            // QEMU answers there for the host's resolver.
            return ["10.0.2.3"]
        }
        if network.kind == .nat, let router = network.router { return ["\(router)"] }
        return network.dns.map(\.description)
    }
}

extension Mount {
    init(_ share: Share) {
        self.init(
            what: share.tag, path: share.mount, type: "virtiofs",
            options: (share.readOnly ? ["ro"] : []) + ["nosuid", "nodev"])
    }

    /// How the guest mounts a volume: found by its serial, never by a letter that depends on order.
    init?(_ volume: Volume) {
        guard let mount = volume.mount else { return nil }
        var options = ["noatime", "nodev", "nosuid"]
        if volume.filesystem == .ext4 { options.append("errors=remount-ro") }
        if volume.readOnly { options.append("ro") }
        self.init(
            what: "/dev/disk/by-id/virtio-\(volume.name)", path: mount,
            type: volume.filesystem.rawValue, options: options,
            grows: !volume.readOnly && volume.filesystem.canGrow)
    }
}
