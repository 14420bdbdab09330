// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Engine

/// Routes through a stand-in for Tailscale, by the whole program in a namespace of its own.
@Suite(
    .timeLimit(.minutes(20)), .enabled(if: NetworkHost.isPossible, "networks need root"))
struct AnnouncementTests {
    private static let networks =
        "networks: {one: {subnet: 10.1.0.0/24, ipv6: true, subnet6: 'fd00:1::/64'}, "
        + "two: {subnet: 10.2.0.0/24}}"
    private static let ours = ["10.1.0.0/24", "fd00:1::/64", "10.2.0.0/24"]
    private static let vm = "web: {interfaces: [{network: one, address: 10.1.0.2}]}"

    private func declare(_ host: NetworkHost, _ networks: String, advertise: String) throws {
        try host.declare("\(networks)\nadvertise: \(advertise)", vms: Self.vm)
    }

    private func recorded(_ host: NetworkHost) throws -> [String]? {
        try Store(layout: host.world.layout).networkRecord("test")?.advertised
    }

    /// What `networks` says of each route.
    private func announced(_ host: NetworkHost) async throws -> [JSONValue] {
        let output = try await host.world.must("networks", "--json")
        let fleet = try JSONValue(parsing: output.standardOutput).elements.first
        let routes = fleet?["routes"]?.elements ?? []
        #expect(routes.compactMap { $0["route"]?.string } == Self.ours)
        return routes.compactMap { $0["announced"] }
    }

    @Test func subnetsAreAnnouncedBesideForeignRoutesAndWithdrawn() async throws {
        let tailnet = try Tailnet("192.168.7.0/24", "0.0.0.0/0")
        let host = try await NetworkHost(tailscaled: tailnet.socket)
        try declare(host, Self.networks, advertise: "tailscale")
        try await host.world.must("up")
        let foreign = ["192.168.7.0/24", "0.0.0.0/0"]
        #expect(tailnet.routes == foreign + Self.ours)
        #expect(try recorded(host) == Self.ours)
        // A second pass sends nothing.
        try await host.world.must("up")
        #expect(tailnet.changes == 1)

        let one = "networks: {one: {subnet: 10.1.0.0/24}}"
        try declare(host, one, advertise: "tailscale")
        try await host.world.must("up")
        #expect(tailnet.routes == foreign + ["10.1.0.0/24"])
        #expect(try recorded(host) == ["10.1.0.0/24"])

        try declare(host, one, advertise: "none")
        try await host.world.must("up")
        #expect(tailnet.routes == foreign)
        #expect(try recorded(host) == [])
        // From here on Tailscale is none of our business.
        let requests = tailnet.requests
        try await host.world.must("up")
        #expect(tailnet.requests == requests)
    }

    @Test func aRouteThatSomebodyElseAnnouncedIsNeverWithdrawn() async throws {
        let tailnet = try Tailnet("10.1.0.0/24")
        let host = try await NetworkHost(tailscaled: tailnet.socket)
        try declare(host, Self.networks, advertise: "tailscale")
        try await host.world.must("up")
        #expect(Set(tailnet.routes) == Set(Self.ours))
        #expect(try recorded(host) == ["fd00:1::/64", "10.2.0.0/24"])
        // What was announced in the meantime is theirs as well.
        tailnet.routes.append("10.9.0.0/16")
        try declare(host, Self.networks, advertise: "none")
        try await host.world.must("up")
        #expect(tailnet.routes == ["10.1.0.0/24", "10.9.0.0/16"])
    }

    @Test func whatSomebodyWithdrewIsAnnouncedAgain() async throws {
        let tailnet = try Tailnet()
        let host = try await NetworkHost(tailscaled: tailnet.socket)
        try declare(host, Self.networks, advertise: "tailscale")
        try await host.world.must("up")
        #expect(try await announced(host) == [.bool(true), .bool(true), .bool(true)])
        tailnet.routes = ["10.2.0.0/24"]
        #expect(try await announced(host) == [.bool(false), .bool(false), .bool(true)])
        try await host.world.must("up")
        #expect(Set(tailnet.routes) == Set(Self.ours))
        tailnet.stop()
        #expect(try await announced(host) == [.null, .null, .null])
    }

    @Test func aTailscaleThatDoesNotRunStopsNoVM() async throws {
        let host = try await NetworkHost(tailscaled: "/nonexistent/tailscaled.sock")
        try declare(host, Self.networks, advertise: "tailscale")
        let text = try await host.world.must("up").errorText
        #expect(text.contains("tailscaled does not run"))
        #expect(text.contains("/nonexistent/tailscaled.sock"))
        #expect(try await host.world.state("web") == "running")
        // Nothing was announced, so nothing is to be withdrawn, nor anybody asked.
        #expect(try recorded(host) == [])
        try declare(host, Self.networks, advertise: "none")
        #expect(try await host.world.must("up").errorText.contains("tailscaled") == false)
    }

    @Test func killedAtEveryStepTheRoutesConverge() async throws {
        let tailnet = try Tailnet("10.2.0.0/24")
        let host = try await NetworkHost(tailscaled: tailnet.socket)
        let expected = ["10.2.0.0/24", "10.1.0.0/24", "fd00:1::/64"]
        for (advertise, other) in [("tailscale", "none"), ("none", "tailscale")] {
            var (step, wasKilled) = (0, true)
            while wasKilled {
                step += 1
                try declare(host, Self.networks, advertise: other)
                try await host.world.must("up")
                try declare(host, Self.networks, advertise: advertise)
                let first = try await host.world.program(["up"], killAt: step).capture()
                wasKilled = first.exit == .signal(SIGKILL)
                try await host.world.must("up")
                let isOn = advertise == "tailscale"
                #expect(
                    tailnet.routes == (isOn ? expected : ["10.2.0.0/24"]),
                    "\(advertise), killed at \(step)")
                #expect(
                    try recorded(host) == (isOn ? Array(expected.dropFirst()) : []),
                    "\(advertise), killed at \(step)")
            }
            #expect(step > 3)
        }
    }
}
