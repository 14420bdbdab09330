// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Networking

/// What a change of a fleet does to who reaches whom, and to connections that are under way.
///
/// Each test begins with `plan`, applied anew, and may leave whatever it likes.
@Suite(
    .timeLimit(.minutes(20)), .enabled(if: Lab.isPossible, "namespaces need root"), .serialized,
    InTown(vpn: true, plan: FleetPlan.changing))
struct ChangeTests {
    typealias A = Lab.Address
    static let six = "fd00:6d76:6d:"

    let town: Town
    let plan: FleetPlan

    init() async throws {
        town = try InTown.town
        plan = try FleetPlan.changing()
        try await town.apply(plan)
    }

    private func connect(_ from: String, _ to: String, _ port: Int) async throws -> Connection {
        let connection = try await town.lab.connect(from: from, to: to, port)
        #expect(try await connection.say(milliseconds: Lab.patience).isOpen)
        return connection
    }

    /// All at once: each silence takes its second.
    private func expectCut(
        _ connections: [Connection], line: SourceLocation = #_sourceLocation
    ) async throws {
        try await withThrowingTaskGroup { group in
            for one in connections {
                group.addTask {
                    let outcome = try await one.say()
                    #expect(!outcome.isOpen, sourceLocation: line)
                }
            }
            try await group.waitForAll()
        }
    }

    @Test func egressThatEndsCutsWhatIsUnderWay() async throws {
        let all = [
            try await connect("web", A.server, 80), try await connect("web", A.server6, 80),
        ]
        let other = try await connect("one", A.server, 80)
        try await town.apply(try plan.changed { try $0.change("web") { $0.egress = Egress.none } })
        try await expectCut(all)
        #expect(try await other.say(milliseconds: Lab.patience).isOpen)
        try await town.lab.expect([
            Check("web", .tcp(A.server, 80), .dropped), Check("web", .ping(A.server6), .dropped),
            Check("one", .tcp(A.server, 80), .open), Check("wan", .tcp(A.host, 8080), .open),
            Check("web", .dns("10.1.0.1", "web.web.internal"), .open(by: "10.1.0.2")),
        ])
        try await town.apply(plan)
        try await town.lab.expect([
            Check("web", .tcp(A.server, 80), .open(by: "wan", seenAs: A.host)),
            Check("web", .tcp(A.server6, 80), .open(by: "wan", seenAs: A.host6)),
        ])
    }

    @Test func aPeerThatIsNotTrustedAnyMoreIsCut() async throws {
        let all = [
            try await connect("vpn", "10.1.0.2", 22),
            try await connect("vpn", Self.six + "1::2", 22),
        ]
        try await town.apply(plan.changed { $0.trusted = [] })
        try await expectCut(all)
        try await town.lab.expect([
            Check("vpn", .tcp("10.1.0.2", 22), .dropped), Check("vpn", .ping("10.5.0.2"), .dropped),
            Check("vpn", .tcp(Self.six + "1::2", 22), .dropped),
            Check("vpn", .ping("10.1.0.1"), .dropped),
            Check("vpn", .tcp(A.hostVPN, 8080), .open(by: "web", seenAs: A.vpn)),
        ])
    }

    @Test func aForwardThatEndsCutsItsConnections() async throws {
        let all = [
            try await connect("wan", A.host, 8080), try await connect("wan", A.host6, 8080),
            try await connect("host", "127.0.0.1", 8080),
        ]
        let other = try await connect("wan", A.host, 8081)
        try await town.apply(try plan.changed { try $0.forward("web") })
        try await expectCut(all)
        #expect(try await other.say(milliseconds: Lab.patience).isOpen)
        try await town.lab.expect([
            Check("wan", .tcp(A.host, 8080), .closed), Check("wan", .tcp(A.host6, 8080), .closed),
            Check("host", .tcp("127.0.0.1", 8080), .closed),
            Check("lan", .tcp(A.hostLAN, 8080), .closed),
        ])
    }

    @Test func whatIsNotAllowedAnyMoreIsCutAndNamelessAtOnce() async throws {
        let all = [
            try await connect("web", "10.5.0.2", 80),
            try await connect("web", Self.six + "5::2", 80),
            try await connect("one", "10.5.0.3", 22),
            try await connect("one", Self.six + "5::3", 22),
        ]
        try await town.lab.expect([
            Check("web", .dns("10.1.0.1", "one.pair.internal"), .open(by: "10.5.0.2"))
        ])
        try await town.apply(plan.changed { $0.openings = [] })
        try await expectCut(all)
        try await town.lab.expect([
            Check("web", .tcp("10.5.0.2", 80), .dropped),
            Check("web", .tcp(Self.six + "5::2", 80), .dropped),
            Check("one", .tcp("10.5.0.3", 22), .closed),
            Check("one", .tcp(Self.six + "5::3", 22), .closed),
        ])
        try await expectSoon([Check("web", .dns("10.1.0.1", "one.pair.internal"), .rejected)])
        try await town.apply(plan)
        try await town.lab.expect([
            Check("web", .tcp("10.5.0.2", 80), .open(by: "one", seenAs: "10.1.0.2")),
            Check("one", .tcp("10.5.0.3", 22), .open(by: "two", seenAs: "10.5.0.2")),
            Check("web", .dns("10.1.0.1", "one.pair.internal"), .open(by: "10.5.0.2")),
        ])
    }

    @Test func isolationComesAndGoesUnderAttachedGuests() async throws {
        let closed = try plan.changed { try $0.change("open") { $0.isolated = true } }
        let open = [
            Check("left", .tcp("10.6.0.3", 22), .open(by: "right", seenAs: "10.6.0.2")),
            Check("right", .ping("10.6.0.2"), .open),
            Check("right", .tcp(Self.six + "6::2", 22), .open(by: "left")),
        ]
        try await town.lab.expect(open)
        for _ in 1...2 {
            let under = [
                try await connect("left", "10.6.0.3", 22),
                try await connect("left", Self.six + "6::3", 22),
            ]
            try await town.apply(closed)
            try await expectCut(under)
            try await town.lab.expect([
                Check("left", .tcp("10.6.0.3", 22), .closed),
                Check("right", .ping("10.6.0.2"), .closed),
                Check("right", .tcp(Self.six + "6::2", 22), .closed),
                Check("left", .tcp(A.server, 80), .open), Check("host", .ping("10.6.0.3"), .open),
            ])
            try await town.apply(plan)
            try await town.lab.expect(open)
        }
    }

    @Test func aVMThatLeavesTakesItsPlaceWithItAndNothingElse() async throws {
        let more = try plan.changed { try $0.add("late", 9, vms: "late") }
            .changed { $0.vms.append(Sample.vm("third", "pair", "10.5.0.4", 0x504)) }
            .changed { try $0.forward("late", "8099:80") }
        try await town.apply(more)
        try await town.move(in: more)
        try await town.lab.expect([
            Check("late", .tcp(A.server, 80), .open), Check("third", .tcp(A.server, 80), .open),
            Check("wan", .tcp(A.host, 8099), .open(by: "late", seenAs: A.wan)),
            Check("one", .dns("10.5.0.1", "third.pair.internal"), .open(by: "10.5.0.4")),
        ])
        let other = try await connect("one", A.server, 80)
        try await town.apply(plan)
        #expect(try await other.say(milliseconds: Lab.patience).isOpen)
        let (owner, wanted) = (plan.owner, plan.fleet.elements)
        let gone = ["mv-late", "mv-third", Derived.bridge(fleet: "home", network: "late")]
        let left = try await town.lab.inHost {
            #expect(try HostRules(of: owner).elements == wanted)
            return try RouteSocket().links().map(\.name).filter(gone.contains)
        }
        #expect(left == [])
        #expect(!Files.exists(town.host.folder + "/late"))
        try await expectSoon([Check("one", .dns("10.5.0.1", "third.pair.internal"), .rejected)])
        try await town.lab.expect([
            Check("wan", .tcp(A.host, 8099), .closed), Check("wan", .tcp(A.host, 8080), .open),
        ])
    }

    @Test func tablesThatSomebodyDeletedComeBack() async throws {
        let closed = [
            Check("web", .tcp("10.5.0.2", 443), .dropped),
            Check("wan", .ping("10.1.0.2"), .dropped),
            Check("one", .ping("10.5.0.3"), .closed),
        ]
        try await town.lab.expect(closed)
        let owner = plan.owner
        try await town.lab.inHost { try Nftables.run("delete table inet \(owner.table)") }
        // So it is the table that keeps them apart.
        try await town.lab.expect([Check("web", .tcp("10.5.0.2", 443), .open(by: "one"))])
        try await town.apply(plan)
        try await town.lab.expect(
            closed + [
                Check("web", .tcp(A.server, 80), .open(by: "wan", seenAs: A.host)),
                Check("wan", .tcp(A.host, 8080), .open(by: "web", seenAs: A.wan)),
            ])
        try await town.lab.inHost { try Nftables.run("delete table bridge \(owner.table)") }
        try await town.apply(plan)
        let forged = Frame.gratuitousARP(mac: "02:00:00:00:06:02", "10.6.0.3")
        try await town.lab.expect(
            [
                .dropped(forged),
                .passes(.gratuitousARP(mac: "02:00:00:00:06:02", "10.6.0.2")),
            ], from: "left", at: "right")
        #expect(try await town.lab.inHost { try HostRules(of: owner).isCurrent })
    }

    @Test func aRunThatWasKilledHalfWayIsFinished() async throws {
        let (owner, host, fleet) = (plan.owner, town.host, plan.fleet)
        let bridge = Derived.bridge(fleet: "home", network: "web")
        let late = try plan.changed { try $0.add("half", 8, vms: "half") }
        let half = Derived.bridge(fleet: "home", network: "half")
        try await town.lab.inHost {
            // A bridge without its alias, another without its address, rules without elements.
            let socket = try RouteSocket()
            let index = try socket.addBridge(
                half, mac: MACAddress(bits: 0x0200_0000_0B0B), alias: "", group: Owner.group)
            try socket.set(index, LinkChanges(mtu: 1400))
            let web = try #require(try socket.link(bridge))
            try socket.removeAddress(web.index, .v4(IPv4(0x0A01_0001)), prefix: 24)
            try Nftables.run("flush set inet \(owner.table) nat4")
            try host.apply(late.fleet)
            let made = try #require(try socket.link(half))
            #expect(made.alias == owner.alias("network", "half") && made.isUp)
            #expect(made.mac == Derived.gatewayMAC(fleet: "home", network: "half"))
            try host.apply(fleet)
            #expect(try socket.link(half) == nil)
        }
        try await town.lab.expect([
            Check("web", .tcp(A.server, 80), .open(by: "wan", seenAs: A.host)),
            Check("web", .ping("10.1.0.1"), .open),
        ])
    }

    @Test func aVMThatSpeaksForTheLANsTreeIsShutAndTheTreeStays() async throws {
        let lab = town.lab
        let shut = "cat /sys/class/net/mv-hand/brport/state"
        try await lab.expect([Check("lan", .ping("192.168.50.30"), .open)])
        try await lab.sh("host", "ip link set br0 type bridge stp_state 1")
        // Ports that must wait first would be shut, too, and by something else.
        let state = try await eventually {
            try await lab.sh("host", shut).text
        } until: {
            $0 == "3\n"
        }
        #expect(state == "3\n")
        try await lab.send(from: "hand", [.bpdu(mac: "02:00:00:00:50:30")])
        let after = try await eventually {
            try await lab.sh("host", shut).text
        } until: {
            $0 == "0\n"
        }
        #expect(after == "0\n")
        let ids = try await lab.sh("host", "cd /sys/class/net/br0/bridge; cat root_id bridge_id")
        let lines = ids.text.split(separator: "\n")
        #expect(lines.count == 2 && lines.first == lines.last)
        try await lab.sh("host", "ip link set br0 type bridge stp_state 0")
        try await lab.sh("host", "ip link set mv-hand down; ip link set mv-hand up")
        try await lab.expect([Check("lan", .ping("192.168.50.30"), .open)])
    }

    /// The rows hold within a second or so, though not at once: dnsmasq reads its files when told.
    private func expectSoon(_ checks: [Check]) async throws {
        let left = try await eventually {
            try await town.lab.misses(checks).map { "\($0.check.probe): \($0.outcome)" }
        } until: {
            $0.isEmpty
        }
        #expect(left == [])
    }
}

/// Looks again and again until it is as hoped, at most for `Lab.patience`; returns the last look.
func eventually<R: Sendable>(
    _ look: () async throws -> R, until isRight: (R) -> Bool
) async throws -> R {
    let end = Clock.monotonic() + UInt64(Lab.patience) * 1_000_000
    while true {
        let result = try await look()
        if isRight(result) || Clock.monotonic() > end { return result }
        try await Task.sleep(for: .milliseconds(50))
    }
}
