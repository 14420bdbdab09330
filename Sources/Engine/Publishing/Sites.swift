// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Planning
import Publishing

/// What is published below ROOT now.
struct PublishedSites {
    var sites: [Site] = []
    var settings = Publishing()
    var problems: [SiteProblem] = []
}

extension Engine {
    /// The sites of all fleets, from what is applied; a name that cannot be served is a problem of
    /// its VM, and takes nothing from the others.
    ///
    /// `installing` puts certificate files where Caddy can read them; else they are only looked at.
    func gatherSites(installing: Bool) throws -> PublishedSites {
        var found = PublishedSites()
        if installing { try proxy.makeFolders() }
        for fleet in try store.publishingFleets() {
            guard let record = try store.publishingRecord(fleet), !record.isDown else { continue }
            found.settings.listen = record.settings.listen
            let networks = try store.networkSettings(fleet).networks
            for name in record.vms {
                guard let vm = try publishedVM(name, of: fleet) else { continue }
                for publication in vm.publish
                where record.hosts.contains(publication.host.lowercased())
                    && !found.sites.contains(where: { $0.host == publication.host.lowercased() })
                {
                    add(
                        publication, of: vm, fleet, record.settings, networks, installing,
                        to: &found)
                }
            }
        }
        return found
    }

    /// A VM as it is applied, with the interfaces that it has now.
    private func publishedVM(_ name: String, of fleet: String) throws -> VM? {
        guard try store.fleet(of: name) == fleet, var vm = try store.current(name)?.vm else {
            return nil
        }
        let files = layout.vm(name)
        if let attached = try RecordFile.plain(VM.self, from: files.attachment) {
            vm.interfaces = attached.interfaces
        }
        return vm
    }

    private func add(
        _ publication: Publication, of vm: VM, _ fleet: String, _ settings: Publishing,
        _ networks: [Network], _ installing: Bool, to found: inout PublishedSites
    ) {
        let host = publication.host.lowercased()
        guard let port = publication.port?.number,
            let upstream = vm.upstream(of: port, in: networks)
        else {
            found.problems.append(
                .init(
                    vm.name,
                    .unreachable(
                        vm: vm.name, host: host,
                        reason: "neither its address nor a port that leads there is known")))
            return
        }
        var security: Site.Security
        do throws(PublishError) {
            security = try self.security(publication, of: fleet, settings, installing)
        } catch {
            found.problems.append(.init(vm.name, error))
            // Others are served; this one has no certificate to show.
            security = .files(nil)
        }
        if case .files(let pair?) = security, let problem = expiry(host, pair) {
            found.problems.append(.init(vm.name, problem))
        }
        found.sites.append(
            Site(
                host: host, fleet: fleet, vm: vm.name, upstream: upstream, security: security,
                check: vm.pageCheck(of: port)))
    }

    private func security(
        _ publication: Publication, of fleet: String, _ settings: Publishing, _ installing: Bool
    ) throws(PublishError) -> Site.Security {
        let host = publication.host.lowercased()
        switch publication.tls {
        case .off: return .off
        case .internal: return .internal
        case .auto:
            var roots: String?
            if let ca = settings.ca { roots = try installed(authority: ca, host, installing) }
            return .acme(
                ACME(directory: settings.acme, email: settings.email, roots: roots))
        case .files(let certificate, let key):
            return .files(
                try installed(
                    certificate: read(certificate, host), key: read(key, host), host, installing))
        case .dns:
            let pair = obtained(host, of: fleet)
            guard let certificate = try? Files.readUntrusted(pair.certificate, limit: 1 << 20),
                let key = try? Files.readUntrusted(pair.key, limit: 1 << 20)
            else { return .files(nil) }
            return .files(
                try installed(certificate: certificate, key: key, host, installing))
        }
    }

    private func read(_ path: String, _ host: String) throws(PublishError) -> [UInt8] {
        do {
            return try Files.read(path, limit: 1 << 20)
        } catch {
            throw .certificate(host: host, reason: "\(path) cannot be read: \(error.reason)")
        }
    }

    // MARK: - Files that Caddy reads

    /// Copies a certificate and its key, once they are seen to fit, to where Caddy alone reads them.
    ///
    /// Their content is in the name: a renewed one is another configuration, and so is loaded.
    private func installed(
        certificate: [UInt8], key: [UInt8], _ host: String, _ installing: Bool
    ) throws(PublishError) -> CertificateFiles {
        let found: Certificate
        do {
            found = try Certificate(certificate, host: host, key: key)
        } catch {
            throw .certificate(host: host, reason: error.description)
        }
        guard found.fitsKey else {
            throw .certificate(host: host, reason: "the key is not the one that it was made for")
        }
        guard found.namesHost else {
            throw .certificate(host: host, reason: "it is not for this name")
        }
        let base = "\(proxy.certificates)/\(host)-\(SHA256.hex(certificate + key).prefix(16))"
        let pair = CertificateFiles(certificate: base + ".crt", key: base + ".key")
        if installing {
            try place(key, pair.key, host)
            try place(certificate, pair.certificate, host)
        }
        return pair
    }

    /// The authority that signs for an ACME server, where Caddy can read it.
    private func installed(
        authority path: String, _ host: String, _ installing: Bool
    ) throws(PublishError) -> String {
        let content = try read(path, host)
        let copy = "\(proxy.certificates)/authority-\(SHA256.hex(content).prefix(16)).pem"
        if installing { try place(content, copy, host) }
        return copy
    }

    private func place(
        _ content: [UInt8], _ path: String, _ host: String
    ) throws(PublishError) {
        do throws(SystemError) {
            if (try? Files.status(path).size) != Int64(content.count) {
                try Files.write(path, content, mode: 0o600)
            }
            // Nobody but Caddy: its group has no other member. A run that was killed may have left this.
            if isRoot {
                try Files.setOwner(path, user: 0, group: Derived.proxy)
                try Files.setMode(path, 0o640)
            }
        } catch {
            throw .certificate(host: host, reason: "\(path): \(error.reason)")
        }
    }

    /// Caddy has loaded others by now.
    func removeStaleCertificates(besides sites: [Site]) throws {
        var kept: Set<String> = []
        for site in sites {
            switch site.security {
            case .files(let pair?): kept.formUnion([pair.certificate, pair.key])
            case .acme(let account): if let roots = account.roots { kept.insert(roots) }
            case .files, .internal, .off: break
            }
        }
        for name in try Files.list(proxy.certificates) {
            let path = "\(proxy.certificates)/\(name)"
            if !kept.contains(path) { try Files.remove(path) }
        }
    }

    private func expiry(_ host: String, _ pair: CertificateFiles) -> PublishError? {
        guard let text = try? Files.read(pair.certificate, limit: 1 << 20),
            let found = try? Certificate(text, host: host), found.ends <= Clock.now()
        else { return nil }
        return .certificate(host: host, reason: "it expired at \(Clock.iso8601(found.ends))")
    }
}
