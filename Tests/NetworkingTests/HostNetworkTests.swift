// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Networking

/// What the host's network is made of, and what it must not be made of.
@Suite(.timeLimit(.minutes(20)), .enabled(if: getuid() == 0, "namespaces need root"))
struct HostNetworkTests {
    static let bridge = Derived.bridge(fleet: "home", network: "web")

    static func plan() throws -> FleetPlan {
        var plan = FleetPlan()
        try plan.add("web", 1, vms: "web")
        return plan
    }

    /// A host without anything but its loopback.
    private static func withHost(
        _ body: @escaping @Sendable (HostNetwork, borrowing RouteSocket) throws -> Void
    ) async throws {
        let temporary = try TemporaryFolder()
        let host = HostNetwork(owner: Sample.owner, folder: temporary.path + "/networks")
        try await inNewNetwork { try body(host, try RouteSocket()) }
    }

    /// That a fleet is refused, and that nothing was changed before that.
    private static func expectRefusal(
        _ host: HostNetwork, _ fleet: FleetNetworks, _ socket: borrowing RouteSocket,
        line: SourceLocation = #_sourceLocation, _ isRight: (NetworkError) -> Bool
    ) throws {
        let before = try socket.links()
        do {
            try host.apply(fleet)
            Issue.record("it was not refused", sourceLocation: line)
        } catch let error as NetworkError {
            #expect(isRight(error), "\(error)", sourceLocation: line)
        }
        #expect(try socket.links() == before, sourceLocation: line)
        let tables = try Nftables.list("list tables").compactMap { $0["table"] }
        #expect(tables.isEmpty, sourceLocation: line)
        #expect(!host.hasTraces && !Forwarding.isOn4, sourceLocation: line)
    }

    @Test func aSubnetThatTheHostReachesElsewhereIsRefused() async throws {
        let plan = try Self.plan()
        try await Self.withHost { host, socket in
            let index = try socket.addBridge(
                "office", mac: MACAddress(bits: 0x0200_0000_0B0B), alias: "", group: 0)
            try socket.set(index, LinkChanges(isUp: true))
            try socket.addAddress(index, .v4(IPv4(0x0A01_4001)), prefix: 16)
            try Self.expectRefusal(host, plan.fleet, socket) {
                if case .overlap("web", "10.1.0.0/24", "office", "10.1.0.0/16") = $0 {
                    true
                } else {
                    false
                }
            }
            // Its own network beside it is not in the way, and neither is its own bridge later.
            try socket.removeAddress(index, .v4(IPv4(0x0A01_4001)), prefix: 16)
            try socket.addAddress(index, .v4(IPv4(0x0A01_0101)), prefix: 24)
            try host.apply(plan.fleet)
            try host.apply(plan.fleet)
            try host.apply(FleetPlan().fleet)
        }
    }

    @Test func aLinkOfAnotherIsLeftAlone() async throws {
        let plan = try Self.plan()
        let alias = Owner(fleet: "home", root: "/srv").alias("network", "web")
        for (alias, group) in [("", UInt32(0)), ("somebody's", 0), (alias, Owner.group)] {
            try await Self.withHost { host, socket in
                let index = try socket.addBridge(
                    Self.bridge, mac: MACAddress(bits: 0x0200_0000_0B0B), alias: alias, group: group
                )
                let before = try socket.link(Self.bridge)
                let expected = NetworkError.foreignLink(
                    name: Self.bridge, alias: alias.isEmpty ? nil : alias)
                #expect(throws: expected) { try host.apply(plan.fleet) }
                #expect(try socket.link(Self.bridge) == before)
                #expect(try socket.addresses().allSatisfy { $0.index != index })
                // What had been made by then goes, and the link stays.
                try host.apply(FleetPlan().fleet)
                #expect(try socket.link(Self.bridge) == before)
                #expect(!host.hasTraces)
            }
        }
    }

    @Test func aBridgeOfTheLANMustBeThereAndBeOne() async throws {
        var plan = FleetPlan()
        plan.addLAN()
        let fleet = plan.fleet
        try await Self.withHost { host, socket in
            try Self.expectRefusal(host, fleet, socket) {
                $0 == .noBridge(network: "lan", name: "br0")
            }
            let index = try socket.addIFB("br0", alias: "", group: 0)
            try Self.expectRefusal(host, fleet, socket) {
                $0 == .notABridge(network: "lan", name: "br0", kind: "ifb")
            }
            try socket.delete(index)
            _ = try socket.addBridge(
                "br0", mac: MACAddress(bits: 0x0200_0000_0B0B), alias: "", group: 0)
            let before = try socket.link("br0")
            try host.apply(fleet)
            try host.apply(FleetPlan().fleet)
            // A LAN needs no forwarding, no server and no change of its bridge.
            #expect(try socket.link("br0") == before)
            #expect(!Forwarding.isOn4)
        }
    }

    @Test func applyingTwiceChangesNothing() async throws {
        var plan = try Self.plan()
        try plan.add("db", 2, vms: "db", "second") { $0.isolated = false }
        let fleet = plan.fleet
        try await Self.withHost { host, socket in
            func pids() throws -> [String] {
                try ["web", "db"].map {
                    try Files.readText("\(host.folder)/\($0)/dnsmasq.pid")
                }
            }
            try host.apply(fleet)
            // Whether there is a carrier, and what was counted, comes by itself.
            let looks: (Link) -> String = { "\($0.index) \($0.name) \($0.alias ?? "") \($0.isUp)" }
            let (links, running) = (try socket.links().map(looks), try pids())
            let addresses = Set(try socket.addresses())
            try host.apply(fleet)
            #expect(try socket.links().map(looks) == links)
            #expect(try pids() == running)
            #expect(try Set(socket.addresses()).isSuperset(of: addresses))
            try host.apply(FleetPlan().fleet)
            #expect(try socket.links().map(\.name) == ["lo"])
            #expect(!host.hasTraces)
        }
    }
}
