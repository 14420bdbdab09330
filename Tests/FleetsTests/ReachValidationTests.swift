// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

/// Each row is a fleet and what is said about who reaches whom.
@Suite struct ReachValidationTests {
    @Test(arguments: [
        (
            "networks: { n: { bridge: b, egress: none } }\nvms: {}",
            ["1:37: networks.n.egress: what passes over a bridge of the host"]
        ),
        (
            "networks: { n: { macvtap: e, mode: passthru } }\n"
                + "vms: { a: { interfaces: [{ network: n }] }, b: { interfaces: [{ network: n }] } }",
            ["1:36: networks.n.mode: 'passthru' gives the interface to one VM alone"]
        ),
        (
            "networks: { n: { subnet: 10.1.0.0/30 } }\n"
                + "vms: { a: { interfaces: [{ network: n }] }, b: { interfaces: [{ network: n }] } }",
            ["1:26: networks.n.subnet: 10.1.0.0/30 has room for 1 VMs, and 2 interfaces"]
        ),
        (
            "networks: { n: { subnet: 10.1.0.0/24 } }\n"
                + "vms: { a: { interfaces: [{ network: n }], ports: [\"[fd00::9]:80:80\"] } }",
            ["2:51: vms.a.ports[0]: leads from an IPv6 address"]
        ),
        (
            "vms: { a: { ports: [\"[fd00::9]:80:80\"] } }",
            ["1:21: vms.a.ports[0]: QEMU forwards ports of IPv4 addresses only"]
        ),
        (
            "networks: { n: { bridge: b } }\n"
                + "vms: { a: { interfaces: [{ network: n }], ports: [\"80:80\"] } }",
            ["2:51: vms.a.ports[0]: the LAN gives 'a' its address"]
        ),
        (
            "networks: { n: { macvtap: e } }\n"
                + "vms: { a: { interfaces: [{ network: n }], limits: { network: 1Mbit/s } } }",
            ["2:62: vms.a.limits.network: traffic on macvtap ('n') passes the host's queues by"]
        ),
        (
            "networks: { n: { bridge: b }, m: { subnet: 10.1.0.0/24 } }\n"
                + "vms: { a: { interfaces: [{ network: n }] }, b: { interfaces: [{ network: m }] } }\n"
                + "allow: [{ from: a, to: b, ports: [\"tcp:1\"] }]",
            ["3:17: allow[0].from: the LAN gives 'a' its address"]
        ),
        (
            "networks: { n: { bridge: b, subnet: 10.1.0.0/24, gateway: 10.1.0.1 } }\n"
                + "vms: { a: { interfaces: [{ network: n }] }, b: { interfaces: [{ network: n }] } }\n"
                + "allow: [{ from: a, to: b, ports: [\"tcp:1\"] }]",
            ["3:9: allow[0]: VMs on the host's bridge are closed to each other as a whole"]
        ),
        (
            "networks: { n: { subnet: 10.1.0.0/24, ipv6: true } }\n"
                + "vms: { a: { interfaces: [{ network: n }], ports: [\"[fd00::9]:80:80\", \"81:81\"] } }",
            []
        ),
    ])
    func reach(text: String, expected: [String]) { expectMistakes(text, expected) }
}
