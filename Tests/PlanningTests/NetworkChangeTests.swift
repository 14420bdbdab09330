// SPDX-License-Identifier: Apache-2.0
import Fleets
import Testing

@testable import Planning

/// What a change of the fleet's networks costs each VM.
@Suite struct NetworkChangeTests {
    private static let base = """
        networks: { web: { subnet: 10.1.0.0/24 }, other: { subnet: 10.2.0.0/24 }, lan: { bridge: br0 } }
        vms:
          a: { interfaces: [{ network: web }] }
          b: { interfaces: [{ network: other }] }
          c: {}
          d: { interfaces: [{ network: lan }] }
        """

    private func fleet(_ text: String) throws -> Fleet {
        let file = FleetFile.parse(text)
        return try #require(file.fleet, "\(file.diagnostics)")
    }

    private func changes(
        _ vm: String, _ old: String, _ new: String
    ) throws -> [String] {
        let new = try fleet(new)
        let changes = networkChanges(
            for: try #require(new.vm(vm)), from: try fleet(old).networkSettings,
            to: new.networkSettings)
        return changes.map { "\($0.field) \($0.consequence.rawValue)" }
    }

    @Test(arguments: [
        ("web: { subnet: 10.1.0.0/24, egress: none }", "networks.web.egress live"),
        ("web: { subnet: 10.1.0.0/24, isolated: false }", "networks.web.isolated live"),
        ("web: { subnet: 10.1.0.0/24, dns: [9.9.9.9] }", "networks.web.dns live"),
        ("web: { subnet: 10.9.0.0/24 }", "networks.web.subnet restart"),
        (
            "web: { subnet: 10.1.0.0/24, ipv6: true, subnet6: \"fd00::/64\" }",
            "networks.web.ipv6 restart"
        ),
    ])
    func aKeyCostsWhatTheGuestKnowsOfIt(written: String, expected: String) throws {
        let new = Self.base.replacing("web: { subnet: 10.1.0.0/24 }", with: written)
        #expect(try changes("a", Self.base, new).contains(expected))
        // It is no business of those on other networks, or on none.
        for other in ["b", "c", "d"] { #expect(try changes(other, Self.base, new) == []) }
    }

    @Test func theResolversOfALANAreTheGuestsOwn() throws {
        let new = Self.base.replacing("bridge: br0", with: "bridge: br0, dns: [9.9.9.9]")
        #expect(try changes("d", Self.base, new) == ["networks.lan.dns restart"])
    }

    @Test func openingsConcernBothEnds() throws {
        let new = Self.base + "\nallow: [{ from: a, to: b, ports: [\"tcp:80\"] }]"
        for end in ["a", "b"] { #expect(try changes(end, Self.base, new) == ["allow live"]) }
        for other in ["c", "d"] { #expect(try changes(other, Self.base, new) == []) }
    }

    @Test func whatIsTrustedConcernsAllOnNetworks() throws {
        let new = Self.base + "\ntrusted: [wg0]"
        for vm in ["a", "b", "d"] { #expect(try changes(vm, Self.base, new) == ["trusted live"]) }
        #expect(try changes("c", Self.base, new) == [])
    }

    @Test func onlyRootMakesNetworks() throws {
        let fleet = try fleet(Self.base)
        let plan = plan(from: State(hasPrivilege: false), to: fleet) { _ in .built(digest: "x") }
        let refused = plan.steps.filter { $0.refusal != nil }
        #expect(refused.map(\.vm) == ["a", "b", "d"])
        #expect(refused.first?.refusal?.reason.contains("sudo") == true)
    }

    @Test(arguments: [
        ("ports", true), ("firewall", true), ("limits.network", true), ("dns", false),
    ])
    func theHostTakesItsPartOverWhileAGuestRuns(field: String, isLive: Bool) {
        #expect(consequence(ofChanging: field, onNetwork: true) == (isLive ? .live : .restart))
        // QEMU itself forwards for a 'user' interface.
        #expect(consequence(ofChanging: field, onNetwork: false) == .restart)
    }
}
