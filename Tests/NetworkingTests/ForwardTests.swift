// SPDX-License-Identifier: Apache-2.0
import Fleets
import Testing

@testable import Networking

/// Forwards, names and addresses, shown by packets.
@Suite(
    .timeLimit(.minutes(20)), .enabled(if: Lab.isPossible, "namespaces need root"),
    InTown(vpn: true, plan: FleetPlan.everything))
struct ForwardTests {
    typealias A = Lab.Address
    static let six = "fd00:6d76:6d:"

    @Test func aForwardLeadsInFromEverywhereAndKeepsTheSource() async throws {
        try await InTown.town.lab.expect([
            Check("wan", .tcp(A.host, 8080), .open(by: "web", seenAs: A.wan)),
            Check("wan", .udp(A.host, 5300), .open(by: "web", seenAs: A.wan)),
            Check(
                "wan", .tcp(A.host, 8080).from("192.168.77.1"),
                .open(by: "web", seenAs: "192.168.77.1")),
            Check("wan", .tcp(A.host6, 8080), .open(by: "web", seenAs: A.wan6)),
            Check("wan", .udp(A.host6, 5300), .open(by: "web", seenAs: A.wan6)),
            Check("lan", .tcp(A.hostLAN, 8080), .open(by: "web", seenAs: A.lan)),
            Check("lan", .udp(A.hostLAN, 5300), .open(by: "web", seenAs: A.lan)),
            Check("lan", .tcp(A.hostLAN6, 8080), .open(by: "web", seenAs: A.lan6)),
            Check("lan", .tcp(A.host, 8080), .open(by: "web", seenAs: A.lan)),
            Check("vpn", .tcp(A.hostVPN, 8080), .open(by: "web", seenAs: A.vpn)),
            Check("vpn", .tcp(A.hostVPN6, 8080), .open(by: "web", seenAs: A.vpn6)),
            Check("wan", .tcp(A.host, 8081), .open(by: "db", seenAs: A.wan)),
            // A guest on the LAN would answer past the host: there the host asks by itself.
            Check("wan", .tcp(A.host, 8090), .open(by: "fixed", seenAs: A.hostLAN)),
            Check("lan", .tcp(A.hostLAN, 8090), .open(by: "fixed", seenAs: A.hostLAN)),
            // What is not forwarded is not.
            Check("wan", .tcp(A.host, 80), .closed), Check("wan", .tcp(A.host, 22), .closed),
            Check("wan", .udp(A.host, 8080), .closed),
        ])
    }

    @Test func theHostUsesItsForwardsByEveryAddress() async throws {
        try await InTown.town.lab.expect([
            Check("host", .tcp("127.0.0.1", 8080), .open(by: "web", seenAs: "10.1.0.1")),
            Check("host", .udp("127.0.0.1", 5300), .open(by: "web", seenAs: "10.1.0.1")),
            Check("host", .tcp("127.0.0.1", 2201), .open(by: "web", seenAs: "10.1.0.1")),
            Check("host", .tcp(A.host, 8080), .open(by: "web")),
            Check("host", .tcp(A.hostLAN, 8080), .open(by: "web")),
            Check("host", .tcp(A.host6, 8080), .open(by: "web")),
            Check("host", .udp(A.host6, 5300), .open(by: "web")),
        ])
    }

    @Test func aForwardLeavesTheRelayOfTheOtherLoopbackAlone() async throws {
        // The kernel cannot route ::1 elsewhere: what listens there must not lose its packets.
        let lab = try InTown.town.lab
        try await lab.serve("host", "tcp:8080", "udp:5300")
        try await lab.expect([
            Check("host", .tcp("::1", 8080), .open(by: "host", seenAs: "::1")),
            Check("host", .udp("::1", 5300), .open(by: "host", seenAs: "::1")),
        ])
    }

    @Test func aForwardOfOneAddressIsClosedOnOthers() async throws {
        try await InTown.town.lab.expect([
            Check("wan", .tcp(A.host, 8443), .open(by: "web", seenAs: A.wan)),
            Check("lan", .tcp(A.host, 8443), .open(by: "web", seenAs: A.lan)),
            Check("lan", .tcp(A.hostLAN, 8443), .closed),
            Check("wan", .tcp(A.host6, 8443), .closed),
            Check("wan", .udp(A.host6, 5353), .open(by: "web", seenAs: A.wan6)),
            Check("lan", .udp(A.hostLAN6, 5353), .closed),
            Check("wan", .udp(A.host, 5353), .closed),
            Check("wan", .tcp(A.host, 2201), .closed), Check("lan", .tcp(A.hostLAN, 2201), .closed),
            Check("vpn", .tcp(A.hostVPN, 2201), .closed),
        ])
    }

    @Test func aForwardIsNoWayFromOneGuestToAnother() async throws {
        let addresses = [A.host, A.hostLAN, A.hostVPN, "10.1.0.1", "10.2.0.1", "10.5.0.1"]
        let addresses6 = [A.host6, A.hostLAN6, Self.six + "1::1", Self.six + "5::1"]
        try await InTown.town.lab.expect(
            ["db", "one", "none", "left", "web"].flatMap { vm in
                (addresses + addresses6).flatMap {
                    [
                        Check(vm, .tcp($0, 8080), .dropped), Check(vm, .udp($0, 5300), .dropped),
                        Check(vm, .tcp($0, 2201), .dropped),
                    ]
                }
            } + [
                // Unless what it leads to is allowed.
                Check("web", .tcp(A.host, 8081), .open(by: "db", seenAs: "10.1.0.2"))
            ])
    }

    @Test func namesAreThoseOfTheNetworkAndOfWhatItMayReach() async throws {
        try await InTown.town.lab.expect([
            Check("web", .dns("10.1.0.1", "web.web.internal"), .open(by: "10.1.0.2")),
            Check("web", .dns("10.1.0.1", "web.web.internal/6"), .open(by: Self.six + "1::2")),
            Check("web", .dns("10.1.0.1", "web"), .open(by: "10.1.0.2")),
            Check("web", .dns("10.1.0.1", "gateway.web.internal"), .open(by: "10.1.0.1")),
            Check("web", .dns(Self.six + "1::1", "web.web.internal"), .open(by: "10.1.0.2")),
            Check("web", .dns("10.1.0.1", "db.db.internal"), .open(by: "10.2.0.2")),
            Check("db", .dns("10.2.0.1", "web.web.internal"), .rejected),
            Check("one", .dns("10.5.0.1", "two.pair.internal"), .open(by: "10.5.0.3")),
            Check("one", .dns("10.5.0.1", "web.web.internal"), .rejected),
            Check("none", .dns("10.4.0.1", "none.none.internal"), .open(by: "10.4.0.2")),
            Check("none", .dns("10.4.0.1", "left.open.internal"), .rejected),
            Check("none", .dns("10.4.0.1", "example.org"), .rejected),
            Check("one", .dns("10.1.0.1", "web.web.internal"), .dropped),
        ])
    }

    @Test func addressesAreGivenByHardwareAddress() async throws {
        let lab = try InTown.town.lab
        for (vm, network, offered) in [
            ("two", "pair", "0a050003"), ("one", "pair", "0a050002"), ("left", "open", "0a060002"),
        ] {
            let mac = try await lab.mac(of: "eth0", in: vm)
            let gateway = Derived.gatewayMAC(fleet: "home", network: network)
            let right = Frame.dhcpDiscover(mac: mac)
            // Nobody's address: the frame is honest, and what it asks for is not.
            let wrong = Frame.dhcpDiscover(mac: mac, client: "02:00:00:00:0b:ad")
            let forged = Frame.dhcpDiscover(mac: "02:00:00:00:0b:ad")
            let all = [wrong, forged, right].map { String($0.marker.suffix(4)) }
            let sniffer = try await lab.sniff(at: Place(vm), for: all)
            try await lab.send(from: Place(vm), [wrong, forged, right])
            let seen = try await sniffer.finish(
                waitingFor: [all[2]], milliseconds: Lab.patience)
            #expect(Set(seen.keys) == [all[2]])
            let offer = seen[all[2]] ?? ""
            #expect(offer.contains(offered), "\(offer)")
            #expect(offer.contains(hexadecimal(gateway.octets)))
        }
    }
}
