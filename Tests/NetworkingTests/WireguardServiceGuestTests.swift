// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// The service `wireguard` in a VM, and a client that comes to it from the internet.
@Suite(
    "RealWireguard", .enabled(if: getuid() == 0, "networks of the host need root"),
    .serialized, .timeLimit(.minutes(20)))
struct WireguardServiceGuestTests {
    private typealias Address = Lab.Address

    /// The client reaches the LAN behind the VM's host, where the VM may reach it and nowhere else.
    @Test func aClientReachesTheFarSide() async throws {
        try await Lab.with(vpn: false) { lab in
            let guests = try RealGuests.Running(lab: lab)
            let client = try await Lab.keys()
            try write(guests, peer: client.public)
            // Outside of the lab, for there are no packages in it.
            let built = try await guests.martlet("build")
            try #require(built.exit == .code(0), "\(built.text)\(built.errorText)")
            let result: Result<Void, any Error>
            do {
                _ = try await guests.must("up")
                _ = try await guests.must("wait", "one", "--for", "healthy", "--timeout", "4m")
                try await story(lab, guests, client)
                result = .success(())
            } catch { result = .failure(error) }
            _ = try await guests.run("kill", "one")
            try await guests.nothingIsLeft()
            _ = try await guests.run("purge", "one", "--yes")
            try result.get()
        }
    }

    private func story(
        _ lab: Lab, _ guests: RealGuests.Running, _ client: (secret: String, public: String)
    ) async throws {
        let output = try await guests.must(
            "exec", "one", "--", "sh", "-c",
            """
            wg show wg0 public-key; ip -br address show wg0 | grep -c 10.98.0.1/24
            sysctl -n net.ipv4.ip_forward; nft list table inet wireguard | grep -c masquerade
            ls /run/wireguard.conf 2>&1 | grep -c 'No such'
            """)
        let lines = output.text.split(separator: "\n").map(String.init)
        try #require(lines.count == 5 && lines.dropFirst().allSatisfy { $0 == "1" }, "\(lines)")
        try await lab.startTunnel(
            "wan", key: client.secret, peer: lines[0], endpoint: Address.host,
            allowed: "10.98.0.0/24, 192.168.50.0/24",
            "address add 10.98.0.2/24 dev wg0\nlink set wg0 up\n"
                + "route replace 192.168.50.0/24 dev wg0\n")
        // The server in the LAN sees the VM's host, whose address the VM leaves under.
        try await lab.expect([
            Check("wan", .ping("10.98.0.1"), .open),
            Check("wan", .tcp(Address.lan, 80), .open(by: "lan", seenAs: Address.hostLAN)),
            Check("wan", .tcp(Address.lan, 22), .closed),
        ])
        let shaken = try await guests.inGuest("one", "wg show wg0 latest-handshakes")
        #expect(shaken.hasPrefix(client.public) && !shaken.hasSuffix("\t0"), "\(shaken)")
    }

    private func write(_ guests: RealGuests.Running, peer: String) throws {
        try guests.martlet.write(
            fleet: """
                fleet: real
                networks:
                  a: { subnet: 10.1.0.0/24, dns: [203.0.113.1], egress: ["tcp:80@\(Address.lan)"] }
                vms:
                  one:
                    service: wireguard
                    with: { address: 10.98.0.1/24 }
                    disk: 1GiB
                    boot: { deadline: 4m }
                    interfaces: [{ network: a, address: 10.1.0.2 }]
                    ports: ["51820:51820/udp"]
                    ssh: { authorizedKeys: [] }
                    credentials:
                      peers: { text: "[Peer]\\nPublicKey = \(peer)\\nAllowedIPs = 10.98.0.2/32\\n" }
                """)
    }
}
