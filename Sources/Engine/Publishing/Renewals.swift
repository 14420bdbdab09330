// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Publishing

/// A certificate of a published name that is renewed without anybody's doing.
package struct CertificateRenewal: Sendable, Equatable {
    package let vm: String
    package let host: String
    /// As `publish.tls` names it, without a secret: `auto`, `internal` or `dns:PROVIDER`.
    package let kind: String
    /// Whether it is the clock that asks for it, and not Caddy.
    package let needsClock: Bool
    /// When the one that is there was signed, or when it was asked for last, in seconds since 1970.
    package var last: Int64?
    /// When the one that is there ends; nil while there is none.
    package var ends: Int64?
    /// Why there is none, or no new one.
    package var error: String?
    /// When it is renewed, be it in the past; nil while there is none and Caddy asks for it.
    package var next: Int64?
}

extension Engine {
    /// What is renewed for these VMs, or for all that are published; read from the certificates.
    ///
    /// Files of the user's own are his to renew, and are in none.
    package func renewals(
        _ names: [String]? = nil, now: Int64 = Clock.now()
    ) throws -> [CertificateRenewal] {
        guard Files.exists(layout.publishing) else { return [] }
        var found: [CertificateRenewal] = []
        for fleet in try store.publishingFleets() {
            guard let record = try store.publishingRecord(fleet), !record.isDown else { continue }
            for name in record.vms where names?.contains(name) ?? true {
                // One whose records cannot be read has other troubles, which `list` shows.
                guard let vm = (try? store.current(name))??.vm else { continue }
                found += vm.publish.filter { record.hosts.contains($0.host.lowercased()) }
                    .compactMap { renewal($0, of: name, fleet, record.settings, now) }
            }
        }
        return found.sorted { ($0.vm, $0.host) < ($1.vm, $1.host) }
    }

    /// Whether a fleet below ROOT publishes something.
    package var isPublishing: Bool { ((try? store.publishingFleets()) ?? []).isEmpty == false }

    private func renewal(
        _ publication: Publication, of vm: String, _ fleet: String, _ settings: Publishing,
        _ now: Int64
    ) -> CertificateRenewal? {
        let host = publication.host.lowercased()
        let kind: String
        let text: [UInt8]?
        var attempt: Attempt?
        switch publication.tls {
        case .off, .files: return nil
        case .auto:
            kind = "auto"
            text = certificate(
                of: host, .acme(ACME(directory: settings.acme, email: settings.email)))
        case .internal:
            kind = "internal"
            text = certificate(of: host, .internal)
        case .dns(let provider, _):
            kind = "dns:\(provider)"
            text = try? Files.readUntrusted(
                obtained(host, of: fleet).certificate, limit: 1 << 20)
            attempt = attempted(host)
        }
        let isByClock = kind.hasPrefix("dns:")
        var result = CertificateRenewal(vm: vm, host: host, kind: kind, needsClock: isByClock)
        let certificate = text.flatMap { try? Certificate($0, host: host) }
        result.last = attempt?.at ?? certificate?.begins
        result.ends = certificate?.ends
        result.error = attempt?.error
        let wanted = certificate?.renewal ?? (isByClock ? now : nil)
        result.next = wanted.map { wanted in
            guard let attempt, attempt.error != nil else { return wanted }
            return max(wanted, attempt.retry)
        }
        return result
    }
}
