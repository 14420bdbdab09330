// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Glibc
import Linux
import Publishing

/// One published name of a VM, as it was found.
package struct PublishedName: Sendable, Equatable {
    package let url: String
    /// Whether the running proxy has it.
    package var isServed = false
    /// Where the proxy reaches the guest; nil when that is not known.
    package var upstream: Upstream?
    /// Why the upstream took no connection; nil when it did.
    package var upstreamError: String?
    /// Nil for plain HTTP, and as long as there is none.
    package var issuer: String?
    /// When the certificate ends, in seconds since 1970.
    package var ends: Int64?
    /// The certificate that visitors have to trust, where our own authority signs.
    package var authority: String?
    package var problem: String?
}

extension Engine {
    /// The published names of a VM: looked up in the running proxy, in its certificates, and by a
    /// connection to the guest.
    package func publishedNames(_ name: String) async throws -> [PublishedName] {
        guard Files.exists(layout.publishing), let fleet = try store.fleet(of: name),
            let record = try store.publishingRecord(fleet), record.vms.contains(name),
            let vm = try store.current(name)?.vm, !vm.publish.isEmpty
        else { return [] }
        return try await blocking { [self] in
            let found = try gatherSites(installing: false)
            let served = proxy.servedHosts
            return vm.publish.map { publication in
                let host = publication.host.lowercased()
                let site = found.sites.first { $0.host == host && $0.vm == name }
                var result = PublishedName(url: publication.url(record.settings.ports))
                result.isServed = site != nil && served.contains(host)
                result.problem =
                    found.problems.first { $0.vm == name && "\($0.error)".contains(host) }
                    .map { $0.error.description }
                if case .dns = publication.tls, result.problem == nil {
                    result.problem = attempted(host)?.error
                }
                if let site { look(at: site, &result) }
                return result
            }
        }
    }

    private func look(at site: Site, _ result: inout PublishedName) {
        result.upstream = site.upstream
        result.upstreamError = connectionError(site.upstream)
        if let text = certificate(of: site.host, site.security),
            let found = try? Certificate(text, host: site.host)
        {
            result.issuer = found.issuer
            result.ends = found.ends
        }
        if site.security == .internal, Files.exists(proxy.rootCertificate) {
            result.authority = proxy.rootCertificate
        }
    }

    /// What Caddy keeps of a host, or was given.
    func certificate(of host: String, _ security: Site.Security) -> [UInt8]? {
        let folder = proxy.storage + "/certificates"
        var paths: [String] = []
        switch security {
        case .off, .files(nil): return nil
        case .files(let pair?): paths = [pair.certificate]
        case .internal: paths = ["\(folder)/local/\(host)/\(host).crt"]
        case .acme:
            let authorities = ((try? Files.list(folder)) ?? []).filter { $0 != "local" }
            paths = authorities.map { "\(folder)/\($0)/\(host)/\(host).crt" }
        }
        let texts = paths.compactMap { try? Files.readUntrusted($0, limit: 1 << 20) }
        // Of several authorities in turn, the one that holds longest is the one that is served.
        return texts.max { ends($0, host) < ends($1, host) }
    }

    private func ends(_ text: [UInt8], _ host: String) -> Int64 {
        (try? Certificate(text, host: host))?.ends ?? 0
    }

    /// Why nobody takes a connection at an address within two seconds; nil when somebody does.
    private func connectionError(_ upstream: Upstream) -> String? {
        let address = SocketAddress.v4(upstream.address.value, port: upstream.port)
        do throws(SystemError) {
            let socket = try InetSocket.make(for: address, .stream, nonBlocking: true)
            if try InetSocket.connect(socket.raw, address) { return nil }
            var one = pollfd(fd: socket.raw, events: Int16(POLLOUT), revents: 0)
            guard poll(&one, 1, 2000) > 0 else { return "no answer within 2 s" }
            _ = try InetSocket.connect(socket.raw, address)
            return nil
        } catch {
            return error.reason
        }
    }
}
