// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Networking
import Testing

/// That the laboratory shows what it claims to: everything passes where no policy is.
@Suite(.timeLimit(.minutes(20)), .enabled(if: Lab.isPossible, "namespaces need root"))
struct LabTests {
    typealias A = Lab.Address
    static let mac1 = "02:00:00:00:01:02"
    static let mac2 = "02:00:00:00:01:03"

    /// A lab whose host forwards everything between two guests on one bridge and all others.
    static func withGuests(
        vpn: Bool = false, _ body: (Lab, Guest, Guest) async throws -> Void
    ) async throws {
        try await Lab.with(vpn: vpn) { lab in
            let one = try await lab.addGuest(
                "vm1", tap: "vm1-0", mac: mac1, ipv4: "10.1.0.2/24", gateway: "10.1.0.1",
                ipv6: "fd00:6d76:6d:1::2/64", gateway6: "fd00:6d76:6d:1::1")
            let two = try await lab.addGuest(
                "vm2", tap: "vm2-0", mac: mac2, ipv4: "10.1.0.3/24", gateway: "10.1.0.1",
                ipv6: "fd00:6d76:6d:1::3/64", gateway6: "fd00:6d76:6d:1::1")
            try await lab.ip(
                "host",
                """
                link add br-vm address 02:00:00:00:01:01 type bridge forward_delay 0 stp_state 0 mcast_snooping 0
                address add 10.1.0.1/24 dev br-vm
                address add fd00:6d76:6d:1::1/64 dev br-vm nodad
                link set br-vm up
                link set vm1-0 master br-vm up
                link set vm2-0 master br-vm up

                """)
            try await lab.sysctl(
                "host", [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])
            try await body(lab, one, two)
        }
    }

    @Test func everybodyReachesEverybodyWhereNoPolicyIs() async throws {
        try await Self.withGuests { lab, one, two in
            let one6 = try #require(one.ipv6)
            let two6 = try #require(two.ipv6)
            try await lab.serve("host", "tcp:8080", "udp:8053")
            try await lab.expect([
                // Un-NATed: the server sees the guest's own address.
                Check("vm1", .tcp(A.server, 80), .open(by: "wan", seenAs: one.ipv4)),
                Check("vm1", .udp(A.resolver, 53), .open(by: "wan", seenAs: one.ipv4)),
                Check("vm1", .ping(A.server), .open),
                Check("vm1", .tcp(A.server6, 80), .open(by: "wan", seenAs: one6)),
                Check("vm1", .udp(A.server6, 53), .open(by: "wan", seenAs: one6)),
                Check("vm1", .ping(A.server6), .open),
                Check("vm1", .tcp(A.private6, 80), .open(by: "wan", seenAs: one6)),
                // To each other and to the host, by every address of it.
                Check("vm1", .tcp(two.ipv4, 22), .open(by: "vm2", seenAs: one.ipv4)),
                Check("vm1", .tcp(two6, 22), .open(by: "vm2", seenAs: one6)),
                Check("vm2", .ping("10.1.0.1"), .open),
                Check("vm2", .ping("fd00:6d76:6d:1::1"), .open),
                Check("vm2", .tcp(A.host, 8080), .open(by: "host", seenAs: two.ipv4)),
                Check("vm2", .udp(A.hostLAN6, 8053), .open(by: "host", seenAs: two6)),
                Check("host", .tcp(two.ipv4, 22), .open(by: "vm2", seenAs: "10.1.0.1")),
                Check("host", .ping(two6), .open),
                // The LAN, both ways.
                Check("vm1", .tcp(A.lan, 80), .open(by: "lan", seenAs: one.ipv4)),
                Check("vm1", .udp(A.lan6, 53), .open(by: "lan", seenAs: one6)),
                Check("lan", .tcp(one.ipv4, 22), .open(by: "vm1", seenAs: A.lan)),
                Check("lan", .ping(one6), .open),
                Check("lan", .tcp(A.server, 443), .open(by: "wan", seenAs: A.lan)),
                // From outside, of which nothing but a policy may keep them.
                Check("wan", .tcp(one.ipv4, 22), .open(by: "vm1", seenAs: A.wan)),
                Check(
                    "wan", .udp(one.ipv4, 53).from("192.168.77.1"),
                    .open(by: "vm1", seenAs: "192.168.77.1")),
                Check("wan", .tcp(one6, 22), .open(by: "vm1", seenAs: A.wan6)),
                Check("wan", .tcp(A.lan, 22), .open(by: "lan", seenAs: A.wan)),
                Check("wan", .tcp(A.lan6, 22), .open(by: "lan", seenAs: A.wan6)),
            ])
            try await lab.expect(
                A.private.flatMap {
                    [
                        Check("vm2", .tcp($0, 80), .open(by: "wan", seenAs: two.ipv4)),
                        Check("vm2", .ping($0), .open),
                    ]
                })
        }
    }

    @Test func theTunnelLeadsToTheGuestsAndBack() async throws {
        try await Self.withGuests(vpn: true) { lab, one, _ in
            let one6 = try #require(one.ipv6)
            try await lab.expect([
                Check("vpn", .tcp(one.ipv4, 22), .open(by: "vm1", seenAs: A.vpn)),
                Check("vpn", .udp(one.ipv4, 53), .open(by: "vm1", seenAs: A.vpn)),
                Check("vpn", .ping(one.ipv4), .open),
                Check("vpn", .tcp(one6, 22), .open(by: "vm1", seenAs: A.vpn6)),
                Check("vpn", .ping(one6), .open),
                Check("host", .tcp(A.vpn, 22), .open(by: "vpn", seenAs: A.hostVPN)),
                Check("host", .tcp(A.vpn6, 22), .open(by: "vpn", seenAs: A.hostVPN6)),
                Check("vm1", .tcp(A.vpn, 80), .open(by: "vpn", seenAs: one.ipv4)),
            ])
            // By the tunnel and no other way.
            try await lab.ip("host", "link set wg0 down")
            try await lab.expect([Check("vpn", .tcp(one.ipv4, 22), .closed)])
        }
    }

    @Test func whatIsClosedSaysHow() async throws {
        try await Self.withGuests { lab, one, two in
            let one6 = try #require(one.ipv6)
            try await lab.sh(
                "host",
                """
                nft 'table inet t { chain f { type filter hook forward priority 0;
                    iifname br-vm oifname uplink0 th dport 80 drop
                    iifname br-vm oifname uplink0 meta l4proto { 1, 58 } drop
                    iifname br-vm oifname uplink0 tcp dport 443 reject with tcp reset
                    iifname br-vm oifname uplink0 udp dport 53 reject
                    iifname uplink0 ct state new drop
                }
                }'
                """)
            try await lab.expect([
                Check("vm1", .tcp(A.server, 80), .dropped),
                Check("vm1", .tcp(A.server6, 80), .dropped),
                Check("vm1", .ping(A.server), .dropped),
                Check("vm1", .ping(A.server6), .dropped),
                Check("vm1", .tcp(A.server, 443), .rejected),
                Check("vm1", .udp(A.server, 53), .rejected),
                Check("vm1", .udp(A.server6, 53), .rejected),
                Check("vm1", .tcp(two.ipv4, 9999), .rejected),
                Check("vm1", .udp(two.ipv4, 9999), .rejected),
                Check("wan", .tcp(one.ipv4, 22), .closed),
                Check("wan", .tcp(one6, 22), .closed),
                Check("vm1", .tcp(A.server, 22), .open),
            ])
            let misses = try await lab.misses([
                Check("vm1", .tcp(A.server, 22), .closed),
                Check("vm1", .tcp(A.server, 22), .open(by: "lan")),
                Check("vm1", .tcp(A.server, 22), .open(seenAs: A.host)),
                Check("vm1", .tcp(A.server, 443), .dropped),
                Check("vm1", .tcp(A.server, 22).from("10.77.0.1"), .closed),
            ])
            #expect(misses.count == 5)
            #expect(!Expectation.rejected.isMet(by: .timeout))
        }
    }

    @Test func aConnectionTellsWhetherItStillLives() async throws {
        try await Self.withGuests { lab, one, _ in
            let connection = try await lab.connect(from: "vm1", to: A.server, 80)
            #expect(connection.first == .answer(by: "wan", seenAs: one.ipv4))
            #expect(try await connection.say(milliseconds: Lab.patience).isOpen)
            try await lab.inHost {
                try Nftables.run(
                    """
                    table inet t { chain f { type filter hook forward priority 0;
                        iifname "br-vm" drop
                    }
                    }
                    """)
            }
            #expect(try await connection.say() == .timeout)
            try await connection.close()
        }
    }

    @Test func everyFrameArrivesWhereNoPolicyIs() async throws {
        try await Self.withGuests { lab, one, two in
            let link = "fe80::1"
            let frames: [Frame] = [
                .udp(mac: one.mac, to: two.mac, one.ipv4, 1, two.ipv4, 2),
                .udp(mac: one.mac, to: two.mac, "10.1.0.77", 1, two.ipv4, 2).called("another ip"),
                .udp(mac: "02:00:00:00:09:09", to: two.mac, one.ipv4, 1, two.ipv4, 2)
                    .called("another mac"),
                .udp(mac: one.mac, to: two.mac, "fd00:6d76:6d:1::77", 1, "fd00:6d76:6d:1::3", 2),
                .tcp(mac: one.mac, to: two.mac, one.ipv4, 1, two.ipv4, 22),
                .tcp(mac: one.mac, to: two.mac, "fd00:6d76:6d:1::2", 1, "fd00:6d76:6d:1::3", 22),
                .ping(mac: one.mac, to: two.mac, one.ipv4, two.ipv4),
                .ping(mac: one.mac, to: two.mac, "fd00:6d76:6d:1::2", "fd00:6d76:6d:1::3"),
                .arpRequest(mac: one.mac, sender: "10.1.0.77", asking: two.ipv4),
                .arpReply(mac: one.mac, sender: "10.1.0.77", to: two.mac, two.ipv4),
                .gratuitousARP(mac: one.mac, claimed: "02:00:00:00:09:09", "10.1.0.77"),
                .neighbourSolicitation(mac: one.mac, link, asking: "fd00:6d76:6d:1::3"),
                .neighbourAdvertisement(mac: one.mac, link, about: "fd00:6d76:6d:1::77"),
                .routerAdvertisement(mac: one.mac, link, prefix: "fd00:6d76:6d:9::"),
                .routerSolicitation(mac: one.mac, link),
                .redirect(mac: one.mac, link, about: "2001:db8:99::7", through: link),
                .dhcpDiscover(mac: one.mac, client: "02:00:00:00:09:09"),
                .dhcpOffer(mac: one.mac, server: one.ipv4, client: two.mac, offered: "10.1.0.9"),
                .dhcpv6Server(mac: one.mac, link),
                .udp(mac: one.mac, to: two.mac, one.ipv4, 1, two.ipv4, 2).tagged(7),
                .gratuitousARP(mac: one.mac, "10.1.0.77").tagged(7),
                .bpdu(mac: one.mac),
                .other(mac: one.mac, type: 0x88CC),
                .bytes { marker in
                    [UInt8](repeating: 0xFF, count: 6) + [2, 0, 0, 0, 1, 2, 0x88, 0xB5] + marker
                        + [UInt8](repeating: 0, count: 46)
                },
            ]
            try await lab.expect(frames.map { .passes($0) }, from: "vm1", at: "vm2")
        }
    }

    @Test func aForgedPacketIsSeenOutside() async throws {
        try await Self.withGuests { lab, one, _ in
            let router = try await lab.mac(of: "br-vm")
            #expect(router == "02:00:00:00:01:01")
            let frames: [Frame] = [
                .udp(mac: one.mac, to: router, "10.1.0.77", 1, A.server, 2),
                .udp(mac: one.mac, to: router, "198.18.0.66", 1, A.server, 2),
                .udp(mac: one.mac, to: router, "2001:db8:66::1", 1, A.server6, 2),
            ]
            try await lab.expect(frames.map { .passes($0) }, from: "vm1", at: .internet)
        }
    }

    @Test func aDroppedFrameIsMissedAndOthersAreSeen() async throws {
        try await Self.withGuests { lab, one, two in
            try await lab.inHost {
                try Nftables.run(
                    """
                    table bridge t { chain p { type filter hook prerouting priority -300;
                        iifname "vm1-0" ether type arp drop
                        iifname "vm1-0" udp sport 67 drop
                    }
                    }
                    """)
            }
            try await lab.expect(
                [
                    .dropped(.gratuitousARP(mac: one.mac, "10.1.0.77")),
                    .dropped(
                        .dhcpOffer(
                            mac: one.mac, server: one.ipv4, client: two.mac, offered: "10.1.0.9")),
                    .passes(.dhcpDiscover(mac: one.mac)),
                ], from: "vm1", at: "vm2")
        }
    }

    @Test func checksumsAreRight() async throws {
        try await Self.withGuests { lab, one, two in
            // The kernel answers a forged question only where it took the checksums for right.
            let frames: [Frame] = [
                .udp(mac: one.mac, to: two.mac, one.ipv4, 4444, two.ipv4, 53),
                .udp(mac: one.mac, to: two.mac, "fd00:6d76:6d:1::2", 4444, "fd00:6d76:6d:1::3", 53),
            ]
            let sniffer = try await lab.sniff(at: "vm1", for: ["vm2 \(one.ipv4)\n", "vm2 fd00:"])
            let ping = Frame.ping(mac: one.mac, to: two.mac, one.ipv4, two.ipv4)
            let ping6 = Frame.ping(
                mac: one.mac, to: two.mac, "fd00:6d76:6d:1::2", "fd00:6d76:6d:1::3")
            let echoes = try await lab.sniff(at: "vm1", for: [ping.marker, ping6.marker])
            try await lab.send(from: "vm1", frames + [ping, ping6])
            let answers = ["vm2 \(one.ipv4)\n", "vm2 fd00:"]
            let seen = try await sniffer.finish(waitingFor: answers, milliseconds: Lab.patience)
            #expect(Set(seen.keys) == Set(answers))
            let markers = [ping.marker, ping6.marker]
            let back = try await echoes.finish(waitingFor: markers, milliseconds: Lab.patience)
            #expect(Set(back.keys) == Set(markers))
        }
    }

    @Test func forgedNeighboursAreBelieved() async throws {
        try await Self.withGuests { lab, one, two in
            let forged = "02:00:00:00:09:09"
            let link = "fe80::909"
            try await lab.expect([
                Check("vm2", .ping("10.1.0.1"), .open),
                Check("vm2", .ping("fd00:6d76:6d:1::1"), .open),
            ])
            try await lab.sysctl("vm2", [("ipv6/conf/eth0/accept_ra", "1")])
            let frames: [Frame] = [
                .gratuitousARP(mac: one.mac, claimed: forged, "10.1.0.1"),
                .neighbourAdvertisement(
                    mac: one.mac, claimed: forged, link, about: "fd00:6d76:6d:1::1"),
                .routerAdvertisement(mac: one.mac, link, prefix: "fd00:6d76:6d:9::"),
            ]
            // Each is believed by a kernel only where it is well-formed.
            let wanted = ["10.1.0.1 ", "fd00:6d76:6d:1::1 "].map { "\($0)lladdr \(forged)" }
            let prefix = "fd00:6d76:6d:9::/64"
            var missing = wanted + [prefix]
            for _ in 0..<100 where !missing.isEmpty {
                // Again and again: the true neighbour speaks up too.
                try await lab.send(from: "vm1", frames)
                let output = try await lab.sh(
                    "vm2", "ip neigh show dev eth0; ip -6 route show dev eth0")
                missing = missing.filter { !output.text.contains($0) }
                if !missing.isEmpty { try await Task.sleep(for: .milliseconds(100)) }
            }
            #expect(missing == [])
        }
    }

    @Test func aForgedDiscoverIsAnswered() async throws {
        try await Self.withGuests { lab, one, _ in
            let discover = Frame.dhcpDiscover(mac: one.mac)
            let sniffer = try await lab.sniff(at: "vm1", for: [String(discover.marker.suffix(4))])
            try await lab.sh(
                "host",
                """
                dnsmasq -C /dev/null --pid-file= --port=0 --interface=br-vm --bind-dynamic \
                    --leasefile-ro --no-ping --dhcp-range=10.1.0.50,10.1.0.60 >/dev/null 2>&1
                """)
            try await lab.send(from: "vm1", [discover])
            let seen = try await sniffer.finish(
                waitingFor: [String(discover.marker.suffix(4))], milliseconds: Lab.patience)
            #expect(seen.count == 1)
        }
    }

    @Test func codeInTheHostActsThereAndLeavesWithIt() async throws {
        var left: [String] = []
        var name = ""
        try await Lab.with(vpn: false) { lab in
            name = lab.namespace("host")
            let entries = try await lab.inHost {
                try Nftables.run("add table inet here")
                return try Files.readText("/proc/thread-self/net/dev")
            }
            #expect(entries.contains("uplink0:"))
            #expect(try await lab.sh("host", "nft list tables").text == "table inet here\n")
            // What a test forgets ends with the lab.
            let pid = try await lab.sh("host", "sleep 600 >/dev/null 2>&1 & echo $!").text
            left.append("/proc/\(pid.dropLast())/ns/net")
            #expect(Files.exists(left[0]))
            left.append(lab.path("host"))
            left.append(lab.path("wan"))
        }
        #expect(!name.isEmpty)
        for _ in 0..<500 where left.contains(where: { (try? Files.readLink($0)) != nil }) {
            try await Task.sleep(for: .milliseconds(10))
        }
        #expect(left.filter { Files.exists($0) } == [])
    }

    @Test func aLabGoesWhenItsBodyFails() async throws {
        struct Stop: Error {}
        var path = ""
        await #expect(throws: Stop.self) {
            try await Lab.with(vpn: false) { lab in
                path = lab.path("wan")
                #expect(Files.exists(path))
                throw Stop()
            }
        }
        #expect(!path.isEmpty && !Files.exists(path))
    }

    @Test func aSecondInterfaceIsEth1() async throws {
        try await Lab.with(vpn: false) { lab in
            try await lab.addGuest(
                "vm1", tap: "vm1-0", mac: Self.mac1, ipv4: "10.1.0.2/24", gateway: "10.1.0.1")
            try await lab.addGuest("vm1", tap: "vm1-1", mac: Self.mac2, ipv4: "10.2.0.2/24")
            #expect(try await lab.mac(of: "eth1", in: "vm1") == Self.mac2)
            let links = try await lab.sh("host", "ip -br link show type veth").text
            #expect(links.contains("vm1-0@") && links.contains("vm1-1@"))
        }
    }
}
