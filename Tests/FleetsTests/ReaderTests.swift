// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Testing

@testable import Fleets

/// A file of the repository, found from this source file.
func repositoryFile(_ path: String) throws -> String {
    let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    return String(decoding: try Data(contentsOf: URL(filePath: "/\(root)/\(path)")), as: UTF8.self)
}

@Suite struct ReaderTests {
    @Test func example() throws {
        let file = FleetFile.parse(try repositoryFile("examples/fleet.example.yaml"))
        #expect(file.errors.map(\.description) == [])
        let fleet = try #require(file.fleet)
        #expect(fleet.name == "home")
        #expect(
            fleet.vms.map(\.name)
                == ["proxy", "vault", "slot-1", "slot-2", "slot-3", "slot-4", "plain"])
        #expect(fleet.networks.map(\.name).contains("slot4"))
        #expect(fleet.network("slot2")?.subnet?.description == "10.202.0.0/24")
        #expect(fleet.vm("slot-3")?.interfaces.map(\.network) == ["slot3"])
        let proxy = try #require(fleet.vm("proxy"))
        #expect(proxy.memory == Memory(min: .mebibytes(256), max: .gibibytes(1)))
        #expect(proxy.hardening.kernel == .standard, "the VM wins over its profile")
        #expect(proxy.ports.map(\.description) == ["127.0.0.1:2201:22", "8080:80", "5353:53/udp"])
        #expect(proxy.health.first?.probe == HTTPTarget("http://:80/").map { .http($0) })
        #expect(try VM(record: proxy.json).json == proxy.json)
    }

    @Test(arguments: [
        "vms: { hello: {} }", "vms: {hello: }", "vms:\n  hello:\n", "vms: {hello: ~}",
    ])
    func smallest(text: String) throws {
        let file = FleetFile.parse(text, path: "/srv/My Home!/fleet.yaml")
        #expect(file.diagnostics == [])
        let fleet = try #require(file.fleet)
        #expect(fleet.name == "my-home")
        var expected = VM(name: "hello")
        expected.interfaces[0].mac = Derived.mac(fleet: "my-home", vm: "hello", interface: 0)
        #expect(fleet.vms == [expected])
    }

    @Test func openPorts() throws {
        let text = """
            networks: { n: { subnet: 10.0.0.0/24 } }
            allow: [{ from: b, to: a, ports: ["tcp:8085"] }]
            vms:
              a:
                interfaces: [{ network: n }]
                firewall: { tcp: [443] }
                ports: ["8080:80", "53:53/udp"]
                health: [{ http: "http://:80/" }, { exec: "true" }]
              b: { interfaces: [{ network: n }] }
            """
        let fleet = try #require(FleetFile.parse(text).fleet)
        let ports = fleet.vm("a")?.openPorts(allow: fleet.allow).map(\.description)
        #expect(ports == ["udp:53", "tcp:80", "tcp:443", "tcp:8085"])
        #expect(fleet.vm("b")?.openPorts(allow: fleet.allow) == [])
    }

    /// Each mistake of one file, in one run and in order.
    @Test(arguments: [
        (
            "vms: { web: { memory: lots } }",
            ["1:23: vms.web.memory: expected a size such as 512MiB, found 'lots'"]
        ),
        (
            "vms: { web: { memroy: 1GiB } }",
            ["1:15: vms.web.memroy: unknown key 'memroy'; did you mean 'memory'?"]
        ),
        (
            "vms:\n  web:\n    vcpu: two\n    ports: [80, \"8080:80\"]\n    restart: maybe\nnetwork: {}",
            [
                "3:11: vms.web.vcpu: expected a whole number, found 'two'",
                "4:13: vms.web.ports[0]: expected [address:]host:guest[/udp] with ports from 1 to 65535, such as 8080:80, found '80'",
                "5:14: vms.web.restart: expected one of no, on-failure, always, found 'maybe'",
                "6:1: network: unknown key 'network'; did you mean 'networks'?",
            ]
        ),
        ("vms: []", ["1:6: vms: expected a mapping, found a list"]),
        (
            "[1]",
            [
                "1:1: expected a mapping, found a list",
                "1:1: 'vms' is required; write 'vms: {}' for a fleet without any",
            ]
        ),
        ("", ["1:1: is empty; the smallest fleet is 'vms: { hello: {} }'"]),
        ("fleet: x", ["1:1: 'vms' is required; write 'vms: {}' for a fleet without any"]),
        (
            "vms: { Web: {} }",
            [
                "1:8: vms.Web: 'Web' is no name: it becomes a host name and part of file names, so it takes a-z, 0-9 and inner '-', at most 32 characters"
            ]
        ),
        (
            "vms: { a: { count: 0 } }",
            ["1:20: vms.a.count: expected a number from 1 to 4096, found 0"]
        ),
        (
            "vms: { a: { profiles: [bgi] } }\nprofiles: { big: {} }",
            ["1:24: vms.a.profiles[0]: no profile 'bgi'; did you mean 'big'?"]
        ),
        (
            "defaults: { vcpu: x }\nvms: { a: {}, b: {} }",
            ["1:19: defaults.vcpu: expected a whole number, found 'x'"]
        ),
        (
            "profiles: { p: { count: 2 } }\nvms: {}",
            ["1:25: profiles.p.count: 'count' can stand only in an entry of 'vms'"]
        ),
        (
            "vms: { a: { timezone: true } }",
            ["1:23: vms.a.timezone: expected text, found true; put it in quotes if text is meant"]
        ),
        (
            "vms: { a: { health: { http: \"http://:80/\", tcp: 80 } } }",
            ["1:21: vms.a.health: a check asks exactly one of 'http', 'tcp', 'dns', 'exec'"]
        ),
        (
            "vms: { a: { rootPasswordHash: hunter2 } }",
            [
                "1:31: vms.a.rootPasswordHash: expected a hash from `mkpasswd`, such as $y$…; a password never stands in this file"
            ]
        ),
        (
            "vms: { a: { users: [{ sudo: true }] } }",
            ["1:21: vms.a.users[0]: 'name' is required: The login name."]
        ),
    ])
    func mistakes(text: String, expected: [String]) {
        let file = FleetFile.parse(text)
        #expect(file.diagnostics.map(\.description) == expected.map { "fleet.yaml:" + $0 })
        #expect(file.fleet == nil)
    }

    @Test func profilesAndDefaults() throws {
        let text = """
            defaults: { vcpu: 2, ssh: { user: root }, profiles: [small] }
            profiles:
              small: { memory: 256MiB, firewall: { tcp: [1], udp: [2] } }
              big: { memory: 4GiB, vcpu: 4, firewall: { tcp: [80] } }
            vms:
              a: {}
              b: { profiles: [small, big], vcpu: 3, disk: ~ }
              c: { profiles: [big, small] }
              d: { profiles: [], ssh: { authorizedKeys: [] } }
            """
        let fleet = try #require(FleetFile.parse(text).fleet)
        let shown = fleet.vms.map {
            "\($0.name) \($0.vcpu) \($0.memory.json.flow) \($0.ssh.user) \($0.firewall.json.flow)"
        }
        #expect(
            shown == [
                "a 2 256MiB root {tcp: [1], udp: [2]}",
                "b 3 4GiB root {tcp: [80], udp: [2]}",
                "c 4 256MiB root {tcp: [1], udp: [2]}",
                "d 2 512MiB root {tcp: [], udp: []}",
            ])
        #expect(fleet.vm("d")?.ssh.authorizedKeys == [])
    }

    @Test func origins() throws {
        var sources = FleetFile.Sources { _ in
            Array(
                """
                defaults:
                  vcpu: 2
                profiles:
                  big:
                    memory: 4GiB
                    stop: { grace: 5s }
                vms:
                  web:
                    profiles: [big]
                    disk: 1GiB
                    stop: ~
                    rootPasswordHash: $6$salt$hash
                """.utf8)
        }
        sources.overrides["web"] = .init(path: "o/web.yaml", bytes: Array("vcpu: 8".utf8))
        let file = FleetFile.load("fleet.yaml", from: sources)
        #expect(file.errors == [])
        let keys = try #require(file.effective("web"))
        let shown = keys.filter {
            ["vcpu", "memory", "disk", "stop.grace", "mode", "rootPasswordHash"].contains($0.path)
        }.map { "\($0.path) = \($0.value)  \($0.origin)" }
        #expect(
            shown == [
                "vcpu = 8  o/web.yaml:1 (override)", "memory = 4GiB  fleet.yaml:5 (profile big)",
                "disk = 1GiB  fleet.yaml:10", "rootPasswordHash = (hidden)  fleet.yaml:12",
                "mode = immutable  default", "stop.grace = 30s  default",
            ])
        #expect(file.effective("nobody") == nil)
    }
}

@Suite struct ExampleTests {
    @Test(arguments: [
        "examples/networks.yaml", "examples/volumes.yaml", "examples/shares.yaml",
        "examples/publish.yaml",
        "examples/demo/fleet.yaml",
    ])
    func eachExampleIsValid(path: String) throws {
        let file = FleetFile.parse(try repositoryFile(path))
        #expect(file.fleet != nil && file.diagnostics.isEmpty, "\(file.diagnostics)")
    }
}
