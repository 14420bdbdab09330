// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Testing

@testable import Networking

/// Fleets beside each other, and limits, in laboratories of their own.
@Suite(.timeLimit(.minutes(20)), .enabled(if: Lab.isPossible, "namespaces need root"))
struct TwoFleetTests {
    typealias A = Lab.Address

    @Test func twoFleetsDoNotTouchEachOther() async throws {
        var first = FleetPlan()
        try first.add("web", 1, vms: "web", "near") { $0.egress = .all }
        try first.forward("web", "8080:80")
        var second = FleetPlan(owner: Owner(fleet: "work", root: "/srv/martlet"))
        try second.add("web", 11, vms: "worker") { $0.egress = .all }
        try second.forward("worker", "8081:80")
        let (one, two) = (first, second)
        try await Lab.with(vpn: false) { lab in
            let (home, work) = (try Town(lab), try Town(lab, two.owner))
            for (town, plan) in [(home, one), (work, two)] {
                try await town.apply(plan)
                try await town.move(in: plan)
            }
            let own = [
                Check("web", .tcp(A.server, 80), .open(by: "wan", seenAs: A.host)),
                Check("web", .tcp(A.server6, 80), .open(by: "wan", seenAs: A.host6)),
                Check("wan", .tcp(A.host, 8080), .open(by: "web", seenAs: A.wan)),
                Check("host", .tcp("127.0.0.1", 8080), .open(by: "web")),
                Check("web", .dns("10.1.0.1", "near.web.internal"), .open(by: "10.1.0.3")),
                Check("wan", .tcp("10.1.0.2", 22), .dropped),
                Check("web", .tcp("10.1.0.3", 22), .closed),
            ]
            try await lab.expect(
                own + [
                    Check("worker", .tcp(A.server, 80), .open(by: "wan", seenAs: A.host)),
                    Check("wan", .tcp(A.host, 8081), .open(by: "worker", seenAs: A.wan)),
                    Check("worker", .dns("10.11.0.1", "web.web.internal"), .rejected),
                    // `all` is not the other fleet's VMs, its gateways or its forwards' inside.
                    Check("web", .tcp("10.11.0.2", 22), .dropped),
                    Check("web", .tcp("fd00:6d76:6d:11::2", 22), .dropped),
                    Check("web", .ping("10.11.0.2"), .dropped),
                    Check("web", .ping("10.11.0.1"), .dropped),
                    Check("worker", .tcp("10.1.0.2", 22), .dropped),
                    Check("worker", .tcp("fd00:6d76:6d:1::2", 22), .dropped),
                    Check("worker", .dns("10.1.0.1", "web.web.internal"), .dropped),
                ])
            let connection = try await lab.connect(from: "web", to: A.server, 80)
            let rules = one.fleet.elements
            try await work.end()
            #expect(try await connection.say(milliseconds: Lab.patience).isOpen)
            #expect(try await lab.inHost { try HostRules(of: one.owner).elements == rules })
            try await lab.expect(own + [Check("wan", .tcp(A.host, 8081), .closed)])
            try await home.end()
            #expect(try await lab.sh("host", "nft list tables").text.isEmpty)
        }
    }

    /// The time in nanoseconds that two million bytes take from one to the other.
    ///
    /// It counts from before the first byte is sent until after the last one has come, so that a
    /// machine that is busy makes it longer and never shorter.
    private func send(_ lab: Lab, from sender: String, to receiver: String, at address: String)
        async throws -> UInt64
    {
        let common = "import socket,time\n"
        async let end = lab.sh(
            receiver,
            """
            python3 -c '\(common)
            s = socket.create_server(("", 7000))
            c, n = s.accept()[0], 0
            while True:
                data = c.recv(65536)
                if not data: break
                n += len(data)
            print(n, time.monotonic_ns())'
            """)
        async let start = lab.sh(
            sender,
            """
            python3 -c '\(common)
            for i in range(1500):
                try: c = socket.create_connection(("\(address)", 7000)); break
                except OSError: time.sleep(0.01)
            print(time.monotonic_ns(), flush=True)
            c.sendall(bytes(2000000))'
            """)
        let began = try #require(UInt64((try await start).text.dropLast()))
        let words = (try await end).text.dropLast().split(separator: " ")
        #expect(words.first == "2000000")
        return try #require(words.last.flatMap { UInt64($0) }) - began
    }

    @Test func aLimitHoldsInBothDirectionsAndCanChange() async throws {
        var plan = FleetPlan()
        try plan.add("web", 1, vms: "slow")
        let without = plan
        plan.vms[0].limits.network = BitRate("8Mbit/s")
        let with = plan
        let device = Derived.shaper(tap: "mv-slow")
        try await Lab.with(vpn: false) { lab in
            let town = try Town(lab)
            try await town.apply(with)
            try await town.move(in: with)
            // Two million bytes at a million a second; a little comes at once.
            for _ in 1...2 {
                let up = try await send(lab, from: "slow", to: "wan", at: A.server)
                let down = try await send(lab, from: "host", to: "slow", at: "10.1.0.2")
                #expect(up >= 1_700_000_000 && down >= 1_700_000_000)
                // The same of a port that is in use.
                try await town.apply(without)
                #expect(try await lab.inHost { try RouteSocket().link(device) } == nil)
                let qdiscs = try await lab.sh("host", "tc qdisc show dev mv-slow").text
                #expect(!qdiscs.contains("htb") && !qdiscs.contains("clsact"))
                try await lab.expect([Check("slow", .tcp(A.server, 80), .open)])
                try await town.apply(with)
            }
            // What takes the turn is held to the same rules.
            let mac = "02:00:00:00:01:02"
            try await lab.expect(
                [
                    .passes(.gratuitousARP(mac: mac, "10.1.0.2")),
                    .dropped(.gratuitousARP(mac: mac, "10.1.0.1")),
                    .dropped(.udp(mac: "02:00:00:00:09:09", "10.1.0.2", 1, "10.1.0.1", 2)),
                ], from: "slow", at: Place("host", Derived.bridge(fleet: "home", network: "web")))
            try await town.end()
        }
    }
}
