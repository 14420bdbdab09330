// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Engine

/// What becomes of VMs on networks when the host is not as they need it, by the whole program.
@Suite(
    .timeLimit(.minutes(20)), .enabled(if: NetworkHost.isPossible, "networks need root"))
struct NetworkLifeTests {
    private static let networks =
        "networks: {web: {subnet: 10.1.0.0/24}, lan: {bridge: br0}, wire: {macvtap: up0}}"
    private static let web = "web: {interfaces: [{network: web}]}"
    private static let nas = "nas: {interfaces: [{network: lan}]}"

    @Test func aBridgeThatIsMissingRefusesItsVMAndNoOther() async throws {
        let host = try await NetworkHost()
        try host.declare(Self.networks, vms: "\(Self.web), \(Self.nas)")
        let text = try await host.world.mustFail("up", code: 78)
        #expect(text.contains("the network 'lan' needs the bridge br0"))
        #expect(try await host.world.state("web") == "running")
        #expect(try await host.world.state("nas") == "stopped")
        try await host.world.must("stop", "web")
        #expect(try await host.sh("nft list ruleset") == "")
    }

    @Test func aBridgeThatGoesStopsNobodyFromStopping() async throws {
        let host = try await NetworkHost()
        try await host.sh("ip link add br0 type bridge; ip link set br0 up")
        try host.declare(Self.networks, vms: "\(Self.web), \(Self.nas)")
        try await host.world.must("up")
        #expect(try await host.sh("ip -br link show master br0").contains("mv-nas-"))
        try await host.sh("ip link del br0")
        try await host.world.must("stop", "web")
        try await host.world.must("stop", "nas")
        #expect(try await host.sh("nft list ruleset") == "")
        #expect(try await !host.sh("ip -br link").contains("mv-"))
    }

    @Test func aMacvtapComesAndGoesWithItsVM() async throws {
        let host = try await NetworkHost()
        try await host.sh("ip link add up0 type veth peer name up1; ip link set up0 up")
        try host.declare(
            Self.networks, vms: "sat: {interfaces: [{network: wire}, {network: user}]}")
        try await host.world.must("up")
        #expect(try await host.sh("ip -d link show type macvtap").contains("mv-sat-"))
        // Killed, it leaves the link: nobody else holds it as a tap's processes do.
        try await host.world.must("kill", "sat")
        #expect(try await host.sh("ip link show type macvtap") == "")
    }

    @Test func anAddressIsKeptWhoeverComesBefore() async throws {
        let host = try await NetworkHost()
        try host.declare(Self.networks, vms: Self.web)
        try await host.world.must("up", "--no-start")
        try host.declare(Self.networks, vms: "early: {interfaces: [{network: web}]}, \(Self.web)")
        let plan = try await host.world.must("plan", "--json").text
        #expect(!plan.contains("10.1.0.2"))
        try await host.world.must("up", "--no-start")
        let store = Store(layout: host.world.layout)
        let kept = try store.keptAddresses(of: "test")
        #expect(kept["web"]?["web"] == IPv4("10.1.0.2"))
        #expect(kept["early"]?["web"] == IPv4("10.1.0.3"))
    }

    @Test func twoFleetsCannotForwardTheSamePort() async throws {
        let host = try await NetworkHost()
        try host.declare(
            Self.networks, vms: "web: {interfaces: [{network: web}], ports: ['8080:80']}")
        try await host.world.must("up")
        try Files.write(
            "\(host.world.folder)/other.yaml",
            "fleet: other\nnetworks: {n: {subnet: 10.9.0.0/24}}\n"
                + "vms: {x: {interfaces: [{network: n}], ports: ['8080:80']}}\n")
        let text = try await host.world.mustFail("-f", "other.yaml", "up", code: 78)
        #expect(text.contains("8080") && text.contains("the VM web"))
        try await host.world.must("down")
    }
}
