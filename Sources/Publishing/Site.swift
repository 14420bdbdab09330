// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// One host name that the reverse proxy serves.
package struct Site: Sendable, Equatable {
    /// Where its certificate comes from.
    package enum Security: Sendable, Equatable {
        /// Caddy asks an ACME server for it.
        case acme(ACME)
        /// Caddy's own authority signs it.
        case `internal`
        /// Files that Caddy can read; nil while there is none.
        case files(CertificateFiles?)
        /// Plain HTTP.
        case off
    }

    /// In lower case.
    package let host: String
    package let fleet: String
    package let vm: String
    package let upstream: Upstream
    package let security: Security
    /// The page of the guest that tells whether it works, where a check of the VM asks the same port.
    package let check: HealthCheck?

    package init(
        host: String, fleet: String, vm: String, upstream: Upstream, security: Security,
        check: HealthCheck? = nil
    ) {
        self.host = host
        self.fleet = fleet
        self.vm = vm
        self.upstream = upstream
        self.security = security
        self.check = check
    }
}

/// An account at a certificate authority that speaks ACME.
package struct ACME: Sendable, Equatable {
    package let directory: String
    package let email: String?
    /// A file in PEM that Caddy can read: whom to trust for `directory` itself.
    package let roots: String?

    package init(directory: String, email: String?, roots: String? = nil) {
        self.directory = directory
        self.email = email
        self.roots = roots
    }
}

/// A certificate chain and its private key, by path.
package struct CertificateFiles: Sendable, Equatable {
    package let certificate: String
    package let key: String

    package init(certificate: String, key: String) {
        self.certificate = certificate
        self.key = key
    }
}

extension VM {
    /// The check of the VM that asks a port for a page.
    package func pageCheck(of port: UInt16) -> HealthCheck? {
        health.first { check in
            check.http.map { !$0.isSecure && $0.host == nil && $0.port == port } ?? false
        }
    }
}
