// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// The layout of four slots, each a network of its own, with real guests; beside them one on the
/// LAN's bridge and one on a macvtap, both with addresses from DHCP servers of others.
@Suite(
    "RealSlots",
    .enabled(if: getuid() == 0 && environment("MARTLET_TESTS") == "full", "takes minutes"),
    .timeLimit(.minutes(30)))
struct FourGuestTests {
    private typealias Address = Lab.Address
    private static let fleet = """
        fleet: slots
        networks:
          "slot{n}": { count: 4, subnet: "10.{n}.0.0/24", dns: [203.0.113.1] }
          lan: { bridge: br0 }
          wire: { macvtap: uplink0 }
        trusted: [wg0]
        defaults: { memory: 320MiB, disk: 1GiB, boot: { deadline: 15m }, ssh: { authorizedKeys: [] } }
        vms:
          slot: { count: 4, interfaces: [{ network: "slot{n}" }] }
          nas: { interfaces: [{ network: lan }] }
          sat: { interfaces: [{ network: wire }] }
        """
    private let names = ["slot-1", "slot-2", "slot-3", "slot-4", "nas", "sat"]

    @Test func eachReachesTheOutsideAndNoneAnother() async throws {
        try await Lab.with { lab in
            let guests = try RealGuests.Running(lab: lab)
            try guests.martlet.write(fleet: Self.fleet)
            let built = try await guests.martlet("build", "core")
            try #require(built.exit == .code(0), "\(built.text)\(built.errorText)")
            let servers = try await [
                serveAddresses(
                    lab, "lan", "eth0", "192.168.50.100,192.168.50.120", "255.255.255.0"),
                serveAddresses(lab, "wan", "host0", "203.0.113.100,203.0.113.120", "255.255.255.0"),
            ]
            let result: Result<Void, any Error>
            do {
                _ = try await guests.must("up")
                try await slots(guests)
                try await lan(guests)
                try await wire(guests)
                try await aGuestThatRebootsKeepsItsNetwork(guests)
                result = .success(())
            } catch {
                result = .failure(error)
            }
            for name in names { _ = try await guests.run("kill", name) }
            for server in servers {
                server.signal(SIGKILL)
                _ = try await server.wait()
            }
            try await guests.nothingIsLeft()
            try result.get()
        }
    }

    private func slots(_ guests: RealGuests.Running) async throws {
        for n in 1...4 {
            let own = "10.\(n).0.2"
            for peer in ["host", "vpn"] {
                #expect(try await guests.hasSSH(from: peer, own, 22), "\(peer) to \(own)")
            }
            for peer in ["wan", "lan"] {
                #expect(try await !guests.hasSSH(from: peer, own, 22), "\(peer) to \(own)")
            }
            #expect(
                try await guests.heard(by: "slot-\(n)", from: Address.server, 80)
                    == "wan \(Address.host)")
            let others = (1...4).filter { $0 != n }.flatMap { other in
                [("10.\(other).0.2", 22), ("10.\(other).0.1", 53)]
            }
            #expect(
                try await guests.heard(by: "slot-\(n)", fromAll: others)
                    == others.map { _ in "" }, "slot-\(n)")
        }
    }

    /// On the LAN a guest is a neighbour of the others there, and gets everything from its servers.
    private func lan(_ guests: RealGuests.Running) async throws {
        let address = try await guests.address("nas", on: "192.168.50.")
        #expect(try await guests.hasSSH(from: "lan", address, 22))
        #expect(try await guests.hasSSH(from: "host", address, 22))
        #expect(try await guests.heard(by: "nas", from: Address.lan, 80) == "lan \(address)")
        #expect(
            try await guests.inGuest("nas", "cat /etc/resolv.conf") == "nameserver 192.168.50.10")
        #expect(try await guests.inGuest("nas", "hostname") == "nas")
        try await guests.lab.serve("host", "tcp:8097")
        let closed = [(Address.hostLAN, 8097), ("10.1.0.2", 22)]
        #expect(try await guests.heard(by: "nas", fromAll: closed) == ["", ""])
    }

    /// By macvtap a guest is on the wire beside the host, and the two do not see each other.
    private func wire(_ guests: RealGuests.Running) async throws {
        let address = try await guests.address("sat", on: "203.0.113.")
        #expect(try await guests.hasSSH(from: "wan", address, 22))
        #expect(try await guests.heard(by: "sat", from: Address.server, 80) == "wan \(address)")
        #expect(try await !guests.hasSSH(from: "host", address, 22))
    }

    private func aGuestThatRebootsKeepsItsNetwork(_ guests: RealGuests.Running) async throws {
        let before = try await guests.inGuest("slot-1", "cat /proc/sys/kernel/random/boot_id")
        _ = try await guests.run("exec", "slot-1", "--", "systemctl", "reboot")
        for _ in 0..<600 {
            let now = try await guests.inGuest("slot-1", "cat /proc/sys/kernel/random/boot_id")
            if !now.isEmpty, now != before { break }
            try await Task.sleep(for: .seconds(1))
        }
        #expect(try await guests.hasSSH(from: "vpn", "10.1.0.2", 22))
        #expect(
            try await guests.heard(by: "slot-1", from: Address.server, 80) == "wan \(Address.host)")
    }

    /// A DHCP server of somebody else.
    private func serveAddresses(
        _ lab: Lab, _ peer: String, _ interface: String, _ range: String, _ mask: String
    ) async throws -> Child {
        let router = peer == "lan" ? Address.hostLAN : Address.wan
        let resolver = peer == "lan" ? Address.lan : Address.wan
        let words = [
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--pid-file=",
            "--dhcp-leasefile=/dev/null", "--interface=\(interface)", "--bind-interfaces",
            "--dhcp-authoritative", "--dhcp-range=\(range),\(mask),1h",
            "--dhcp-option=option:router,\(router)",
            "--dhcp-option=option:dns-server,\(resolver)",
        ]
        return try Program("/sbin/ip", ["netns", "exec", lab.namespace(peer)] + words).spawn()
    }
}
