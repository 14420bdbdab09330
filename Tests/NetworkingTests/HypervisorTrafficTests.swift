// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Testing

@testable import Networking

/// What a hypervisor sends by itself, for a `user` interface, which is a process of the host.
@Suite(.timeLimit(.minutes(20)), .enabled(if: Lab.isPossible, "namespaces need root"))
struct HypervisorTrafficTests {
    typealias A = Lab.Address
    private static let both = Derived.users.lowerBound + 5
    private static let alone = Derived.users.upperBound

    /// Which TCP ports a program of that user hears something from, all asked at once.
    private func heard(
        _ lab: Lab, _ user: UInt32, _ ends: [(String, Int)]
    ) async throws -> [String] {
        let commands = ends.map { address, port in
            "(timeout 2 bash -c 'head -n 1 < /dev/tcp/\(address)/\(port)' | grep -q . "
                + "&& echo '\(address) \(port)') 2>/dev/null &\n"
        }
        let output = try await lab.sh(
            "host",
            "setpriv --reuid=\(user) --clear-groups bash <<'END'\n\(commands.joined())wait\nEND\n")
        return output.text.split(separator: "\n").map(String.init).sorted()
    }

    @Test func aUserInterfaceIsNoWayAroundTheNetworks() async throws {
        try await Lab.with(vpn: false) { lab in
            let town = try Town(lab)
            var plan = FleetPlan()
            try plan.add("web", 1, vms: "web")
            try plan.forward("web", "8080:80")
            plan.users = [Self.both]
            try await town.apply(plan)
            try await town.move(in: plan)
            try await lab.serve("host", "tcp:8099")
            // On this address alone: the network's own server has the port on another.
            let server =
                "import socket\ns = socket.create_server((\"127.0.0.1\", 53))\n"
                + "while True: s.accept()[0].send(b\"resolver\")\n"
            try await lab.sh("host", "python3 -c '\(server)' > /dev/null 2>&1 &")

            // A VM that is on a network besides.
            let closed = [
                ("10.1.0.2", 80), ("fd00:6d76:6d:1::2", 80), (A.host, 8080), ("127.0.0.1", 8080),
                ("127.0.0.1", 8099), ("::1", 8099), (A.host, 8099), (A.hostLAN, 8099),
                ("192.168.77.1", 80), ("169.254.169.254", 80), (A.private6, 80), (A.lan, 80),
            ]
            #expect(try await heard(lab, Self.both, closed) == [])
            let resolver = ("127.0.0.1", 53)
            for _ in 0..<100 where try await heard(lab, 0, [resolver]).isEmpty {}
            let open = [(A.server, 80), (A.server6, 80), resolver]
            #expect(
                try await heard(lab, Self.both, open)
                    == ["127.0.0.1 53", "\(A.server) 80", "\(A.server6) 80"])

            // One that has nothing else: it reaches what its host does, and no VM.
            let mixed = [
                ("10.1.0.2", 80), ("127.0.0.1", 8080), ("127.0.0.1", 8099), ("192.168.77.1", 80),
            ]
            #expect(
                try await heard(lab, Self.alone, mixed) == ["127.0.0.1 8099", "192.168.77.1 80"])

            // The host's own programs, a VM's relay among them.
            for user in [0, Derived.helper] {
                #expect(try await heard(lab, user, mixed).count == mixed.count)
            }
            try await town.end()
        }
    }
}
