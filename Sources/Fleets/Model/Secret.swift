// SPDX-License-Identifier: Apache-2.0

/// Where a secret comes from; the value never stands in the fleet file.
package struct Secret: Record {
    package enum Source: Sendable, Equatable {
        /// Made once and kept encrypted under ROOT.
        case generate(GeneratedSecret)
        case age(path: String, identity: String?)
        case sops(path: String, key: String, identity: String?)
        case file(path: String)
        case systemdCreds(path: String)
    }

    package var name = ""
    package var generate: GeneratedSecret?
    package var age: String?
    package var identity: String?
    package var sops: String?
    package var key: String?
    package var file: String?
    package var systemdCreds: String?

    package init() {}
    package init(name: String) { self.name = name }

    /// Nil only in a secret that was never read from a file.
    package var source: Source? {
        if let generate { return .generate(generate) }
        if let age { return .age(path: age, identity: identity) }
        if let sops, let key { return .sops(path: sops, key: key, identity: identity) }
        if let file { return .file(path: file) }
        return systemdCreds.map { .systemdCreds(path: $0) }
    }

    package mutating func declare(_ key: Fields) {
        key("generate", &generate, "Make it once: the form it has.")
        key.path("age", &age, "A file encrypted with age.")
        key.path("identity", &identity, "The age identity that decrypts it, for 'age' and 'sops'.")
        key.path("sops", &sops, "A file encrypted with sops.")
        key("key", &self.key, "Where in the sops file it stands, such as dns.token.")
        key.path("file", &file, "A file of the host.")
        key.path("systemdCreds", &systemdCreds, "A file encrypted with systemd-creds.")
    }

    package mutating func finish(_ scope: Scope) {
        let sources = [generate?.rawValue, age, sops, file, systemdCreds].compactMap { $0 }.count
        if sources != 1 {
            scope.fail(
                "give exactly one source: 'generate', 'age', 'sops', 'file' or 'systemdCreds'")
        }
        if identity != nil, age == nil, sops == nil {
            scope.fail("'identity' belongs to 'age' or 'sops'")
        }
        if (sops == nil) != (key == nil) { scope.fail("'sops' and 'key' belong together") }
    }
}

package enum GeneratedSecret: String, Choice { case hex16, hex32, hex64, base64, password }

/// How published VMs are reached.
package struct Publishing: Record {
    package var email: String?
    package var acme = "https://acme-v02.api.letsencrypt.org/directory"
    package var ca: String?
    package var listen = [":80", ":443"]

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("email", &email, "The ACME account.")
        key("acme", &acme, "The directory of the ACME server.")
        key.path("ca", &ca, "A CA file to trust for `acme`.")
        key("listen", &listen, "Where the reverse proxy listens.")
    }
}

package enum Advertisement: String, Choice { case none, tailscale }

/// Another machine that VMs can run on.
package struct Host: Record {
    package var name = ""
    package var ssh = ""

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("ssh", &ssh, .required, "How to reach it: user@host.")
    }
}
