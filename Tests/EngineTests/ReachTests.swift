// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Engine

/// What is closed to a hypervisor that is a client of the host's network.
struct ReachTests {
    private func reach(_ keys: String = "") throws -> Reach? {
        let loaded = FleetFile.parse(
            "networks: { lan: { subnet: 10.1.0.0/24 } }\nvms: { web: { \(keys) } }")
        return Reach(of: try #require(loaded.fleet?.vm("web"), "\(loaded.diagnostics)"))
    }

    private func confined(_ allowed: String) -> String {
        "hardening: { confine: { IPAddressAllow: \"\(allowed)\" } }"
    }

    @Test func onlyAnInterfaceOfTheUserIsClosed() throws {
        #expect(try reach() != nil)
        #expect(try reach("interfaces: [{ network: user }, { network: lan }]") != nil)
        #expect(try reach("interfaces: [{ network: lan }]") == nil)
        #expect(try reach("interfaces: []") == nil)
        #expect(try reach("hardening: { confine: false }") == nil)
    }

    @Test func ownSettingsOpenSomeOfIt() throws {
        #expect(try reach(confined("any")) == nil)
        #expect(try reach(confined("0.0.0.0/0")) == nil)
        let words = "192.168.1.7 fd00::/64 link-local nas 1.2.3.4/8"
        let some = try #require(try reach(confined(words)))
        #expect(
            some.filter.open == [
                .init([192, 168, 1, 7], prefix: 32),
                .init([0xfd] + Array(repeating: 0, count: 15), prefix: 64),
                .init([169, 254, 0, 0], prefix: 16),
                .init([0xfe, 0x80] + Array(repeating: 0, count: 14), prefix: 64),
            ])
        #expect(some.unknown == ["nas", "1.2.3.4/8"])
    }

    /// The kernel's own answers, in a network where every address is this host's and nobody listens.
    @Test(.enabled(if: geteuid() == 0, "only root closes it"))
    func theKernelClosesWhatIsClosedAndNothingElse() async throws {
        let control = ControlGroups.find()
        let group = try control.unifiedGroup(of: "reach-\(getpid())")
        try Files.makeFolder(group)
        defer {
            for _ in 0..<50 where rmdir(group) != 0 && errno == EBUSY { usleep(10_000) }
        }
        let own = "192.168.7.9 10.20.0.0/15 fd00:1:2:3::/64 fd00:9::8"
        let reach = try #require(try reach(confined(own)))
        try reach.filter.attach(to: group)
        #expect(try ReachFilter.isAttached(to: group))

        let closed = [
            "0.0.0.1", "10.0.0.1", "10.19.255.255", "10.22.0.0", "100.64.0.1", "100.127.255.255",
            "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255",
            "192.0.0.8", "192.168.7.8", "192.168.7.10", "192.168.255.255", "198.18.0.1", "::1",
            "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::a00:1", "2002:a00:1::1", "fd00::1",
            "fd00:1:2:4::1", "fd00:9::9", "fdff::1", "fc00::1", "fe80::1",
        ]
        let open = [
            "1.1.1.1", "9.255.255.255", "11.0.0.0", "10.20.0.0", "10.21.255.255", "100.63.255.255",
            "100.128.0.0", "126.255.255.255", "128.0.0.1", "172.15.255.255", "172.32.0.0",
            "192.0.1.0", "192.168.7.9", "192.169.0.0", "198.20.0.0", "223.255.255.255",
            "2001:db8::1", "2600::1", "fd00:1:2:3:ffff::1", "fd00:9::8",
        ]
        let answers = try await answers(closed + open, in: group)
        for address in closed {
            #expect(answers["tcp \(address)"] == "Operation not permitted", "\(address)")
            #expect(answers["udp \(address)"] == "Operation not permitted", "\(address)")
            #expect(answers["dns \(address)"] != "Operation not permitted", "\(address)")
        }
        for address in open {
            #expect(answers["tcp \(address)"] == "Connection refused", "\(address)")
            #expect(answers["udp \(address)"] == "ok", "\(address)")
        }

        // Another one takes its place: what it opened is closed.
        try ReachFilter(closed: reach.filter.closed, port: 53).attach(to: group)
        let again = try await self.answers(["192.168.7.9", "1.1.1.1"], in: group)
        #expect(again["tcp 192.168.7.9"] == "Operation not permitted")
        #expect(again["tcp 1.1.1.1"] == "Connection refused")
    }

    /// What connecting from a group says, by way and address.
    private func answers(_ addresses: [String], in group: String) async throws -> [String: String] {
        let script = """
            ip link set lo up
            ip route add local 0.0.0.0/0 dev lo
            ip -6 route add local ::/0 dev lo
            echo $$ > \(group)/cgroup.procs
            try() {
                said=$( (exec 3<>/dev/$2/$3/$4) 2>&1) && said=ok
                echo "$1 $3=${said##*: }"
            }
            for address in \(addresses.joined(separator: " ")); do
                try tcp tcp $address 99; try udp udp $address 99; try dns tcp $address 53
            done
            """
        var program = Program("/bin/bash", ["-c", script])
        program.newNetwork = true
        let output = try await program.capture()
        #expect(output.exit.isSuccess, "\(output.errorText)")
        return output.text.split(separator: "\n").reduce(into: [:]) { found, line in
            let parts = line.split(separator: "=", maxSplits: 1).map(String.init)
            if parts.count == 2 { found[parts[0]] = parts[1] }
        }
    }
}
