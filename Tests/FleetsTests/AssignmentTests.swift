// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

/// Who gets which address, and keeps it.
@Suite struct AssignmentTests {
    private func fleet(_ text: String) throws -> Fleet {
        let file = FleetFile.parse(text)
        return try #require(file.fleet, "\(file.diagnostics)")
    }

    private func addresses(_ text: String, _ kept: KeptAddresses = [:]) throws -> [String] {
        try fleet(text).assigningAddresses(kept).vms.flatMap { vm in
            vm.interfaces.map { "\(vm.name) \($0.address.map { "\($0)" } ?? "-")" }
        }
    }

    private static let web = "networks: { web: { subnet: 10.1.0.0/29 } }\n"

    @Test func theLowestFreeAddressIsGivenInTheOrderOfTheFile() throws {
        let text =
            Self.web
                + """
                defaults: { interfaces: [{ network: web }] }
                vms:
                  b: {}
                  a: {}
                  c: { interfaces: [{ network: web, address: 10.1.0.3 }] }
                  d: { interfaces: [{ network: user }] }
                """
        #expect(try addresses(text) == ["b 10.1.0.2", "a 10.1.0.4", "c 10.1.0.3", "d -"])
    }

    @Test func whatWasGivenIsKeptWhoeverComesAndGoes() throws {
        let text =
            Self.web
            + "vms: { a: { interfaces: [{ network: web }] }, b: { interfaces: [{ network: web }] } }"
        let kept: KeptAddresses = [
            "b": ["web": try #require(IPv4("10.1.0.5"))],
            "gone": ["web": try #require(IPv4("10.1.0.2"))],
        ]
        // The one that an absent VM had is not given away while others are free.
        #expect(try addresses(text, kept) == ["a 10.1.0.3", "b 10.1.0.5"])
    }

    @Test func whatDoesNotFitAnyMoreIsGivenAnew() throws {
        let text =
            Self.web
            + "vms: { a: { interfaces: [{ network: web }] }, b: { interfaces: [{ network: web, address: 10.1.0.4 }] } }"
        for old in ["10.2.0.2", "10.1.0.1", "10.1.0.4", "10.1.0.7", "10.1.0.0"] {
            let kept = ["a": ["web": try #require(IPv4(old))]]
            #expect(try addresses(text, kept) == ["a 10.1.0.2", "b 10.1.0.4"], "\(old)")
        }
    }

    @Test func aFullSubnetTakesBackWhatAbsentVMsHad() throws {
        let names = ["a", "b", "c", "d", "e"]
        let vms = names.map { "  \($0): { interfaces: [{ network: web }] }\n" }.joined()
        let kept = ["gone": ["web": try #require(IPv4("10.1.0.4"))]]
        #expect(
            try addresses(Self.web + "vms:\n" + vms, kept)
                == ["a 10.1.0.2", "b 10.1.0.3", "c 10.1.0.5", "d 10.1.0.6", "e 10.1.0.4"])
    }

    @Test func whereSomebodyElseGivesAddressesNoneIsGiven() throws {
        let text = """
            networks: { lan: { bridge: br0 }, wire: { macvtap: eth0 }, pinned: { bridge: br1, subnet: 192.168.5.0/24, gateway: 192.168.5.2 } }
            vms:
              a: { interfaces: [{ network: lan }, { network: wire }, { network: pinned }] }
            """
        // The router of a LAN may have any address.
        #expect(try addresses(text) == ["a -", "a -", "a 192.168.5.1"])
    }

    @Test func eachFamilyHasTheSameNumber() throws {
        let text =
            "networks: { web: { subnet: 10.1.0.0/24, ipv6: true, subnet6: \"fd00:1::/64\" } }\nvms: {}"
        let network = try #require(try fleet(text).network("web"))
        #expect(network.address6(of: IPv4("10.1.0.200")) == IPv6("fd00:1::c8"))
        #expect(network.router6 == IPv6("fd00:1::1"))
        #expect(network.address6(of: nil) == nil)
    }
}
