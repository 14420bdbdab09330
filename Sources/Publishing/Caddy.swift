// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// What Caddy is to do for the published VMs of all fleets below one ROOT; pure.
///
/// Written for Caddy 2.6 (Debian 12) and later. Nothing is left to its automatic HTTPS: what it
/// listens on, redirects and asks certificates for is what stands here.
package struct Caddy: Sendable, Equatable {
    /// Where its files are.
    package struct Folders: Sendable, Equatable {
        /// Certificates of its own, and those that it was given by an ACME server.
        package let storage: String
        package let log: String
        package let adminSocket: String

        package init(storage: String, log: String, adminSocket: String) {
            self.storage = storage
            self.log = log
            self.adminSocket = adminSocket
        }
    }

    /// What has to stand in `Host` on the admin socket.
    package static let adminHost = "martlet"

    package let sites: [Site]
    /// `publishing.listen` of the fleets, and so on, which is the same for all.
    package let settings: Publishing
    package let folders: Folders

    /// `sites` in any order; no two of the same host.
    package init(_ sites: [Site], _ settings: Publishing, _ folders: Folders) {
        self.sites = sites.sorted { $0.host < $1.host }
        self.settings = settings
        self.folders = folders
    }

    package var configuration: JSONValue {
        [
            "admin": [
                "listen": .string("unix/" + folders.adminSocket),
                "origins": [.string(Caddy.adminHost)],
                // Or it would write, and one day read, a configuration that nobody sees.
                "config": ["persist": false],
            ],
            "logging": [
                "logs": [
                    "default": [
                        "level": "INFO",
                        "writer": [
                            "output": "file", "filename": .string(folders.log),
                            "roll_size_mb": 5, "roll_keep": 2,
                        ],
                    ]
                ]
            ],
            "storage": ["module": "file_system", "root": .string(folders.storage)],
            "apps": [
                "http": ["grace_period": "10s", "servers": .object(servers)],
                "pki": [
                    "certificate_authorities": [
                        // Nothing of the host's own trust is changed.
                        "local": ["name": "Martlet", "install_trust": false]
                    ]
                ],
                "tls": .object(security),
            ],
        ]
    }

    // MARK: - HTTP

    private var servers: [JSONValue.Member] {
        let (http, https) = settings.ports
        var all: [JSONValue.Member] = []
        if let http {
            let routes = sites.map { $0.security == .off ? proxy($0) : redirect($0.host) }
            all.append(.init("http", server(settings.addresses(on: http), routes)))
        }
        if let https {
            let routes = sites.filter { $0.security != .off }.map(proxy)
            let more = JSONValue.Member("tls_connection_policies", [[:]])
            all.append(.init("https", server(settings.addresses(on: https), routes, [more])))
        }
        return all
    }

    private func server(
        _ listen: [String], _ routes: [JSONValue], _ more: [JSONValue.Member] = []
    ) -> JSONValue {
        .object(
            [
                .init("listen", .array(listen.map(JSONValue.string))),
                // HTTP/3 would take the UDP port, too, which nobody has reserved.
                .init("protocols", ["h1", "h2"]),
                .init("automatic_https", ["disable": true]),
                .init("read_header_timeout", "30s"),
                .init("routes", .array(routes + [Caddy.unknown])),
                .init("errors", ["routes": [Caddy.unavailable]]),
            ] + more)
    }

    private func proxy(_ site: Site) -> JSONValue {
        var handler: [JSONValue.Member] = [
            .init("handler", "reverse_proxy"),
            .init("upstreams", [["dial": .string(site.upstream.description)]]),
            .init(
                // X-Forwarded-For, -Proto and -Host it sets itself, and believes no visitor's.
                "headers",
                ["request": ["set": ["X-Real-IP": ["{http.request.remote.host}"]]]]),
            .init("transport", ["protocol": "http", "dial_timeout": "3s"]),
        ]
        if let check = site.check, let page = check.http {
            handler.append(.init("health_checks", ["active": activeCheck(site, check, page)]))
        }
        let encode: JSONValue = [
            "handler": "encode", "encodings": ["zstd": [:], "gzip": [:]],
            "prefer": ["zstd", "gzip"],
        ]
        return route(site.host, [encode, .object(handler)])
    }

    private func activeCheck(
        _ site: Site, _ check: HealthCheck, _ page: HTTPTarget
    ) -> JSONValue {
        [
            "uri": .string(page.path),
            // The visitors' way back must not wait for the guest's own rhythm.
            "interval": .string("\(min(check.interval.milliseconds, 5000))ms"),
            "timeout": .string("\(check.timeout.milliseconds)ms"),
            "headers": [
                "Host": [.string(site.host)],
                // A service that redirects to HTTPS would do it for ever.
                "X-Forwarded-Proto": [site.security == .off ? "http" : "https"],
            ],
        ]
    }

    private func redirect(_ host: String) -> JSONValue {
        let port = settings.ports.https.map { $0 == 443 ? "" : ":\($0)" } ?? ""
        return route(
            host,
            [
                [
                    "handler": "static_response", "status_code": 308,
                    "headers": ["Location": [.string("https://\(host)\(port){http.request.uri}")]],
                ]
            ])
    }

    private func route(_ host: String, _ handlers: [JSONValue]) -> JSONValue {
        [
            "match": [["host": [.string(host)]]], "handle": .array(handlers), "terminal": true,
        ]
    }

    /// Without it, Caddy answers names that it does not know with 200 and nothing.
    private static var unknown: JSONValue {
        [
            "handle": [
                [
                    "handler": "static_response", "status_code": 404,
                    "headers": ["Content-Type": ["text/plain; charset=utf-8"]],
                    "body": "There is no such site here.\n",
                ]
            ]
        ]
    }

    // MARK: - TLS

    private var security: [JSONValue.Member] {
        var policies: [JSONValue] = []
        var files: [JSONValue] = []
        var accounts: [ACME] = []
        for site in sites {
            switch site.security {
            case .acme(let account): if !accounts.contains(account) { accounts.append(account) }
            case .files(let pair?):
                files.append(["certificate": .string(pair.certificate), "key": .string(pair.key)])
            case .internal, .files, .off: break
            }
        }
        for account in accounts {
            policies.append(policy(for: { $0 == .acme(account) }, issuer(account)))
        }
        let ofOurs = sites.filter { $0.security == .internal }
        if !ofOurs.isEmpty {
            policies.append(policy(for: { $0 == .internal }, ["module": "internal"]))
        }
        let managed = sites.filter {
            if case .acme = $0.security { true } else { $0.security == .internal }
        }
        return [
            .init(
                "certificates",
                [
                    "automate": .array(managed.map { .string($0.host) }),
                    "load_files": .array(files),
                ]),
            .init("automation", ["policies": .array(policies)]),
        ]
    }

    private func policy(
        for wants: (Site.Security) -> Bool, _ issuer: JSONValue
    ) -> JSONValue {
        let hosts = sites.filter { wants($0.security) }.map { JSONValue.string($0.host) }
        return ["subjects": .array(hosts), "issuers": [issuer]]
    }

    private func issuer(_ account: ACME) -> JSONValue {
        let (http, https) = settings.ports
        var members: [JSONValue.Member] = [
            .init("module", "acme"), .init("ca", .string(account.directory)),
        ]
        if let email = account.email { members.append(.init("email", .string(email))) }
        if let roots = account.roots {
            members.append(.init("trusted_roots_pem_files", [.string(roots)]))
        }
        // Its own server answers, and has to be found at the port that it listens on.
        members.append(
            .init(
                "challenges",
                ["http": challenge(http, usual: 80), "tls-alpn": challenge(https, usual: 443)]))
        return .object(members)
    }

    private func challenge(_ port: UInt16?, usual: UInt16) -> JSONValue {
        guard let port else { return ["disabled": true] }
        return port == usual ? [:] : ["alternate_port": JSONValue(port)]
    }
}
