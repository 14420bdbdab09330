// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

/// Each row is a fleet and what is said about it.
@Suite struct NetworkValidationTests {
    @Test(arguments: [
        (
            "networks: { n: {} }\nvms: {}",
            ["1:16: networks.n: needs a 'subnet' such as 10.1.0.0/24"]
        ),
        (
            "networks: { user: { bridge: b } }\nvms: {}",
            ["1:19: networks.user: 'user' is the built-in"]
        ),
        (
            "networks: { n: { bridge: b, macvtap: e } }\nvms: {}",
            ["1:38: networks.n.macvtap: a network is either"]
        ),
        (
            "networks: { n: { bridge: a-very-long-bridge } }\nvms: {}",
            ["1:26: networks.n.bridge: 'a-very-long-bridge' is no name of a network interface"]
        ),
        (
            "networks: { n: { subnet: 10.0.0.0/31 } }\nvms: {}",
            ["1:26: networks.n.subnet: a subnet for VMs has a prefix"]
        ),
        (
            "networks: { n: { subnet: 127.1.0.0/24 } }\nvms: {}",
            ["1:26: networks.n.subnet: 127.1.0.0/24 lies in 127.0.0.0/8"]
        ),
        (
            "networks: { n: { subnet: 10.0.0.1/24 } }\nvms: {}",
            [
                "1:26: networks.n.subnet: expected a subnet such as 10.1.0.0/24, without host bits, found '10.0.0.1/24'"
            ]
        ),
        (
            "networks: { n: { bridge: b, subnet: 10.0.0.0/24, gateway: 10.1.0.1 } }\nvms: {}",
            ["1:59: networks.n.gateway: 10.1.0.1 is outside the subnet 10.0.0.0/24"]
        ),
        (
            "networks: { n: { subnet: 10.0.0.0/24, gateway: 10.0.0.9 } }\nvms: {}",
            ["1:48: networks.n.gateway: the gateway here is Martlet's own"]
        ),
        (
            "networks: { n: { macvtap: e, subnet: 10.0.0.0/24, egress: none } }\nvms: {}",
            [
                "1:38: networks.n.subnet: guests on macvtap",
                "1:59: networks.n.egress: traffic on macvtap",
            ]
        ),
        (
            "networks: { n: { subnet: 10.0.0.0/24, mode: vepa } }\nvms: {}",
            ["1:45: networks.n.mode: 'mode' is that of a 'macvtap'"]
        ),
        (
            "networks: { n: { subnet: 10.0.0.0/24, subnet6: fd00::/64 } }\nvms: {}",
            ["1:48: networks.n.subnet6: 'subnet6' has no effect"]
        ),
        (
            "networks:\n  a: { subnet: 10.0.0.0/16 }\n  b: { subnet: 10.0.7.0/24 }\n  c: { subnet: 10.0.9.0/24 }\n  d: { subnet: 10.1.0.0/24 }\nvms: {}",
            [
                "3:16: networks.b.subnet: 10.0.7.0/24 overlaps 10.0.0.0/16 of networks.a (fleet.yaml:2)",
                "4:16: networks.c.subnet: 10.0.9.0/24 overlaps 10.0.0.0/16 of networks.a",
            ]
        ),
        (
            "networks: { n: { subnet: 10.0.0.0/24, egress: [tcp:x] } }\nvms: {}",
            [
                "1:48: networks.n.egress[0]: expected tcp:443, udp:53@9.9.9.9 or a subnet, found 'tcp:x'"
            ]
        ),
        (
            "networks: { n: { subnet: 10.0.0.0/24, egress: internat } }\nvms: {}",
            ["1:47: networks.n.egress: expected internet, all, none, or a list"]
        ),
        (
            "trusted: [\"wg 0\"]\nvms: {}",
            ["1:11: trusted[0]: 'wg 0' is no name of a network interface"]
        ),
    ])
    func networks(text: String, expected: [String]) { expectMistakes(text, expected) }

    private static let net =
        "networks: { n: { subnet: 10.0.0.0/24 }, m: { macvtap: e0 }, b: { bridge: br0 } }\n"

    @Test(arguments: [
        (
            "vms: { a: { interfaces: [{ network: m0 }] } }",
            ["2:37: vms.a.interfaces[0].network: no network 'm0'; did you mean 'm'?"]
        ),
        (
            "vms: { a: { interfaces: [{ network: user, address: 10.0.0.5 }] } }",
            ["2:52: vms.a.interfaces[0].address: the 'user' network gives"]
        ),
        (
            "vms: { a: { interfaces: [{ network: user, tap: x }] } }",
            ["2:48: vms.a.interfaces[0].tap: a 'user' interface has no tap"]
        ),
        (
            "vms: { a: { interfaces: [{ network: user }, { network: user }] } }",
            ["2:45: vms.a.interfaces[1]: one 'user' interface"]
        ),
        (
            "vms: { a: { interfaces: [{ network: n, address: 10.1.0.5 }] } }",
            [
                "2:49: vms.a.interfaces[0].address: 10.1.0.5 is outside the subnet 10.0.0.0/24 of the network 'n'"
            ]
        ),
        (
            "vms: { a: { interfaces: [{ network: n, address: 10.0.0.1 }] } }",
            ["2:49: vms.a.interfaces[0].address: 10.0.0.1 is the gateway"]
        ),
        (
            "vms: { a: { interfaces: [{ network: n, address: 10.0.0.0 }] } }",
            ["2:49: vms.a.interfaces[0].address: 10.0.0.0 is the address of the subnet"]
        ),
        (
            "vms: { a: { interfaces: [{ network: n, address: 10.0.0.255 }] } }",
            ["2:49: vms.a.interfaces[0].address: 10.0.0.255 is the broadcast"]
        ),
        (
            "vms: { a: { interfaces: [{ network: b, address: 10.0.0.5 }] } }",
            ["2:49: vms.a.interfaces[0].address: the network 'b' has no 'subnet'"]
        ),
        (
            "vms: { a: { interfaces: [{ network: n, mac: 01:00:00:00:00:01 }] } }",
            ["2:45: vms.a.interfaces[0].mac: 01:00:00:00:00:01 is no address of one machine"]
        ),
        (
            "vms: { a: { interfaces: [{ network: n, tap: vb-a }] } }",
            ["2:45: vms.a.interfaces[0].tap: systemd-networkd takes over"]
        ),
        (
            "vms:\n  a: { interfaces: [{ network: n, address: 10.0.0.5, mac: 02:00:00:00:00:01, tap: t }], vsock: 7 }\n  b: { interfaces: [{ network: n, address: 10.0.0.5, mac: 02:00:00:00:00:01, tap: t }], vsock: 7 }",
            [
                "4:44: vms.b.interfaces[0].address: the address 10.0.0.5 belongs to vms.a already (fleet.yaml:3)",
                "4:59: vms.b.interfaces[0].mac: the MAC address 02:00:00:00:00:01 belongs to vms.a already (fleet.yaml:3); leave 'mac' out",
                "4:83: vms.b.interfaces[0].tap: the tap name t belongs to vms.a",
                "4:96: vms.b.vsock: the vsock address 7 belongs to vms.a",
            ]
        ),
        ("vms: { a: { vsock: 2 } }", ["2:20: vms.a.vsock: expected auto, off, or a number from 3"]),
        (
            "vms: { a: { interfaces: [], ports: [\"1:1\"] } }",
            ["2:37: vms.a.ports[0]: the VM has no interface"]
        ),
        (
            "vms: { a: { interfaces: [{ network: m }], ports: [\"1:1\"] } }",
            ["2:51: vms.a.ports[0]: a host cannot reach its own macvtap"]
        ),
        (
            "vms: { a: {}, b: {} }\nallow: [{ from: a, to: x, ports: [] }]",
            [
                "3:17: allow[0].from: 'a' has only a 'user' interface",
                "3:24: allow[0].to: no VM 'x'", "3:34: allow[0].ports: opens nothing",
            ]
        ),
    ])
    func interfaces(text: String, expected: [String]) { expectMistakes(Self.net + text, expected) }

    @Test(arguments: [
        ("80:80", "80:81", true), ("80:80", "127.0.0.1:80:80", true),
        ("127.0.0.1:80:80", "127.0.0.2:80:80", false), ("80:80", "80:80/udp", false),
        ("127.0.0.1:80:80", "[::1]:80:80", false), ("[::]:80:80", "127.0.0.1:80:80", true),
        ("[::]:80:80", "[::1]:80:80", true), ("80:80", "[::1]:80:80", true),
    ])
    func hostPorts(first: String, second: String, clash: Bool) {
        let text =
            "vms:\n  a: { ports: [\"\(first)\"] }\n  b: { ports: [\"\(second)\"] }\n"
            + "defaults: { interfaces: [{ network: n }] }\n"
            + "networks: { n: { subnet: 10.1.0.0/24, ipv6: true } }\n"
        let transport = second.hasSuffix("udp") ? "udp" : "tcp"
        expectMistakes(
            text,
            clash
                ? [
                    "3:16: vms.b.ports[0]: the host port 80/\(transport) belongs to vms.a already (fleet.yaml:2)"
                ] : [])
        expectMistakes(text.replacing("b: {", with: "b: { enable: false,"), [])
    }

    @Test(arguments: [
        (
            "a: { publish: [{ host: \"x y\" }] }",
            ["1:31: vms.a.publish[0].host: expected a host name"]
        ),
        (
            "a: { publish: [{ host: 10.0.0.1 }] }",
            ["1:31: vms.a.publish[0].host: expected a host name"]
        ),
        (
            "a: { publish: [{ host: x.lan }] }",
            [
                "1:23: vms.a.publish[0]: the reverse proxy cannot reach port 80",
                "1:31: vms.a.publish[0].host: no public authority certifies 'x.lan'",
            ]
        ),
        ("a: { publish: [{ host: x.lan, tls: internal }], ports: [\"8080:80\"] }", []),
        (
            "a: { publish: [{ host: x.org }, { host: X.org }], ports: [\"8080:80\"] }",
            ["1:48: vms.a.publish[1].host: the published host x.org belongs to vms.a"]
        ),
        (
            "a: { publish: [{ host: x.org, tls: \"dns:cf:key\" }], ports: [\"8080:80\"] }",
            ["1:43: vms.a.publish[0].tls: no secret 'key'"]
        ),
        (
            "a: { publish: [{ host: x.org }], ports: [\"443:443\", \"8080:80\"] }",
            ["1:22: vms.a.publish: the reverse proxy listens on :443, which belongs to vms.a"]
        ),
        (
            "a: { publish: [{ host: x.org }], ports: [\"8080:80\"] }, "
                + "b: { publish: [{ host: y.org }], ports: [\"8081:80\"] }", []
        ),
        (
            "a: { publish: [{ host: x.org, port: 81 }], ports: [\"8080:80\"] }",
            ["1:23: vms.a.publish[0]: the reverse proxy cannot reach port 81 of 'a': its network"]
        ),
    ])
    func publications(text: String, expected: [String]) {
        expectMistakes("vms: { \(text) }", expected)
    }

    @Test(
        arguments: [
            ("nat", "off", "[\":80\"]", nil),
            ("nat", "internal", "[\":80\"]", "'publishing.listen' has no port for HTTPS"),
            ("nat", "off", "[\":443\"]", "'publishing.listen' has no port for HTTP:"),
            ("lan", "off", "[\":80\"]", nil),
            ("dhcp", "off", "[\":80\"]", "the LAN gives it its address"),
            ("wire", "off", "[\":80\"]", "a host cannot reach its own macvtap guests"),
        ] as [(String, String, String, String?)])
    func whatTheProxyMustReach(network: String, tls: String, listen: String, expected: String?) {
        let loaded = FleetFile.parse(
            """
            networks: { nat: { subnet: 10.1.0.0/24 }, dhcp: { bridge: br0 }, wire: { macvtap: up0 },
              lan: { bridge: br1, subnet: 10.2.0.0/24, gateway: 10.2.0.1 } }
            publishing: { listen: \(listen) }
            vms: { a: { interfaces: [{ network: \(network) }], publish: [{ host: x.lan, tls: \(tls) }] } }
            """)
        let mistakes = loaded.errors.map { "\($0)" }
        if let expected {
            #expect(
                mistakes.count == 1 && mistakes.first?.contains(expected) == true, "\(mistakes)")
        } else {
            #expect(mistakes.isEmpty, "\(mistakes)")
        }
    }
}
