// SPDX-License-Identifier: Apache-2.0
import Engine
import Testing

@testable import Commands
@testable import Fleets
@testable import Networking

/// What `networks` prints of made-up networks, to the letter.
@Suite struct NetworkViewTests {
    private func view(
        _ observed: ObservedNetworks = MadeUpNetworks.observed(), hasNames: Bool? = true,
        routes: [AnnouncedRoute] = [], networks: [Network] = [MadeUpNetworks.network]
    ) -> NetworkView {
        NetworkView(
            fleet: "home", settings: NetworkSettings(networks: networks), observed: observed,
            hasNames: hasNames, routes: routes)
    }

    private func text(_ view: NetworkView) throws -> String {
        let recorder = try Recorder()
        view.show(recorder.printer)
        return try recorder.outputText()
    }

    @Test func aNetworkThatIsUsed() throws {
        #expect(
            try text(view()) == """
                NETWORK  KIND  STATE  LINK           SUBNET       GATEWAY   EGRESS    ISOLATED  NAMES
                one      nat   up     mb-one-abcdef  10.1.0.0/24  10.1.0.1  internet  yes       one.internal

                VM   NETWORK  TAP            ADDRESS   MAC                STATE  RECEIVED   SENT  PINNED
                web  one      mv-web-abcdef  10.1.0.2  02:00:00:00:00:01  up        3 KiB  2 MiB  MAC, ARP, IP

                FORWARD       VM   GUEST
                0.0.0.0:8080  web  80/tcp

                LEASE     NETWORK  MAC                NAME
                10.1.0.2  one      02:00:00:00:00:01  web

                Names on this host: yes

                DROPPED  PACKETS  WHAT
                spoofed       40  sent with an address that is not the VM's own
                egress         3  to where the network's `egress` does not lead

                """)
    }

    @Test func aNetworkThatNothingNeeds() throws {
        let unused = MadeUpNetworks.observed(rules: .missing, hasServer: false, isUsed: false)
        #expect(
            try text(view(unused, hasNames: false)) == """
                NETWORK  KIND  STATE   LINK  SUBNET       GATEWAY   EGRESS    ISOLATED  NAMES
                one      nat   unused  -     10.1.0.0/24  10.1.0.1  internet  yes       -

                Names on this host: no ('martlet doctor --fix' sets them up)
                No rules: nothing needs them.

                """)
    }

    @Test func aFleetWithoutNetworks() throws {
        #expect(
            try text(view(networks: []))
                == "The fleet 'home' has put no networks on this host.\n")
    }

    @Test(
        arguments: [
            (true, [], "Names on this host: yes\n"),
            (false, [], "Names on this host: no ('martlet doctor --fix' sets them up)\n"),
            (nil, [], "Names on this host: unknown ('martlet doctor' says why)\n"),
            (
                true,
                [
                    .init(route: "10.1.0.0/24", isAnnounced: true),
                    .init(route: "10.2.0.0/24", isAnnounced: false),
                    .init(route: "fd00::/64", isAnnounced: nil),
                ],
                "Names on this host: yes\nRoutes by Tailscale: 10.1.0.0/24, "
                    + "10.2.0.0/24 (not announced), fd00::/64 (unknown)\n"
            ),
        ] as [(Bool?, [AnnouncedRoute], String)])
    func whoElseKnowsOfThem(hasNames: Bool?, routes: [AnnouncedRoute], lines: String) throws {
        #expect(try text(view(hasNames: hasNames, routes: routes)).contains("\n\n" + lines + "\n"))
    }

    @Test(
        arguments: [
            (.missing, "The rules are missing: somebody flushed them, and nothing is closed."),
            (.different, "The rules are not as they should be: 'martlet up' makes them so."),
            (.unknown, "The packet filter can be looked at by root only."),
        ] as [(ObservedNetworks.Rules, String)])
    func whatIsWrongWithTheRules(rules: ObservedNetworks.Rules, words: String) throws {
        #expect(try text(view(MadeUpNetworks.observed(rules: rules))).contains("\n" + words))
    }

    @Test func theDocumentForScripts() throws {
        let routes = [
            AnnouncedRoute(route: "10.1.0.0/24", isAnnounced: true),
            AnnouncedRoute(route: "fd00::/64", isAnnounced: nil),
        ]
        #expect(
            view(hasNames: false, routes: routes).json.text(pretty: true) == """
                {
                  "fleet": "home",
                  "rules": "current",
                  "networks": [
                    {
                      "name": "one",
                      "kind": "nat",
                      "state": "up",
                      "link": "mb-one-abcdef",
                      "subnet": "10.1.0.0/24",
                      "subnet6": null,
                      "gateway": "10.1.0.1",
                      "egress": "internet",
                      "isolated": true,
                      "server": true,
                      "leases": [
                        {
                          "mac": "02:00:00:00:00:01",
                          "address": "10.1.0.2",
                          "name": "web"
                        }
                      ]
                    }
                  ],
                  "interfaces": [
                    {
                      "vm": "web",
                      "network": "one",
                      "tap": "mv-web-abcdef",
                      "mac": "02:00:00:00:00:01",
                      "addresses": [
                        "10.1.0.2"
                      ],
                      "state": "up",
                      "receivedBytes": 3072,
                      "sentBytes": 2097152,
                      "pinned": "MAC, ARP, IP"
                    }
                  ],
                  "forwards": [
                    {
                      "host": "0.0.0.0:8080",
                      "vm": "web",
                      "guest": "80/tcp"
                    }
                  ],
                  "namesOnHost": false,
                  "routes": [
                    {
                      "route": "10.1.0.0/24",
                      "announced": true
                    },
                    {
                      "route": "fd00::/64",
                      "announced": null
                    }
                  ],
                  "drops": {
                    "egress": 3,
                    "host": 0,
                    "spoofed": 40
                  }
                }
                """)
    }
}
