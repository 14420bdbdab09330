// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Publishing

@Suite("Configuration of Caddy")
struct CaddyTests {
    static let folders = Caddy.Folders(
        storage: "/var/lib/martlet/publishing/storage",
        log: "/var/lib/martlet/publishing/logs/caddy.log",
        adminSocket: "/run/martlet/.publishing/admin/admin.sock")

    static func upstream(_ text: String, _ port: UInt16) throws -> Upstream {
        Upstream(try #require(IPv4(text)), port)
    }

    /// One site of each kind.
    static func sites() throws -> [Site] {
        var check = HealthCheck()
        check.http = HTTPTarget("http://:80/ping")
        let account = ACME(
            directory: "https://acme.example/directory", email: "me@example.org",
            roots: "/var/lib/martlet/publishing/certificates/ca.pem")
        let files = CertificateFiles(certificate: "/c/own.crt", key: "/c/own.key")
        let all: [(String, String, Site.Security, HealthCheck?)] = [
            ("www.example.org", "10.1.0.2", .acme(account), check),
            ("vault.lan", "10.1.0.3", .internal, nil),
            ("own.example.org", "10.1.0.4", .files(files), nil),
            ("later.example.org", "10.1.0.5", .files(nil), nil),
            ("plain.lan", "127.0.0.1", .off, check),
        ]
        return try all.map { host, address, security, check in
            Site(
                host: host, fleet: "home", vm: "vm", upstream: try upstream(address, 8080),
                security: security, check: check)
        }
    }

    @Test("one site of each kind")
    func golden() throws {
        let caddy = Caddy(try Self.sites(), Publishing(), Self.folders)
        let path = Files.parent(#filePath) + "/Goldens/full.json"
        let text = caddy.configuration.text(pretty: true) + "\n"
        if environment("MARTLET_GOLDENS") == "write" { try Files.write(path, text, mode: 0o644) }
        #expect(try Files.readText(path) == text)
    }

    @Test("the order in which sites are found means nothing")
    func order() throws {
        let sites = try Self.sites()
        let settings = Publishing()
        #expect(
            Caddy(sites, settings, Self.folders).configuration
                == Caddy(sites.reversed(), settings, Self.folders).configuration)
    }

    @Test(
        "which port speaks what",
        arguments: [
            ([":80", ":443"], 80, 443), ([":8080", ":8443"], 8080, 8443), ([":443"], nil, 443),
            ([":80"], 80, nil), ([":8443"], nil, 8443), ([":443", ":8080"], 8080, 443),
            (["10.0.0.1:443", "10.0.0.1:80", "[::1]:443"], 80, 443), ([], nil, nil),
        ] as [([String], UInt16?, UInt16?)])
    func ports(_ listen: [String], _ http: UInt16?, _ https: UInt16?) {
        var settings = Publishing()
        settings.listen = listen
        #expect(settings.ports.http == http)
        #expect(settings.ports.https == https)
        #expect(
            settings.addresses(on: https).count == (listen.count == 3 ? 2 : https == nil ? 0 : 1))
    }

    @Test("other ports are named where visitors and authorities must know them")
    func otherPorts() throws {
        var settings = Publishing()
        settings.listen = [":8080", ":8443"]
        let text = Caddy(try Self.sites(), settings, Self.folders).configuration.text()
        #expect(text.contains(#""https://vault.lan:8443{http.request.uri}""#))
        #expect(text.contains(#""http":{"alternate_port":8080}"#))
        #expect(text.contains(#""tls-alpn":{"alternate_port":8443}"#))
        settings.listen = [":443"]
        let alone = Caddy(try Self.sites(), settings, Self.folders).configuration.text()
        #expect(alone.contains(#""http":{"disabled":true}"#) && !alone.contains("308"))
    }

    @Test("the real Caddy takes it", .enabled(if: findProgram("caddy") != nil))
    func validate() async throws {
        var template = Array("/tmp/martlet-caddy-XXXXXX".utf8CString)
        let folder = try #require(mkdtemp(&template).map { String(cString: $0) })
        defer { try? Files.remove(folder) }
        let folders = Caddy.Folders(
            storage: folder + "/storage", log: folder + "/log", adminSocket: folder + "/admin.sock")
        // Files that are not there would be refused.
        let sites = try Self.sites().filter {
            if case .files(_?) = $0.security { false } else { true }
        }.map { site -> Site in
            guard case .acme(let account) = site.security else { return site }
            return Site(
                host: site.host, fleet: site.fleet, vm: site.vm, upstream: site.upstream,
                security: .acme(ACME(directory: account.directory, email: account.email)),
                check: site.check)
        }
        let configuration = Caddy(sites, Publishing(), folders).configuration.text(pretty: true)
        try Files.write(folder + "/caddy.json", configuration)
        var program = Program(
            try #require(findProgram("caddy")), ["validate", "--config", folder + "/caddy.json"])
        program.environment = ["HOME=\(folder)", "PATH=/usr/bin:/bin"]
        let output = try await program.capture()
        #expect(output.exit.isSuccess, "\(output.errorText)")
    }
}
