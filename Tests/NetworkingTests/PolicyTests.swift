// SPDX-License-Identifier: Apache-2.0
import Fleets
import Testing

@testable import Networking

/// Who reaches whom, shown by packets, in both families.
@Suite(
    .timeLimit(.minutes(20)), .enabled(if: Lab.isPossible, "namespaces need root"),
    InTown(vpn: true, plan: FleetPlan.everything))
struct PolicyTests {
    typealias A = Lab.Address

    /// Every VM with its addresses.
    static let guests: [(name: String, v4: String, v6: String?)] = [
        ("web", "10.1.0.2", "fd00:6d76:6d:1::2"), ("db", "10.2.0.2", "fd00:6d76:6d:2::2"),
        ("list", "10.3.0.2", "fd00:6d76:6d:3::2"), ("none", "10.4.0.2", "fd00:6d76:6d:4::2"),
        ("one", "10.5.0.2", "fd00:6d76:6d:5::2"), ("two", "10.5.0.3", "fd00:6d76:6d:5::3"),
        ("left", "10.6.0.2", "fd00:6d76:6d:6::2"), ("right", "10.6.0.3", "fd00:6d76:6d:6::3"),
        ("fixed", "192.168.50.20", nil), ("hand", "192.168.50.30", "2001:db8:50::30"),
    ]
    static var behindNAT: ArraySlice<(name: String, v4: String, v6: String?)> { guests.prefix(8) }
    static let six = "fd00:6d76:6d:"

    // MARK: Out

    @Test func theInternetIsReachedWithTheHostsAddress() async throws {
        try await InTown.town.lab.expect(
            ["web", "one", "left"].flatMap { vm in
                [
                    Check(vm, .tcp(A.server, 80), .open(by: "wan", seenAs: A.host)),
                    Check(vm, .udp(A.resolver, 53), .open(by: "wan", seenAs: A.host)),
                    Check(vm, .ping(A.server), .open),
                    Check(vm, .tcp(A.server6, 80), .open(by: "wan", seenAs: A.host6)),
                    Check(vm, .udp(A.server6, 53), .open(by: "wan", seenAs: A.host6)),
                    Check(vm, .ping(A.server6), .open),
                ] + A.private.map { Check(vm, .tcp($0, 80), .dropped) }
                    + A.private.map { Check(vm, .ping($0), .dropped) } + [
                        Check(vm, .tcp(A.private6, 80), .dropped),
                        Check(vm, .udp(A.private6, 53), .dropped),
                        Check(vm, .tcp(A.lan, 80), .dropped),
                        Check(vm, .tcp(A.vpn, 80), .dropped),
                        Check(vm, .tcp(A.vpn6, 80), .dropped),
                    ]
            })
    }

    @Test func egressOfAllLeadsToPrivateRangesToo() async throws {
        try await InTown.town.lab.expect(
            A.private.map { Check("db", .tcp($0, 80), .open(by: "wan", seenAs: A.host)) } + [
                Check("db", .tcp(A.server, 80), .open(by: "wan", seenAs: A.host)),
                Check("db", .tcp(A.private6, 80), .open(by: "wan", seenAs: A.host6)),
                Check("db", .tcp(A.lan, 80), .open(by: "lan", seenAs: A.hostLAN)),
                Check("db", .tcp(A.lan6, 80), .open(by: "lan", seenAs: A.hostLAN6)),
                Check("db", .tcp(A.vpn, 80), .open(by: "vpn", seenAs: A.hostVPN)),
                Check("db", .tcp(A.vpn6, 80), .open(by: "vpn", seenAs: A.hostVPN6)),
            ])
    }

    @Test func egressOfAListLeadsThereAndNowhereElse() async throws {
        try await InTown.town.lab.expect([
            Check("list", .tcp(A.server, 443), .open(by: "wan", seenAs: A.host)),
            Check("list", .tcp(A.server6, 443), .open(by: "wan", seenAs: A.host6)),
            Check("list", .udp(A.resolver, 53), .open(by: "wan", seenAs: A.host)),
            // A subnet that the list names is open whatever it is, on every port.
            Check("list", .tcp("172.16.0.1", 22), .open(by: "wan", seenAs: A.host)),
            Check("list", .udp("172.16.0.1", 123), .open(by: "wan", seenAs: A.host)),
            Check("list", .ping("172.16.0.1"), .open),
            Check("list", .tcp(A.server, 80), .dropped),
            Check("list", .tcp(A.server6, 80), .dropped),
            Check("list", .ping(A.server), .dropped),
            Check("list", .ping(A.server6), .dropped),
            Check("list", .udp(A.server, 53), .dropped),
            Check("list", .udp(A.server6, 53), .dropped),
            Check("list", .tcp(A.resolver, 22), .dropped),
            Check("list", .udp(A.resolver, 123), .dropped),
            // A port alone does not open private ranges.
            Check("list", .tcp("10.200.0.1", 443), .dropped),
            Check("list", .tcp("169.254.169.254", 443), .dropped),
            Check("list", .tcp(A.private6, 443), .dropped),
            Check("list", .tcp(A.lan, 443), .dropped),
        ])
    }

    @Test func egressOfNoneLeadsNowhere() async throws {
        let closed: [Probe] =
            [.tcp(A.server, 443), .udp(A.resolver, 53), .ping(A.server), .tcp(A.lan, 80)]
            + [.tcp(A.server6, 443), .udp(A.server6, 53), .ping(A.server6), .tcp(A.vpn, 22)]
            + A.private.map { .tcp($0, 80) }
        try await InTown.town.lab.expect(
            closed.map { Check("none", $0, .dropped) } + [Check("none", .ping("10.4.0.1"), .open)])
    }

    // MARK: In

    @Test func theHostReachesEveryGuest() async throws {
        let lab = try InTown.town.lab
        try await lab.expect(
            Self.guests.flatMap { vm, v4, v6 in
                [
                    Check("host", .tcp(v4, 22), .open(by: vm)),
                    Check("host", .udp(v4, 123), .open(by: vm)), Check("host", .ping(v4), .open),
                ]
                    + (v6.map {
                        [
                            Check("host", .tcp($0, 22), .open(by: vm)),
                            Check("host", .ping($0), .open),
                        ]
                    } ?? [])
            })
    }

    @Test func aTrustedPeerReachesEveryGuestAsItself() async throws {
        try await InTown.town.lab.expect(
            Self.behindNAT.flatMap { vm, v4, v6 in
                [
                    Check("vpn", .tcp(v4, 22), .open(by: vm, seenAs: A.vpn)),
                    Check("vpn", .udp(v4, 53), .open(by: vm, seenAs: A.vpn)),
                    Check("vpn", .ping(v4), .open),
                    Check("vpn", .tcp(v6 ?? "", 22), .open(by: vm, seenAs: A.vpn6)),
                    Check("vpn", .ping(v6 ?? ""), .open),
                ]
            })
    }

    @Test func nobodyElseReachesAGuestByARoute() async throws {
        // The lab's own tests show that these routes lead there.
        try await InTown.town.lab.expect(
            Self.behindNAT.flatMap { vm, v4, v6 in
                ["wan", "lan"].flatMap {
                    [
                        Check($0, .tcp(v4, 22), .dropped), Check($0, .udp(v4, 53), .dropped),
                        Check($0, .ping(v4), .dropped), Check($0, .tcp(v6 ?? "", 22), .dropped),
                        Check($0, .udp(v6 ?? "", 53), .dropped),
                        Check($0, .ping(v6 ?? ""), .dropped),
                    ]
                }
            } + [Check("wan", .tcp("10.1.0.2", 22).from("192.168.77.1"), .dropped)])
    }

    @Test func gatewaysAreNobodysButTheirGuests() async throws {
        // The kernel takes packets to any of its addresses from any side.
        try await InTown.town.lab.expect(
            ["wan", "lan", "fixed", "hand"].flatMap { from in
                [
                    Check(from, .ping("10.1.0.1"), .dropped),
                    Check(from, .dns("10.1.0.1", "web.web.internal"), .dropped),
                    Check(from, .dns(Self.six + "1::1", "web.web.internal"), .closed),
                ]
            } + [
                Check("host", .dns("10.1.0.1", "web.web.internal"), .open(by: "10.1.0.2")),
                Check("vpn", .ping("10.1.0.1"), .open),
            ])
    }

    // MARK: Between

    @Test func everyPairIsClosedUnlessAllowed() async throws {
        var checks: [Check] = []
        for (from, _, _) in Self.behindNAT {
            for (to, v4, v6) in Self.guests where from != to {
                let isOpen = Set([from, to]) == ["left", "right"]
                // Though `db` may go everywhere else, and `hand` has an address of the internet.
                let expectation: Expectation = isOpen ? .open(by: to) : .dropped
                checks += [
                    Check(from, .tcp(v4, 443), expectation),
                    Check(from, .udp(v4, 123), expectation),
                    Check(from, .ping(v4), isOpen ? .open : .dropped),
                ]
                guard let v6 else { continue }
                checks += [
                    Check(from, .tcp(v6, 443), expectation),
                    Check(from, .udp(v6, 123), expectation),
                    Check(from, .ping(v6), isOpen ? .open : .dropped),
                ]
            }
        }
        for from in ["fixed", "hand"] {
            for (to, v4, v6) in Self.guests where from != to {
                checks += [
                    Check(from, .tcp(v4, 443), .closed), Check(from, .udp(v4, 123), .closed),
                    Check(from, .ping(v4), .closed),
                ]
                if let v6, from == "hand" { checks.append(Check(from, .ping(v6), .closed)) }
            }
        }
        try await InTown.town.lab.expect(checks)
    }

    @Test func anEntryOfAllowIsOneWayAndOnePort() async throws {
        try await InTown.town.lab.expect([
            Check("web", .tcp("10.2.0.2", 80), .open(by: "db", seenAs: "10.1.0.2")),
            Check("web", .udp("10.2.0.2", 53), .open(by: "db", seenAs: "10.1.0.2")),
            Check("web", .tcp(Self.six + "2::2", 80), .open(by: "db", seenAs: Self.six + "1::2")),
            Check("web", .udp(Self.six + "2::2", 53), .open(by: "db", seenAs: Self.six + "1::2")),
            Check("web", .tcp("10.2.0.2", 22), .dropped), Check("web", .ping("10.2.0.2"), .dropped),
            Check("web", .udp("10.2.0.2", 123), .dropped),
            Check("web", .tcp(Self.six + "2::2", 22), .dropped),
            Check("db", .tcp("10.1.0.2", 80), .dropped),
            Check("db", .tcp(Self.six + "1::2", 80), .dropped),
            Check("one", .tcp("10.2.0.2", 80), .dropped),
            // Between two of one network it passes through the host.
            Check("one", .tcp("10.5.0.3", 22), .open(by: "two", seenAs: "10.5.0.2")),
            Check("one", .tcp(Self.six + "5::3", 22), .open(by: "two", seenAs: Self.six + "5::2")),
            Check("one", .tcp("10.5.0.3", 80), .dropped), Check("one", .ping("10.5.0.3"), .dropped),
            Check("one", .tcp(Self.six + "5::3", 80), .dropped),
            Check("two", .tcp("10.5.0.2", 22), .dropped),
            Check("two", .tcp(Self.six + "5::2", 22), .dropped),
            // From a private network to a VM on the LAN, and back.
            Check("db", .tcp("192.168.50.20", 80), .open(by: "fixed", seenAs: A.hostLAN)),
            Check("db", .tcp("192.168.50.20", 22), .dropped),
            Check("fixed", .tcp("10.1.0.2", 22), .open(by: "web", seenAs: "192.168.50.20")),
            Check("fixed", .tcp("10.1.0.2", 80), .dropped),
            Check("hand", .tcp("10.1.0.2", 22), .dropped),
        ])
    }

    // MARK: The host itself

    @Test func theHostsServicesAreClosedToGuests() async throws {
        let lab = try InTown.town.lab
        try await lab.serve("host", "tcp:9000", "udp:9001")
        let addresses = [A.host, A.hostLAN, A.hostVPN] + (1...6).map { "10.\($0).0.1" }
        let addresses6 = [A.host6, A.hostLAN6, A.hostVPN6] + (1...6).map { Self.six + "\($0)::1" }
        var checks = [
            Check("host", .tcp("10.1.0.1", 9000), .open(by: "host")),
            Check("lan", .tcp(A.hostLAN, 9000), .open(by: "host")),
            Check("wan", .udp(A.host6, 9001), .open(by: "host")),
            Check("vpn", .tcp("10.1.0.1", 9000), .open(by: "host")),
        ]
        for (vm, v4, v6) in Self.guests {
            for address in addresses + (v6 == nil ? [] : addresses6) {
                checks += [
                    Check(vm, .tcp(address, 9000), .dropped),
                    Check(vm, .udp(address, 9001), .dropped),
                ]
            }
            guard v4.hasPrefix("10.") else { continue }
            let number = v4.split(separator: ".")[1]
            for (address, own) in zip(addresses, addresses.map { $0 == "10.\(number).0.1" }) {
                checks.append(Check(vm, .ping(address), own ? .open : .dropped))
                checks.append(
                    Check(vm, .dns(address, "gateway.x.internal"), own ? .rejected : .dropped))
            }
            for (address, own) in zip(
                addresses6, addresses6.map { $0 == Self.six + "\(number)::1" })
            { checks.append(Check(vm, .ping(address), own ? .open : .dropped)) }
        }
        checks += ["fixed", "hand"].map { Check($0, .ping(A.hostLAN), .open) }
        // The kernel gives the bridge one more that no file names.
        let bridge = Derived.bridge(fleet: "home", network: "web")
        let bits = Derived.gatewayMAC(fleet: "home", network: "web").bits
        let port = Segment.Port(
            vm: "", index: 0, tap: "", mac: MACAddress(bits: bits), address: nil, forwards: [],
            limit: nil)
        checks += [
            Check("host", .tcp("\(port.linkLocal)%\(bridge)", 9000), .open(by: "host")),
            Check("web", .tcp("\(port.linkLocal)%eth0", 9000), .dropped),
            Check("web", .udp("\(port.linkLocal)%eth0", 9001), .dropped),
        ]
        try await lab.expect(checks)
    }

    @Test func theHostsLoopbackIsClosedThoughForwardsNeedItsRoute() async throws {
        let town = try InTown.town
        try await town.lab.serve("host", "udp:9002")
        for (vm, from, router) in [("web", "10.1.0.2", "web"), ("left", "10.6.0.2", "open")] {
            let gateway = Derived.gatewayMAC(fleet: "home", network: router)
            let mac = try await town.lab.mac(of: "eth0", in: vm)
            let before = try await town.drops()["spoofed"] ?? 0
            let answers = ["host \(from)\n", "host 127.0.0.1\n"]
            let sniffer = try await town.lab.sniff(at: Place(vm), for: answers)
            let ping = Frame.ping(mac: mac, to: "\(gateway)", from, from.prefix(5) + "0.1")
            let echo = try await town.lab.sniff(at: Place(vm), for: [ping.marker])
            try await town.lab.send(
                from: Place(vm),
                [
                    .udp(mac: mac, to: "\(gateway)", from, 4444, "127.0.0.1", 9002),
                    .udp(mac: mac, to: "\(gateway)", "127.0.0.1", 4444, "127.0.0.1", 9002),
                    .udp(mac: mac, to: "\(gateway)", from, 4444, "127.0.0.53", 9002), ping,
                ])
            let seen = try await echo.finish(
                waitingFor: [ping.marker], milliseconds: Lab.patience)
            #expect(seen.count == 1)
            #expect(try await sniffer.finish(waitingFor: [], milliseconds: 100).isEmpty)
            #expect(try await town.drops()["spoofed"] ?? 0 >= before + 3)
        }
    }
}
