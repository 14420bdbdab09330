// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Testing

@testable import Networking

/// What a VM may put on its wire, shown by crafted frames.
///
/// Each table holds honest frames of the same kinds, so that it was the policy that dropped others.
@Suite(
    .timeLimit(.minutes(20)), .enabled(if: Lab.isPossible, "namespaces need root"), .serialized,
    InTown(vpn: false, plan: FleetPlan.streets))
struct SpoofTests {
    typealias A = Lab.Address
    static let stranger = Street.stranger

    /// Sends everything of a street and compares what arrives, and what the fleet has counted.
    private func expect(
        _ street: Street, from sender: Place, at place: Place,
        line: SourceLocation = #_sourceLocation
    ) async throws {
        let town = try InTown.town
        let before = try await town.drops()
        let (bad, rogue) = (street.spoofed, street.rogue)
        try await town.lab.expect(
            (bad + rogue).map { .dropped($0, line: line) }
                + street.honest.map { .passes($0, line: line) }, from: sender, at: place)
        let after = try await town.drops()
        func grown(_ reason: String) -> UInt64 { (after[reason] ?? 0) - (before[reason] ?? 0) }
        #expect(grown("spoofed") >= UInt64(bad.count), sourceLocation: line)
        #expect(grown("rogue-server") >= UInt64(rogue.count), sourceLocation: line)
        // What was forged has left no trace: the next honest frame passes as before.
        try await town.lab.expect(
            street.honest.map { .passes($0, line: line) }, from: sender, at: place)
    }

    @Test func aClosedNetworkHearsOnlyItsVMsOwnAddresses() async throws {
        try await expect(
            Street(5, network: "pair"), from: "one",
            at: Place("host", Derived.bridge(fleet: "home", network: "pair")))
        try await InTown.town.lab.expect([
            Check("one", .ping("10.5.0.1"), .open), Check("one", .tcp(A.server, 80), .open),
            Check("one", .tcp(A.server6, 80), .open),
            Check("host", .tcp("10.5.0.3", 80), .open(by: "two")),
            Check("host", .tcp("fd00:6d76:6d:5::3", 80), .open(by: "two")),
        ])
    }

    @Test func neighboursOfAClosedNetworkHearNothing() async throws {
        let street = Street(5, network: "pair")
        let lab = try InTown.town.lab
        let all =
            street.honest + street.spoofed + street.rogue + [
                .udp(mac: street.mac, to: street.neighbour.mac, street.own4, 1, "10.5.0.3", 2)
            ]
        #expect(try await lab.seen(all, from: "one", at: "two").map(\.label) == [])
    }

    @Test func anOpenNetworkHearsOnlyItsVMsOwnAddresses() async throws {
        try await expect(Street(6, network: "open"), from: "left", at: "right")
        try await InTown.town.lab.expect([
            Check("right", .ping("10.6.0.1"), .open),
            Check("right", .tcp("10.6.0.2", 80), .open(by: "left")),
            Check("right", .tcp(A.server6, 80), .open),
            Check("left", .tcp(A.server, 80), .open(by: "wan", seenAs: A.host)),
        ])
    }

    @Test func theLANHearsOnlyAPinnedVMsOwnAddress() async throws {
        let mac = "02:00:00:00:50:20"
        let own = "192.168.50.20"
        let link = "fe80::ff:fe00:5020"
        try await InTown.town.lab.expect(
            [
                .passes(.udp(mac: mac, own, 1, A.lan, 2)),
                .passes(.arpRequest(mac: mac, sender: own, asking: A.lan)),
                .passes(.gratuitousARP(mac: mac, own)), .passes(.dhcpDiscover(mac: mac)),
                .passes(.neighbourSolicitation(mac: mac, link, asking: A.lan6)),
                .passes(.neighbourAdvertisement(mac: mac, link, about: link)),
                .dropped(.udp(mac: Self.stranger, own, 1, A.lan, 2)),
                .dropped(.udp(mac: mac, "192.168.50.21", 1, A.lan, 2)),
                .dropped(.udp(mac: mac, "2001:db8:50::20", 1, A.lan6, 2)),
                .dropped(.gratuitousARP(mac: mac, A.hostLAN)),
                .dropped(.arpReply(mac: mac, sender: A.hostLAN, to: Frame.broadcast, A.lan)),
                .dropped(.arpRequest(mac: mac, claimed: Self.stranger, sender: own, asking: A.lan)),
                .dropped(.neighbourAdvertisement(mac: mac, link, about: A.hostLAN6)),
                .dropped(.routerAdvertisement(mac: mac, link, prefix: "fd00:6d76:6d:99::")),
                .dropped(.redirect(mac: mac, link, about: A.server6, through: link)),
                .dropped(.dhcpOffer(mac: mac, server: own, client: mac, offered: "192.168.50.9")),
                .dropped(.dhcpv6Server(mac: mac, link)), .dropped(.bpdu(mac: mac)),
                .dropped(.udp(mac: mac, own, 1, A.lan, 2).tagged(7)),
                .dropped(.other(mac: mac, type: 0x88CC)),
            ], from: "fixed", at: "lan")
    }

    /// Where the LAN gives the addresses, they are not known: the MAC alone is held to.
    @Test func theLANHearsAnyAddressOfAVMThatItServes() async throws {
        let mac = "02:00:00:00:50:30"
        let own = "192.168.50.30"
        let link = "fe80::ff:fe00:5030"
        try await InTown.town.lab.expect(
            [
                .passes(.udp(mac: mac, own, 1, A.lan, 2)),
                .passes(.udp(mac: mac, "192.168.50.31", 1, A.lan, 2)),
                .passes(.udp(mac: mac, "2001:db8:50::31", 1, A.lan6, 2)),
                .passes(.gratuitousARP(mac: mac, "192.168.50.31")),
                .passes(.dhcpDiscover(mac: mac)),
                .passes(.neighbourAdvertisement(mac: mac, link, about: "2001:db8:50::31")),
                .dropped(.udp(mac: Self.stranger, own, 1, A.lan, 2)),
                .dropped(.udp(mac: Self.stranger, "2001:db8:50::30", 1, A.lan6, 2)),
                .dropped(.arpRequest(mac: mac, claimed: Self.stranger, sender: own, asking: A.lan)),
                .dropped(.routerAdvertisement(mac: mac, link, prefix: "fd00:6d76:6d:99::")),
                .dropped(.redirect(mac: mac, link, about: A.server6, through: link)),
                .dropped(.dhcpOffer(mac: mac, server: own, client: mac, offered: "192.168.50.9")),
                .dropped(.dhcpv6Server(mac: mac, link)), .dropped(.bpdu(mac: mac)),
                .dropped(.udp(mac: mac, own, 1, A.lan, 2).tagged(7)),
                .dropped(.other(mac: mac, type: 0x88CC)),
            ], from: "hand", at: "lan")
    }

    /// The host is a router: a frame to it, with a neighbour's address in the packet, is no way round.
    @Test func aNeighbourOnTheLANIsNotReachedThroughTheHost() async throws {
        let mac = "02:00:00:00:50:20"
        let host = "02:00:00:00:50:02"
        let lab = try InTown.town.lab
        try await lab.expect([
            Check("lan", .ping("192.168.50.20"), .open),
            Check("lan", .ping("192.168.50.30"), .open),
            Check("host", .ping("192.168.50.30"), .open),
        ])
        let there = Frame.udp(mac: mac, to: host, "192.168.50.20", 1, "192.168.50.30", 2)
        let six = Frame.udp(
            mac: "02:00:00:00:50:30", to: host, "2001:db8:50::30", 1, "2001:db8:50::10", 2)
        #expect(try await lab.seen([there], from: "fixed", at: "hand").isEmpty)
        try await lab.expect([.passes(six)], from: "hand", at: "lan")
        try await lab.expect(
            [.passes(.udp(mac: mac, to: host, "192.168.50.20", 1, A.server, 2))], from: "fixed",
            at: .internet)
    }

    /// Frames to a bridge's own addresses pass no chain, and a bridge learns from them who is where.
    @Test func aBridgeDoesNotLearnAVMsPlaceFromAnother() async throws {
        let lab = try InTown.town.lab
        for (thief, victim, network) in [("one", 5, "pair"), ("left", 6, "open")] {
            let street = Street(victim, network: network)
            let bridge = Derived.bridge(fleet: "home", network: network)
            let frames = [0x00, 0x02, 0x0E].map { last in
                Frame.other(
                    mac: street.neighbour.mac, to: "01:80:c2:00:00:" + hexadecimal([last]),
                    type: 0x88CC)
            }
            let last = Frame.gratuitousARP(mac: street.mac, street.own4)
            let sniffer = try await lab.sniff(at: Place("host", bridge), for: [last.marker])
            try await lab.send(from: Place(thief), frames + [last])
            let seen = try await sniffer.finish(
                waitingFor: [last.marker], milliseconds: Lab.patience)
            #expect(seen.count == 1)
            let entries = try await lab.sh("host", "bridge fdb show br \(bridge)").text
                .split(separator: "\n").filter { $0.hasPrefix(street.neighbour.mac) }
            #expect(entries.allSatisfy { !$0.contains(" mv-\(thief) ") }, "\(entries)")
            #expect(!entries.isEmpty)
        }
    }
}
