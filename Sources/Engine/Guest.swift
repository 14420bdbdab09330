// SPDX-License-Identifier: Apache-2.0
import Fleets
import Images

extension GuestIdentity {
    /// What a guest is told of itself: its declaration, and what makes it this VM and no other.
    init(_ vm: VM, identity: Identity, imageDigest: String, defaultKeys: [String]) {
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
        let open = vm.openPorts()
        tcpPorts = open.filter { $0.transport == .tcp }.map(\.port)
        udpPorts = open.filter { $0.transport == .udp }.map(\.port)
        interfaces = vm.interfaces.compactMap { interface in
            interface.mac.map { .user(mac: $0.description) }
        }
        for (name, credential) in vm.credentials {
            guard let text = credential.text else { continue }
            credentials[vm.credentialPrefix + name] = Array(text.utf8)
        }
    }
}
