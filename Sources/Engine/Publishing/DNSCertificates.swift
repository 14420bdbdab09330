// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Publishing
import Secrets

/// Certificates by DNS-01, which lego asks for: a Caddy of Debian knows no DNS provider.
extension Engine {
    private var legoFolder: String { layout.publishing + "/lego" }
    private func legoFolder(_ fleet: String) -> String { "\(legoFolder)/\(fleet)" }
    /// When it was tried last, and what came of it, of one host.
    private func attemptRecord(_ host: String) -> String { "\(layout.publishing)/dns/\(host).json" }

    /// Where lego leaves what it was given.
    func obtained(_ host: String, of fleet: String) -> CertificateFiles {
        let base = "\(legoFolder(fleet))/certificates/\(host)"
        return CertificateFiles(certificate: base + ".crt", key: base + ".key")
    }

    struct Attempt: Codable {
        var at: Int64
        var error: String?
    }

    /// What came of the last attempt for a host.
    func attempted(_ host: String) -> Attempt? {
        try? RecordFile.plain(Attempt.self, from: attemptRecord(host))
    }

    /// Asks for those certificates by DNS that are missing, or end soon.
    ///
    /// What failed is tried again an hour later, or at once when `isForced`.
    func obtainCertificates(isForced: Bool) async -> [SiteProblem] {
        var problems: [SiteProblem] = []
        for fleet in (try? store.publishingFleets()) ?? [] {
            guard let record = try? store.publishingRecord(fleet), !record.isDown else { continue }
            for name in record.vms {
                guard let vm = (try? store.current(name))??.vm else { continue }
                for publication in vm.publish
                where record.hosts.contains(publication.host.lowercased()) {
                    guard case .dns(let provider, let secret) = publication.tls else { continue }
                    let order = LegoOrder(
                        host: publication.host.lowercased(), provider: provider, secret: secret,
                        vm: name, fleet: fleet, settings: record.settings)
                    do {
                        try await obtain(order, isForced: isForced)
                    } catch {
                        problems.append(
                            .init(name, .certificate(host: order.host, reason: sentence(error))))
                    }
                }
            }
        }
        return problems
    }

    private struct LegoOrder {
        let host: String
        let provider: String
        let secret: String
        let vm: String
        let fleet: String
        let settings: Publishing
    }

    private func obtain(_ order: LegoOrder, isForced: Bool) async throws {
        guard isDue(order) else { return }
        let path = attemptRecord(order.host)
        let last = try RecordFile.plain(Attempt.self, from: path)
        if !isForced, let last, last.error != nil, Clock.now() < last.retry { return }
        try Files.makeFolder(Files.parent(path), mode: 0o700)
        guard let lock = try FileLock.attempt(layout.publishing + "/lego.lock") else { return }
        guard isDue(order) else { return }
        // Before, not after: what is killed each time must not be tried each minute.
        try Files.write(path, try encoded(Attempt(at: Clock.now(), error: "it was interrupted")))
        Checkpoint.pass()
        reporter.working(order.vm, "asking for the certificate of \(order.host) (DNS)")
        do {
            try await runLego(order)
            try Files.write(path, try encoded(Attempt(at: Clock.now(), error: nil)))
        } catch {
            let text = sentence(error)
            try Files.write(path, try encoded(Attempt(at: Clock.now(), error: text)))
            throw error
        }
        _ = consume lock
    }

    /// Whether there is no certificate, or less than a third of its time is left.
    private func isDue(_ order: LegoOrder) -> Bool {
        let pair = obtained(order.host, of: order.fleet)
        guard let text = try? Files.readUntrusted(pair.certificate, limit: 1 << 20),
            let found = try? Certificate(text, host: order.host), found.namesHost
        else { return true }
        return Clock.now() > found.renewal
    }

    private func runLego(_ order: LegoOrder) async throws {
        guard let known = try store.secrets(order.fleet).first(where: { $0.name == order.secret })
        else { throw SecretFailure.unknown(order.secret) }
        let value = try await secretValue(known, of: order.fleet)
        let folder = legoFolder(order.fleet)
        let user = isRoot ? Derived.certifier : nil
        try Files.makeFolder(legoFolder)
        try Files.makeFolder(folder, mode: 0o700)
        if let user { try Files.setOwner(folder, user: user, group: user) }
        var authority: String?
        if let path = order.settings.ca {
            // Its user may not be able to read the original.
            let copy = "\(legoFolder)/\(order.fleet).pem"
            try Files.write(copy, try Files.read(path, limit: 1 << 20), mode: 0o644)
            authority = copy
        }
        let lego = Lego(
            host: order.host, provider: order.provider, settings: order.settings, folder: folder,
            authority: authority)
        try await lego.run(secret: value.bytes, user: user)
    }
}

extension Engine.Attempt {
    /// When one that failed is tried again without being asked.
    var retry: Int64 { at + 3600 }
}
