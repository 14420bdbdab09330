// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Networking
import Testing

@testable import Engine

/// Names of VMs in the host's hosts file, by the whole program in a namespace of its own.
@Suite(
    .timeLimit(.minutes(20)), .enabled(if: NetworkHost.isPossible, "networks need root"))
struct HostNameTests {
    private static let networks =
        "networks: {one: {subnet: 10.1.0.0/24, ipv6: true, subnet6: 'fd00:1::/64'}, "
        + "two: {subnet: 10.2.0.0/24}}"
    private static let web =
        "web: {interfaces: [{network: one, address: 10.1.0.2}, "
        + "{network: two, address: 10.2.0.2}]}"
    private static let db = "db: {interfaces: [{network: two, address: 10.2.0.3}]}"

    private func section(_ host: NetworkHost, _ lines: String) -> String {
        let owner = Owner(fleet: "test", root: host.world.layout.root).section
        return block(lines.isEmpty ? "" : "# owner \(owner)\n\(lines)")
    }

    private func block(_ sections: String) -> String {
        NetworkHost.plainHosts + "# BEGIN martlet\n"
            + "# martlet maintains this block; what is changed here by hand is lost.\n"
            + sections + "# END martlet\n"
    }

    private static let oneLines = "10.1.0.2\tweb.one.internal\nfd00:1::2\tweb.one.internal\n"
    private static let twoLine = "10.2.0.2\tweb.two.internal\n"
    private static let webLines = oneLines + twoLine

    @Test func withoutTheBlockTheFileStaysAsItIs() async throws {
        let host = try await NetworkHost()
        try host.declare(Self.networks, vms: Self.web)
        try await host.world.must("up")
        #expect(try host.hosts == NetworkHost.plainHosts)
        try await host.world.must("down")
        #expect(try host.hosts == NetworkHost.plainHosts)
        #expect(!Files.exists(host.world.layout.run + "/hosts.lock"))
    }

    @Test func namesComeWithVMsAndGoWithTheLast() async throws {
        let host = try await NetworkHost()
        try Files.write(host.hostsFile, block(""), mode: 0o644)
        try host.declare(Self.networks, vms: "\(Self.web), \(Self.db)")
        try await host.world.must("up")
        let dbLine = "10.2.0.3\tdb.two.internal\n"
        #expect(try host.hosts == section(host, Self.oneLines + dbLine + Self.twoLine))
        #expect(try await host.sh("ip -brief link").contains("mb-one-"))
        try await host.world.must("stop", "web")
        #expect(try host.hosts == section(host, dbLine))
        try await host.world.must("stop", "db")
        #expect(try host.hosts == section(host, ""))
    }

    @Test func aDamagedFileStopsNoVM() async throws {
        let host = try await NetworkHost()
        let damaged = "127.0.0.1 localhost\n# BEGIN martlet\n"
        try Files.write(host.hostsFile, damaged, mode: 0o644)
        try host.declare(Self.networks, vms: Self.web)
        let text = try await host.world.must("up").errorText
        #expect(text.contains("/etc/hosts:2:") && text.contains("repair the file by hand"))
        #expect(try await host.world.state("web") == "running")
        #expect(try host.hosts == damaged)
    }

    @Test func killedAtEveryStepTheNamesConverge() async throws {
        let host = try await NetworkHost()
        try Files.write(host.hostsFile, block(""), mode: 0o644)
        for command in ["up", "stop"] {
            let words = command == "up" ? ["up"] : ["stop", "web"]
            var (step, wasKilled) = (0, true)
            while wasKilled {
                step += 1
                // From the same state each time.
                try host.declare(Self.networks, vms: Self.web)
                try await host.world.must("up")
                if command == "up" { try await host.world.must("stop", "web") }
                let first = try await host.world.program(words, killAt: step).capture()
                wasKilled = first.exit == .signal(SIGKILL)
                _ = try await host.world.program(words).capture()
                let lines = command == "up" ? Self.webLines : ""
                #expect(try host.hosts == section(host, lines), "\(command), killed at \(step)")
                let hasBridge = try await host.sh("ip -brief link").contains("mb-one-")
                #expect(hasBridge == (command == "up"), "\(command), killed at \(step)")
            }
            #expect(step > 1)
        }
    }
}
