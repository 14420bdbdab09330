// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// What `martlet up` makes of networks, seen by real VMs and by who is around them.
///
/// The breadth is tested with namespaces in place of VMs; here the whole way is: taps handed to
/// QEMU, the guest's own configuration, and changes while it runs.
@Suite(
    "RealNetworks", .enabled(if: getuid() == 0, "networks of the host need root"), RealGuests(),
    .serialized, .timeLimit(.minutes(20)))
struct RealGuestTests {
    private typealias Address = Lab.Address
    private let guests: RealGuests.Running

    init() throws { guests = try #require(RealGuests.current) }

    @Test func guestsReachTheOutsideByTranslation() async throws {
        #expect(
            try await guests.heard(by: "one", from: Address.server, 80) == "wan \(Address.host)")
        #expect(
            try await guests.heard(by: "one", from: Address.server6, 80) == "wan \(Address.host6)")
        #expect(
            try await guests.heard(by: "two", from: Address.server, 443) == "wan \(Address.host)")
    }

    @Test func guestsReachNothingElse() async throws {
        try await guests.lab.serve("host", "tcp:8099")
        let closed = [
            ("10.2.0.2", 22), ("10.2.0.1", 53), ("192.168.77.1", 80), ("169.254.169.254", 80),
            (Address.lan, 80), (Address.vpn, 80), ("10.1.0.1", 8099), (Address.host, 8099),
            (Address.hostLAN, 8099),
        ]
        #expect(
            try await guests.heard(by: "one", fromAll: closed)
                == Array(repeating: "", count: closed.count))
        // Not through a forward of the host either.
        let others = [("10.1.0.2", 22), (Address.host, 2201), ("10.1.0.1", 53)]
        #expect(try await guests.heard(by: "two", fromAll: others) == ["", "", ""])
        let output = try await guests.must("networks", "--json")
        let view = try JSONValue(parsing: output.text).elements.first
        #expect(view?["rules"] == "current")
        for reason in ["vm-to-vm", "egress", "host"] {
            let count = view?["drops"]?[reason]?.integer
            #expect(try #require(count) > 0, "\(reason)")
        }
    }

    @Test func hostAndTrustedPeersReachEveryGuest() async throws {
        for address in ["10.1.0.2", "10.2.0.2"] {
            for peer in ["host", "vpn"] {
                #expect(try await guests.hasSSH(from: peer, address, 22), "\(peer) to \(address)")
            }
            for peer in ["wan", "lan"] {
                #expect(try await !guests.hasSSH(from: peer, address, 22), "\(peer) to \(address)")
            }
        }
    }

    @Test func forwardsLeadToTheGuest() async throws {
        #expect(try await guests.hasSSH(from: "wan", Address.host, 2201, within: 30))
        #expect(try await guests.hasSSH(from: "lan", Address.hostLAN, 2201, within: 30))
        for address in ["127.0.0.1", "::1", Address.host] {
            #expect(try await guests.hasSSH(from: "host", address, 2201), "\(address)")
        }
        #expect(try await guests.hasSSH(from: "host", "127.0.0.1", 2202, within: 30))
        #expect(try await !guests.hasSSH(from: "wan", Address.host, 2202))
    }

    @Test func namesAreThoseOfTheOwnNetwork() async throws {
        #expect(try await guests.inGuest("one", "getent hosts one.a.internal").contains("one.a"))
        #expect(
            try await guests.inGuest("one", "getent ahostsv4 gateway.a.internal")
                .hasPrefix("10.1.0.1"))
        #expect(try await guests.inGuest("one", "getent hosts two.b.internal") == "")
    }

    /// An escape from QEMU lands in an empty room: no interface but loopback, and no privilege.
    @Test func aHypervisorWithTapsHasNoNetwork() async throws {
        let list = try JSONValue(parsing: try await guests.must("list", "--json").text)
        let pid = try #require(
            list.elements.first { $0["name"]?.string == "one" }?["pid"]?.integer)
        let devices = try Files.readText("/proc/\(pid)/net/dev").split(separator: "\n").dropFirst(2)
        #expect(devices.allSatisfy { $0.drop { $0 == " " }.hasPrefix("lo:") })
        let status = try Files.readText("/proc/\(pid)/status")
        #expect(status.contains("CapEff:\t0000000000000000"))
    }

    @Test func policyChangesWhileGuestsRun() async throws {
        let pids = try await self.pids()
        try guests.write(
            egress: "[\"tcp:80@192.168.77.1\"]",
            allow: "{ from: one, to: two, ports: [\"tcp:22\"], reason: test }", trusted: "",
            ports: "\"2203:22\"")
        let plan = try await guests.must("plan").text
        for field in ["networks.a.egress", "allow", "trusted", "ports"] {
            #expect(plan.contains(field), "\(field)")
        }
        #expect(!plan.contains("restart"))
        _ = try await guests.must("up")
        #expect(try await guests.run("plan", "--check").exit == .code(0))
        #expect(try await self.pids() == pids)
        #expect(try await guests.heard(by: "one", from: Address.server, 80, within: 3) == "")
        #expect(
            try await guests.heard(by: "one", from: "192.168.77.1", 80) == "wan \(Address.host)")
        #expect(try await guests.heard(by: "one", from: "10.2.0.2", 22).hasPrefix("SSH-"))
        #expect(try await guests.heard(by: "two", from: "10.1.0.2", 22, within: 3) == "")
        #expect(try await !guests.hasSSH(from: "vpn", "10.1.0.2", 22))
        #expect(try await !guests.hasSSH(from: "wan", Address.host, 2201))
        #expect(try await guests.hasSSH(from: "wan", Address.host, 2203, within: 30))
        #expect(try await guests.hasSSH(from: "host", "::1", 2203, within: 30))
        try guests.write()
        _ = try await guests.must("up")
        #expect(
            try await guests.heard(by: "one", from: Address.server, 80) == "wan \(Address.host)")
        #expect(try await guests.heard(by: "one", from: "10.2.0.2", 22, within: 3) == "")
    }

    @Test func aPortThatIsTakenIsFoundBeforeAnythingChanges() async throws {
        try await guests.lab.serve("host", "tcp:8098")
        let pids = try await self.pids()
        try guests.write(address: "10.1.0.9", ports: "\"8098:22\"")
        let up = try await guests.run("up")
        #expect(up.exit == .code(78))
        #expect(up.errorText.contains("8098") && up.errorText.contains("another program"))
        #expect(try await self.pids() == pids)
        try guests.write()
        #expect(try await guests.run("plan", "--check").exit == .code(0))
    }

    @Test(.enabled(if: environment("MARTLET_TESTS") == "full", "needs MARTLET_TESTS=full"))
    func anotherAddressKeepsTheData() async throws {
        _ = try await guests.inGuest("one", "echo kept > /var/lib/witness && sync")
        try guests.write(address: "10.1.0.77")
        let plan = try await guests.must("plan").text
        #expect(plan.contains("restart") && plan.contains("10.1.0.77"))
        _ = try await guests.must("up")
        #expect(try await guests.inGuest("one", "cat /var/lib/witness") == "kept")
        #expect(try await guests.hasSSH(from: "host", "10.1.0.77", 22, within: 30))
        #expect(try await !guests.hasSSH(from: "host", "10.1.0.2", 22))
        #expect(try await guests.hasSSH(from: "wan", Address.host, 2201, within: 30))
    }

    private func pids() async throws -> [Int64?] {
        try JSONValue(parsing: try await guests.must("list", "--json").text).elements.map {
            $0["pid"]?.integer
        }
    }
}
