// SPDX-License-Identifier: Apache-2.0

extension Publishing {
    /// The ports of `listen` by what is spoken on them: 80 is HTTP and 443 is HTTPS; of others the
    /// first is HTTP where there are two, and HTTPS where it is the only one.
    package var ports: (http: UInt16?, https: UInt16?) {
        var all: [UInt16] = []
        for text in listen {
            if let port = endpoint(text)?.port, !all.contains(port) { all.append(port) }
        }
        var http = all.contains(80) ? UInt16(80) : nil
        if http == nil, all.count > 1 { http = all.first { $0 != 443 } }
        return (http, all.first { $0 != http })
    }

    /// The entries of `listen` that speak HTTP, or HTTPS.
    package func addresses(on port: UInt16?) -> [String] {
        listen.filter { endpoint($0)?.port == port && port != nil }
    }

    /// How many different ports `listen` names.
    var countOfPorts: Int { Set(listen.compactMap { endpoint($0)?.port }).count }
}

/// Where the host reaches a port of a guest.
package struct Upstream: Sendable, Equatable, CustomStringConvertible {
    package let address: IPv4
    package let port: UInt16

    package init(_ address: IPv4, _ port: UInt16) {
        self.address = address
        self.port = port
    }
    package var description: String { "\(address):\(port)" }
}

extension VM {
    /// Where the host reaches a TCP port of the guest: its address on a network that the host routes
    /// to, else a port of the host that leads there; nil where there is neither.
    ///
    /// `networks` are those of its fleet. An interface whose address is not known yet counts for nothing.
    package func upstream(of port: UInt16, in networks: [Network]) -> Upstream? {
        for interface in interfaces where !interface.isUser {
            guard let network = networks.first(where: { $0.name == interface.network }),
                network.hasOwnAddresses, let address = interface.address
            else { continue }
            return Upstream(address, port)
        }
        for forward in ports where forward.transport == .tcp && forward.guest == port {
            if forward.address.isAny { return Upstream(IPv4(0x7F00_0001), forward.host) }
            if case .v4(let address) = forward.address { return Upstream(address, forward.host) }
        }
        return nil
    }
}

extension TLS {
    /// Whether visitors of the site speak HTTPS.
    package var isSecure: Bool { self != .off }
}

extension Publication {
    /// The address that a visitor types; `ports` are those of `Publishing.ports`.
    package func url(_ ports: (http: UInt16?, https: UInt16?)) -> String {
        let port = tls.isSecure ? ports.https : ports.http
        let usual: UInt16 = tls.isSecure ? 443 : 80
        let suffix = port.map { $0 == usual ? "" : ":\($0)" } ?? ""
        return (tls.isSecure ? "https://" : "http://") + host.lowercased() + suffix
    }
}
