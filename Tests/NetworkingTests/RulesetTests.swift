// SPDX-License-Identifier: Apache-2.0
import Fleets
import Support
import Testing

@testable import Networking

/// Fleets with every kind of network, egress and forward.
enum Sample {
    static let owner = Owner(fleet: "home", root: "/var/lib/martlet")

    static func network(_ name: String, _ number: Int, _ change: (inout Network) -> Void = { _ in })
        throws -> Network
    {
        var network = Network(name: name)
        network.subnet = CIDR("10.\(number).0.0/24")
        change(&network)
        return network
    }

    static func vm(_ name: String, _ network: String, _ address: String?, _ number: UInt64) -> VM {
        var vm = VM(name: name)
        var interface = Interface(network: network)
        interface.address = address.flatMap { IPv4($0) }
        interface.mac = MACAddress(bits: 0x0200_0000_0000 | number)
        interface.tap = "mv-\(name)"
        vm.interfaces = [interface]
        return vm
    }

    static func rich() throws -> FleetNetworks {
        let six = try network("web", 1) {
            $0.ipv6 = true
            $0.subnet6 = CIDR6("fd00:6d76:6d:1::/64")
        }
        let listed = try network("db", 2) {
            $0.isolated = false
            $0.egress = .only(
                ["tcp:443", "udp:53@9.9.9.9", "udp:53@9.0.0.0/8", "10.9.0.0/16", "10.9.8.0/24"]
                    .compactMap { EgressRule($0) })
        }
        var lan = Network(name: "lan")
        lan.bridge = "br0"
        var web = vm("web", "web", "10.1.0.2", 2)
        web.ports = ["127.0.0.1:2201:22", "8080:80", "[fd00::9]:53:5353/udp"].compactMap {
            PortForward($0)
        }
        var opening = Opening()
        opening.from = "web"
        opening.to = "db"
        opening.ports = [ProtocolPort(.tcp, 5432)]
        return FleetNetworks(
            owner: owner,
            networks: [
                six, listed, lan, try network("all", 3) { $0.egress = .all },
                try network("none", 4) { $0.egress = .none }, try network("unused", 5),
            ], openings: [opening], trusted: ["wg0"],
            vms: [
                web, vm("db", "db", "10.2.0.2", 3), vm("nas", "lan", nil, 4),
                vm("a", "all", "10.3.0.2", 5), vm("n", "none", "10.4.0.2", 6),
            ])
    }
}

@Suite(.timeLimit(.minutes(20))) struct RulesetTests {
    @Test func theKernelHoldsWhatWasGivenAndReadsBackTheSame() async throws {
        let wanted = try Sample.rich().elements
        try await inNewNetwork {
            #expect(try !HostRules.apply(wanted, of: Sample.owner).isEmpty)
            let rules = try HostRules(of: Sample.owner)
            #expect(rules.isCurrent)
            #expect(rules.elements == wanted)
            #expect(Set(rules.drops.keys) == Set(Ruleset.drops))
            // Nothing to do the second time, and nothing is left in the end.
            #expect(try HostRules.apply(wanted, of: Sample.owner).isEmpty)
            try HostRules.remove(Sample.owner)
            #expect(try Nftables.list("list tables").allSatisfy { $0["table"] == nil })
        }
    }

    @Test func aChangeIsADifferenceOfElements() async throws {
        let before = try Sample.rich()
        let after = FleetNetworks(
            owner: Sample.owner, networks: before.segments.map(\.network), openings: [],
            trusted: [], vms: [Sample.vm("web", "web", "10.1.0.3", 2)])
        try await inNewNetwork {
            _ = try HostRules.apply(before.elements, of: Sample.owner)
            let difference = try HostRules.apply(after.elements, of: Sample.owner)
            #expect(try HostRules(of: Sample.owner).elements == after.elements)
            #expect(difference.removed.keys.contains { $0.name == "trusted" })
            #expect(
                difference.added.values.joined().map(\.text).contains {
                    $0 == "\"mv-web\" . 10.1.0.3"
                })
        }
    }

    @Test func tablesOfOtherRulesAreReplacedWhole() async throws {
        let wanted = try Sample.rich().elements
        try await inNewNetwork {
            let table = Sample.owner.table
            try Nftables.run(
                """
                table inet \(table) { set nets { type ifname; elements = { "old" }; }
                chain forward { type filter hook forward priority 0; }
                }
                """)
            _ = try HostRules.apply(wanted, of: Sample.owner)
            let rules = try HostRules(of: Sample.owner)
            #expect(rules.isCurrent && rules.elements == wanted)
        }
    }

    /// Recorded: the first of each pair is listed by nftables 1.0.6, the second by 1.1.3.
    @Test(arguments: [
        (#"["ifname", "integer"]"#, #""ipv4_addr . inet_service""#),
        (
            #"{"typeof": {"concat": [{"meta": {"key": "iifname"}}, {"payload": {"base": "th", "offset": 64, "len": 128}}]}}"#,
            #"["ipv4_addr", "inet_service"]"#
        ),
    ])
    func versionsOfNftablesAreReadAlike(type: String, value: String) throws {
        let set = """
            {"set": {"name": "own6-raw", "type": \(type), "elem": [
                {"concat": ["mv-one-o7zrbc", "0xfdae5438c1bee89d0000000000000002"]}]}}
            """
        let map = """
            {"map": {"name": "forwards4", "type": ["inet_proto", "inet_service"], "map": \(value),
                "elem": [[{"concat": [6, 2201]}, {"concat": ["10.1.0.2", 22]}]]}}
            """
        var elements = Elements()
        elements.read([try JSONValue(parsing: set)], .bridge)
        elements.read([try JSONValue(parsing: map)], .inet)
        #expect(
            elements[.bridge, "own6-raw"]
                == ["\"mv-one-o7zrbc\" . 0xfdae5438c1bee89d0000000000000002"])
        #expect(elements[.inet, "forwards4"] == ["6 . 2201 : 10.1.0.2 . 22"])
    }

    @Test func overlappingRulesBecomeOne() throws {
        let elements = try Sample.rich().elements
        #expect(
            elements[.inet, "egress-at"].map {
                $0.split(separator: " . ").dropFirst().joined(separator: " ")
            }
                == ["9.0.0.0/8 17 53"])
        #expect(elements[.inet, "egress-nets"].count == 1)
        #expect(elements[.inet, "egress-ports"].count == 1)
    }

    @Test func forwardsLeadToTheRightAddressOfEachFamily() throws {
        let elements = try Sample.rich().elements
        #expect(elements[.inet, "forwards4-at"] == ["127.0.0.1 . 6 . 2201 : 10.1.0.2 . 22"])
        #expect(elements[.inet, "forwards4"] == ["6 . 8080 : 10.1.0.2 . 80"])
        #expect(elements[.inet, "forwards6"] == ["6 . 8080 : fd00:6d76:6d:1::2 . 80"])
        #expect(
            elements[.inet, "forwards6-at"] == ["fd00::9 . 17 . 53 : fd00:6d76:6d:1::2 . 5353"])
    }

    @Test func aNetworkThatNobodyUsesIsNotThere() throws {
        let fleet = try Sample.rich()
        #expect(!fleet.segments.contains { $0.network.name == "unused" })
        #expect(
            FleetNetworks(
                owner: Sample.owner, networks: fleet.segments.map(\.network), trusted: ["wg0"],
                vms: []
            ).elements.sets.isEmpty)
    }

    @Test func anAddressOfTheLANIsPinnedOnlyWhereItIsKnown() throws {
        let elements = try Sample.rich().elements
        #expect(elements[.bridge, "any4"] == ["\"mv-nas\""])
        #expect(!elements[.bridge, "own4"].contains { $0.contains("mv-nas") })
        #expect(elements[.bridge, "macs"].contains("\"mv-nas\" . 02:00:00:00:00:04"))
    }

    @Test func theRulesOfOneFleetAreNotThoseOfAnother() {
        let other = Owner(fleet: "home", root: "/srv/martlet")
        #expect(other.table != Sample.owner.table)
        #expect(other.aliasPrefix != Sample.owner.aliasPrefix)
    }
}
