// SPDX-License-Identifier: Apache-2.0

/// Somebody who listens on a port of the host.
struct Listener {
    struct Slot: Hashable {
        let host: String
        let transport: TransportProtocol
        let port: UInt16
    }

    let address: IPAddress
    let who: String
    let base: String
    let steps: [Step]

    /// Without an address, or with that of any, a port is taken on all of both families.
    func collides(_ other: IPAddress) -> Bool {
        address == other || address.isAny || other.isAny
    }
}

extension Validator {
    mutating func checkPorts(_ vm: VM) {
        for (index, port) in vm.ports.enumerated() {
            let at: [Step] = ["ports", .index(index)]
            if vm.enable {
                listen(port.address, port.host, port.transport, vm, at, "host port")
            }
            if index == 0 { checkReach(vm, at) }
            checkForward(vm, port, at)
        }
    }

    /// Ports go to the first interface that is not `user`, else to that.
    private func checkReach(_ vm: VM, _ at: [Step]) {
        guard let target = vm.interfaces.first(where: { !$0.isUser }) ?? vm.interfaces.first else {
            return fail(vm, at, "the VM has no interface that a port could lead to")
        }
        guard networks[target.network]?.kind == .macvtap else { return }
        fail(
            vm, at,
            "a host cannot reach its own macvtap guests, so '\(target.network)' takes no ports; "
                + "connect to the guest's address on the LAN, or put a network with 'subnet' first")
    }

    private mutating func listen(
        _ address: IPAddress, _ port: UInt16, _ transport: TransportProtocol, _ vm: VM,
        _ at: [Step], _ what: String
    ) {
        let slot = Listener.Slot(host: vm.host ?? "", transport: transport, port: port)
        if let other = listeners[slot]?.first(where: { $0.collides(address) }) {
            fail(
                vm, at,
                "the \(what) \(port)/\(transport.rawValue) belongs to \(other.who) already "
                    + "(\(places.place(other.base, other.steps))); choose another, or different addresses for both"
            )
        }
        let base = "vms." + vm.name
        listeners[slot, default: []].append(
            Listener(address: address, who: base, base: base, steps: at))
    }

    mutating func checkPublications(_ vm: VM) {
        guard !vm.publish.isEmpty else { return }
        for (index, publication) in vm.publish.enumerated() {
            let at: [Step] = ["publish", .index(index)]
            let host = publication.host
            if !isHostName(host) || host.utf8.allSatisfy({ $0 < 0x3A }) {
                fail(
                    vm, at + ["host"],
                    "expected a host name such as www.example.org, found '\(host)'")
            } else {
                checkTLS(vm, publication, at)
                checkUpstream(vm, publication, at)
            }
            if vm.enable {
                claim(.publishedHost(host.lowercased()), vm, at + ["host"], "publish it once")
            }
        }
        reserveProxy(vm)
    }

    /// Whoever visits the host must get to the guest.
    private func checkUpstream(_ vm: VM, _ publication: Publication, _ at: [Step]) {
        let ports = fleet.publishing.ports
        if (publication.tls.isSecure ? ports.https : ports.http) == nil {
            let what = publication.tls.isSecure ? "HTTPS" : "HTTP"
            fail(
                vm, at + ["tls"],
                "'publishing.listen' has no port for \(what): add one, such as "
                    + (publication.tls.isSecure ? "':443'" : "':80'"))
        }
        guard let port = publication.port?.number else { return }
        // An address that is left out here is given later.
        let isRouted = vm.interfaces.contains { networks[$0.network]?.hasOwnAddresses ?? false }
        guard !isRouted, vm.upstream(of: port, in: []) == nil else { return }
        let kinds = vm.interfaces.compactMap { networks[$0.network]?.kind }
        let forward = "ports: [\"127.0.0.1:8080:\(port)\"]"
        let reason =
            if kinds.contains(.macvtap) {
                "a host cannot reach its own macvtap guests; add an interface on another network"
            } else if kinds.contains(.bridge) {
                "the LAN gives it its address; give the network a 'subnet'"
            } else {
                "its network is 'user'; add a forward, such as \(forward), or an interface on a network"
            }
        fail(
            vm, at,
            "the reverse proxy cannot reach port \(port) of '\(vm.name)': \(reason)")
    }

    private func checkTLS(_ vm: VM, _ publication: Publication, _ at: [Step]) {
        switch publication.tls {
        case .auto:
            let domain = publication.host.lowercased()
            let local = [".internal", ".local", ".lan", ".home.arpa", ".localhost", ".test"]
            guard !domain.contains(".") || local.contains(where: domain.hasSuffix) else { return }
            fail(
                vm, at + ["host"],
                "no public authority certifies '\(domain)'; add 'tls: internal', or 'tls: off'")
        case .dns(_, let secret):
            if !isKnown("secrets", secret) { unknownSecret(vm, secret, at + ["tls"]) }
        case .internal, .off, .files: break
        }
    }

    func unknownSecret(_ vm: VM, _ name: String, _ at: [Step]) {
        fail(vm, at, "no secret '\(name)'" + nearest(name, in: fleet.secrets.map(\.name)))
    }

    /// The reverse proxy takes its ports once, as soon as any VM is published.
    private mutating func reserveProxy(_ vm: VM) {
        for (index, text) in fleet.publishing.listen.enumerated() {
            guard let (address, port) = endpoint(text) else { continue }
            let slot = Listener.Slot(host: vm.host ?? "", transport: .tcp, port: port)
            let who = "the reverse proxy"
            if listeners[slot, default: []].contains(where: { $0.who == who }) { continue }
            if let other = listeners[slot]?.first(where: { $0.collides(address) }) {
                fail(
                    vm, ["publish"],
                    "the reverse proxy listens on \(text), which belongs to \(other.who) already "
                        + "(\(places.place(other.base, other.steps))); choose another port, or change 'publishing.listen'"
                )
            }
            listeners[slot, default: []].append(
                Listener(
                    address: address, who: who, base: "publishing",
                    steps: ["listen", .index(index)]))
        }
    }
}
