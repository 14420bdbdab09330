// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Engine

/// `doctor` by the whole program, in a namespace and with a hosts file of its own.
@Suite(
    .timeLimit(.minutes(20)), .enabled(if: NetworkHost.isPossible, "networks need root"))
struct DoctorTests {
    private static let network = "networks: {one: {subnet: 10.1.0.0/24}}"
    private static let web = "web: {interfaces: [{network: one, address: 10.1.0.2}]}"

    private func examine(_ host: NetworkHost, _ words: String...) async throws -> [JSONValue] {
        let output = try await host.world.program(["doctor", "--json"] + words).capture()
        return try JSONValue(parsing: output.standardOutput).elements
    }

    private func texts(_ findings: [JSONValue], _ subject: String) -> [String] {
        findings.filter { $0["subject"]?.string == subject }.compactMap { $0["text"]?.string }
    }

    @Test func namesAreSetUpWhenAskedForAndNeverElse() async throws {
        let host = try await NetworkHost()
        try host.declare(Self.network, vms: Self.web)
        let before = try await examine(host)
        // Else it would install something.
        try #require(!before.contains { $0["remedy"]?.string?.hasPrefix("apt-get") == true })
        #expect(texts(before, "names").first?.contains("do not resolve") == true)
        try await host.world.must("up")
        #expect(try host.hosts == NetworkHost.plainHosts)

        let after = try await examine(host, "--fix")
        #expect(texts(after, "names") == ["those of VMs resolve on this host"])
        // A VM that runs has its name at once.
        #expect(try host.hosts.contains("\n10.1.0.2\tweb.one.internal\n"))
        let text = try host.hosts
        _ = try await examine(host, "--fix")
        #expect(try host.hosts == text)
    }

    @Test func whereThereAreNoNetworksTheHostsFileIsLeftAlone() async throws {
        let host = try await NetworkHost()
        try host.declare("", vms: "web: {}")
        let before = try await examine(host)
        try #require(
            !before.contains {
                $0["level"]?.string == "missing"
                    && $0["remedy"]?.string?.hasPrefix("apt-get") == true
            })
        let findings = try await examine(host, "--fix")
        #expect(texts(findings, "names") == [] && texts(findings, "firewall") == [])
        #expect(try host.hosts == NetworkHost.plainHosts)
    }

    @Test func whatClosesAndWhatIsGoneIsSeen() async throws {
        let host = try await NetworkHost()
        try host.declare(Self.network, vms: Self.web)
        let first = try await examine(host)
        #expect(texts(first, "firewall") == ["no other one drops what networks carry"])
        #expect(texts(first, "kernel") == ["has what networks need"])
        #expect(texts(first, "networks of 'test'") == [])
        try await host.sh(
            "nft 'add table ip filter; add chain ip filter FORWARD "
                + "{ type filter hook forward priority 0; policy drop; }'")
        try await host.world.must("up")
        try await host.sh("nft delete table inet $(nft list tables | sed -n 's/^table inet //p')")
        let text = try await host.world.mustFail("doctor", code: 78)
        #expect(text.contains("the chain 'ip filter FORWARD' drops forwarded packets of mb-one-"))
        #expect(text.contains("their rules are"))
        // Its own remedies mend it.
        let findings = try await examine(host)
        for finding in findings where finding["subject"]?.string == "firewall" {
            try await host.sh(finding["remedy"]?.string ?? "false")
        }
        try await host.world.must("up")
        let last = try await examine(host)
        #expect(texts(last, "firewall") == ["no other one drops what networks carry"])
        #expect(texts(last, "networks of 'test'") == [])
    }

    @Test func aFleetFileWithMistakesKeepsNobodyFromBeingTold() async throws {
        let host = try await NetworkHost()
        try Files.write("\(host.world.folder)/fleet.yaml", "vms: {web: {memory: lots}}\n")
        let findings = try await examine(host)
        #expect(texts(findings, "fleet file").first?.contains("has 1 mistake") == true)
        #expect(texts(findings, "ROOT").count == 1)
    }
}
