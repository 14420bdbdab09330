// SPDX-License-Identifier: Apache-2.0
import Fleets
import Support
import Testing

@testable import Networking

/// Firewalls of others, loaded into a kernel and read back: what they drop, and what opens them.
@Suite(.timeLimit(.minutes(20))) struct ForeignFirewallTests {
    private typealias Firewall = ForeignFirewall

    private static let bridges = [
        Firewall.Bridge(name: "mb-one-aaaaaa", subnet: CIDR("10.1.0.0/24")),
        Firewall.Bridge(name: "mb-two-bbbbbb", subnet: CIDR("10.2.0.0/24"), hasIPv6: true),
    ]
    private static let names = bridges.map(\.name)

    private func look(_ rules: String, then commands: [String] = []) async throws -> [Firewall] {
        try await inNewNetwork {
            try Nftables.run(rules)
            for command in commands {
                try #require(command.hasPrefix("nft "))
                try Nftables.run(String(command.dropFirst(4)))
            }
            return try Firewall.look(for: Self.bridges)
        }
    }

    private static func chain(
        _ hook: String, _ rules: String, policy: String = "drop", family: String = "inet"
    ) -> String {
        """
        table \(family) theirs {
            chain helper { accept; }
            chain web { tcp dport 80 accept; }
            chain c { type filter hook \(hook) priority 0; policy \(policy); \(rules)
            }
        }
        """
    }

    @Test(
        arguments: [
            // What closes the hook forward, and whether it closes both bridges, one or none.
            ("", names), ("ct state established,related accept", names),
            ("accept", []), ("jump helper", []), ("goto helper", []), ("jump web", names),
            ("return; accept", names), ("drop; accept", names), ("counter accept", []),
            ("iifname \"mb-*\" accept", names), ("oifname \"mb-*\" accept", names),
            ("iifname \"mb-*\" accept; oifname \"mb-*\" accept", []),
            ("iifname \"mb-*\" oifname \"eth0\" accept; oifname \"mb-*\" accept", names),
            ("iifname \"mb-*\" tcp dport 443 accept; oifname \"mb-*\" accept", names),
            ("iifname { \"mb-one-aaaaaa\", \"x\" } accept; oifname \"mb-one*\" accept", [names[1]]),
            ("iifname != \"eth0\" accept; oifname != \"eth0\" accept", []),
            ("iifname \"eth0\" jump helper", names),
            (
                "ip saddr 10.0.0.0/8 accept; ip daddr { 10.1.0.0/24, 10.9.0.0/16 } accept",
                [names[1]]
            ),
            ("ip saddr 10.1.0.0/25 accept; oifname \"mb-*\" accept", names),
            ("limit rate 5/second accept; oifname \"mb-*\" accept", names),
        ] as [(String, [String])])
    func whatNoRuleAcceptsIsDropped(rules: String, closed: [String]) async throws {
        let found = try await look(Self.chain("forward", rules))
        #expect(found.flatMap(\.bridges) == closed)
        #expect(found.count == (closed.isEmpty ? 0 : 1))
        let open = try await look(Self.chain("forward", rules, policy: "accept"))
        #expect(open.isEmpty == !rules.hasPrefix("drop"))
        // A last rule that rejects is such a policy, too, for whom it is reached by.
        guard !rules.hasPrefix("return") else { return }
        let rejecting = Self.chain("forward", rules + "; reject", policy: "accept")
        #expect(try await look(rejecting).flatMap(\.bridges) == closed)
    }

    @Test(
        arguments: [
            ("", names), ("iifname \"mb-*\" accept", []), ("udp dport { 53, 67 } accept", []),
            ("udp dport 53 accept", names), ("meta l4proto 17 th dport 50-70 accept", []),
            ("iifname \"mb-one-aaaaaa\" udp dport 67 accept; udp dport 53 accept", [names[1]]),
            ("ip saddr 10.0.0.0/8 accept", names), ("iifname \"lo\" accept", names),
            ("ip saddr 10.0.0.0/8 accept; ip protocol udp udp dport 67 accept", []),
            ("tcp dport { 53, 67 } accept", names),
        ] as [(String, [String])])
    func theHostMustAnswerForAddressesAndNames(rules: String, closed: [String]) async throws {
        #expect(try await look(Self.chain("input", rules)).flatMap(\.bridges) == closed)
    }

    @Test func onlyWhoUsesIPv6MindsItsRules() async throws {
        let forward = try await look(Self.chain("forward", "", family: "ip6"))
        #expect(forward.flatMap(\.bridges) == ["mb-two-bbbbbb"])
        #expect(try await look(Self.chain("output", "")).isEmpty)
    }

    @Test func rulesOfOursAreNotForeign() async throws {
        let found = try await inNewNetwork {
            try Nftables.run(Ruleset.text("martlet-test-000000"))
            return try Firewall.look(for: Self.bridges)
        }
        #expect(found.isEmpty)
    }

    @Test func aBridgeOfTheHostAsksItForNothing() async throws {
        let lan = Firewall.Bridge(name: "br0", subnet: nil, isOurs: false)
        let found = try await inNewNetwork {
            try Nftables.run(Self.chain("input", ""))
            try Nftables.run(Self.chain("forward", "").replacing("theirs", with: "more"))
            return try Firewall.look(for: [lan])
        }
        #expect(found.map(\.hook) == [.forward])
        #expect(
            found.first?.commands == [
                "nft insert rule inet more c iifname \"br0\" accept",
                "nft insert rule inet more c oifname \"br0\" accept",
            ])
    }

    private static let docker = """
        table ip nat {
            chain PREROUTING { type nat hook prerouting priority -100; policy accept; }
        }
        table ip filter {
            chain DOCKER { iifname != "docker0" oifname "docker0" counter drop; }
            chain DOCKER-FORWARD { oifname "docker0" ct state established accept; jump DOCKER; }
            chain DOCKER-USER { counter return; }
            chain FORWARD {
                type filter hook forward priority filter; policy drop;
                counter jump DOCKER-USER
                counter jump DOCKER-FORWARD
            }
        }
        """

    @Test func dockerIsOpenedWhereItLeavesRoomForOthers() async throws {
        let found = try await look(Self.docker)
        let docker = try #require(found.first)
        #expect(found.count == 1 && docker.maker == .docker && docker.bridges == Self.names)
        #expect(docker.isTransient)
        #expect(
            docker.text == "the chain 'ip filter FORWARD' (Docker) drops forwarded packets of "
                + "mb-one-aaaaaa, mb-two-bbbbbb")
        #expect(
            docker.commands == [
                "nft insert rule ip filter DOCKER-USER iifname \"mb-*\" accept",
                "nft insert rule ip filter DOCKER-USER oifname \"mb-*\" accept",
            ])
        #expect(try await look(Self.docker, then: docker.commands).isEmpty)
    }

    @Test func plainRulesAreOpenedAtBothHooks() async throws {
        let rules =
            Self.chain("forward", "ct state established accept")
            + "\nadd chain inet theirs in { type filter hook input priority 0; policy drop; }"
        let found = try await look(rules)
        #expect(found.map(\.hook) == [.forward, .input] && found.allSatisfy { $0.maker == .other })
        #expect(
            found.last?.commands == ["nft insert rule inet theirs in iifname \"mb-*\" accept"])
        #expect(try await look(rules, then: found.flatMap(\.commands)).isEmpty)
    }

    /// As `ufw enable` makes it with nft, without what does not matter here; `user` are its own.
    private static func ufw(forward: String = "", input: String = "") -> String {
        """
        table ip filter {
            chain ufw-user-input {
                \(input)
            }
            chain ufw-user-forward {
                \(forward)
            }
            chain ufw-before-input {
                iifname "lo" counter accept
                ct state related,established counter accept
                udp sport 67 udp dport 68 counter accept
                counter jump ufw-user-input
            }
            chain ufw-before-forward {
                ct state related,established counter accept
                counter jump ufw-user-forward
            }
            chain INPUT {
                type filter hook input priority filter; policy drop;
                counter jump ufw-before-input
            }
            chain FORWARD {
                type filter hook forward priority filter; policy drop;
                counter jump ufw-before-forward
            }
        }
        """
    }

    @Test func ufwIsToldTheRealNames() async throws {
        let found = try await look(Self.ufw())
        #expect(found.allSatisfy { $0.maker == .ufw && !$0.isTransient })
        let commands = Dictionary(uniqueKeysWithValues: found.map { ($0.hook, $0.commands) })
        #expect(
            commands[.forward] == [
                "ufw route allow in on mb-one-aaaaaa", "ufw route allow out on mb-one-aaaaaa",
                "ufw route allow in on mb-two-bbbbbb", "ufw route allow out on mb-two-bbbbbb",
            ])
        #expect(
            commands[.input] == ["ufw allow in on mb-one-aaaaaa", "ufw allow in on mb-two-bbbbbb"])
        // What these commands make, for one of the two.
        let rules = Self.ufw(
            forward: "iifname \"mb-one-aaaaaa\" counter accept; "
                + "oifname \"mb-one-aaaaaa\" counter accept",
            input: "iifname \"mb-one-aaaaaa\" counter accept")
        #expect(try await look(rules).map(\.bridges) == [["mb-two-bbbbbb"], ["mb-two-bbbbbb"]])
    }

    /// firewalld 1.3 in short, with one interface in the zone `trusted`.
    private static let firewalld = """
        table inet firewalld {
            chain filter_IN_public {
                tcp dport 22 accept
                meta l4proto { 1, 58 } accept
                reject with icmpx admin-prohibited
            }
            chain filter_FWD_public { reject with icmpx admin-prohibited; }
            chain filter_IN_trusted { accept; }
            chain filter_FWD_trusted { accept; }
            chain filter_INPUT_ZONES {
                iifname "mb-one-aaaaaa" goto filter_IN_trusted
                goto filter_IN_public
            }
            chain filter_FORWARD_ZONES {
                iifname "mb-one-aaaaaa" goto filter_FWD_trusted
                goto filter_FWD_public
            }
            chain filter_INPUT {
                type filter hook input priority filter + 10; policy accept;
                ct state { established, related } accept
                iifname "lo" accept
                jump filter_INPUT_ZONES
                ct state invalid drop
                reject with icmpx admin-prohibited
            }
            chain filter_FORWARD {
                type filter hook forward priority filter + 10; policy accept;
                ct state { established, related } accept
                ct status dnat accept
                jump filter_FORWARD_ZONES
                reject with icmpx admin-prohibited
            }
        }
        """

    @Test func firewalldRejectsWhatIsInNoTrustedZone() async throws {
        let found = try await look(Self.firewalld)
        #expect(found.count == 2)
        for one in found {
            #expect(one.maker == .firewalld && one.bridges == ["mb-two-bbbbbb"])
            #expect(
                one.commands == [
                    "firewall-cmd --permanent --zone=trusted --add-interface=mb-two-bbbbbb",
                    "firewall-cmd --reload",
                ])
        }
    }
}
