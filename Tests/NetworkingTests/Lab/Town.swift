// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Networking

/// What a fleet file says of networks, easy to change.
struct FleetPlan: Sendable {
    var owner = Sample.owner
    var networks: [Network] = []
    var vms: [VM] = []
    var openings: [Opening] = []
    var trusted: [String] = []
    var users: [UInt32] = []

    var fleet: FleetNetworks {
        FleetNetworks(
            owner: owner, networks: networks, openings: openings, trusted: trusted, vms: vms,
            users: users)
    }

    /// Adds 10.`number`.0.0/24 with IPv6 and VMs at .2 and up; their MACs follow.
    mutating func add(
        _ network: String, _ number: Int, vms names: String...,
        change: (inout Network) -> Void = { _ in }
    ) throws {
        networks.append(
            try Sample.network(network, number) {
                $0.ipv6 = true
                $0.subnet6 = CIDR6("fd00:6d76:6d:\(number)::/64")
                change(&$0)
            })
        for (index, name) in names.enumerated() {
            vms.append(
                Sample.vm(
                    name, network, "10.\(number).0.\(index + 2)", UInt64(number << 8 | index + 2)))
        }
    }

    mutating func forward(_ vm: String, _ forwards: String...) throws {
        let index = try #require(vms.firstIndex { $0.name == vm })
        vms[index].ports = try forwards.map { try #require(PortForward($0), "\($0)") }
    }

    mutating func allow(_ from: String, _ to: String, _ ports: ProtocolPort...) {
        var opening = Opening()
        (opening.from, opening.to, opening.ports) = (from, to, ports)
        openings.append(opening)
    }

    mutating func change(_ network: String, _ change: (inout Network) -> Void) throws {
        change(&networks[try #require(networks.firstIndex { $0.name == network })])
    }

    /// Changes what nothing but a change of the fleet file would.
    func changed(_ change: (inout FleetPlan) throws -> Void) rethrows -> FleetPlan {
        var copy = self
        try change(&copy)
        return copy
    }
}

/// A laboratory in whose host a fleet's networks are kept by the product itself.
///
/// Only the taps are not: the stand-ins' wires are attached as taps are.
final class Town: Sendable {
    let lab: Lab
    let host: HostNetwork
    private let temporary: TemporaryFolder

    init(_ lab: Lab, _ owner: Owner = Sample.owner) throws {
        self.lab = lab
        temporary = try TemporaryFolder()
        host = HostNetwork(owner: owner, folder: temporary.path + "/networks")
    }

    /// Brings the host to what a plan needs.
    func apply(_ plan: FleetPlan) async throws {
        let (host, fleet) = (host, plan.fleet)
        try await lab.inHost { try host.apply(fleet) }
    }

    /// What a LAN's own DHCP would give.
    struct ByHand: Sendable {
        let ipv4: String
        let gateway: String
        let ipv6: String
        let gateway6: String
    }

    /// Makes the stand-ins of a plan's VMs that are not there yet, and attaches them.
    ///
    /// Their IPv6 addresses are alone, as the product's DHCP gives them: neighbours are behind the
    /// gateway. One without an address has one by hand.
    func move(in plan: FleetPlan, byHand: [String: ByHand] = [:]) async throws {
        for segment in plan.fleet.segments {
            for port in segment.ports where (try? lab.agent(port.vm)) == nil {
                let prefix = segment.network.subnet?.prefix ?? 24
                try await lab.addGuest(
                    port.vm, tap: port.tap, mac: "\(port.mac)",
                    ipv4: port.address.map { "\($0)/\(prefix)" } ?? byHand[port.vm]?.ipv4 ?? "",
                    gateway: segment.network.router.map { "\($0)" } ?? byHand[port.vm]?.gateway,
                    ipv6: segment.address6(port).map { "\($0)/128" } ?? byHand[port.vm]?.ipv6,
                    gateway6: segment.network.router6.map { "\($0)" } ?? byHand[port.vm]?.gateway6)
                let host = host
                try await lab.inHost {
                    let socket = try RouteSocket()
                    try host.attach(
                        port.tap, to: segment,
                        alias: host.owner.alias("vm", port.vm, String(port.index)), socket)
                    try Shaper(port, host.owner, host.folder).apply(try socket.links(), socket)
                }
            }
        }
    }

    /// Packets dropped so far, by reason.
    func drops() async throws -> [String: UInt64] {
        let owner = host.owner
        return try await lab.inHost { try HostRules(of: owner).drops }
    }

    /// Whether a process is there and is more than what its parent has not fetched yet.
    private static func runs(_ pid: Int32) -> Bool {
        (try? Files.read("/proc/\(pid)/cmdline").isEmpty) == false
    }

    /// Ends all that the product has made, and fails when anything of it is left.
    func end() async throws {
        let host = host
        let servers = ((try? Files.list(host.folder)) ?? []).compactMap {
            try? Files.readText("\(host.folder)/\($0)/dnsmasq.pid")
        }.compactMap { Int32($0.prefix { $0.isNumber }) }
        let left = try await lab.inHost {
            try host.apply(FleetPlan(owner: host.owner).fleet)
            var left = try RouteSocket().links()
                .filter { $0.alias?.hasPrefix(host.owner.aliasPrefix) == true }.map(\.name)
            let tables = try Nftables.list("list tables").compactMap { $0["table"]?["name"] }
            if tables.contains(.string(host.owner.table)) { left.append("tables") }
            if host.hasTraces { left.append(host.folder) }
            return left + servers.filter(Town.runs).map { "process \($0)" }
        }
        guard left.isEmpty else { throw LabError("the fleet has left: \(left)") }
    }
}

/// One town that all tests of a suite share: making it is what takes time.
struct InTown: SuiteTrait, TestScoping {
    @TaskLocal static var current: Town?
    let vpn: Bool
    let plan: @Sendable () throws -> FleetPlan

    /// The town of the running test.
    static var town: Town { get throws { try #require(current) } }

    func provideScope(
        for test: Test, testCase: Test.Case?,
        performing function: @concurrent @Sendable () async throws -> Void
    ) async throws {
        guard test.isSuite, Lab.isPossible else { return try await function() }
        let plan = try plan()
        try await Lab.with(vpn: vpn) { lab in
            let town = try Town(lab)
            try await town.apply(plan)
            try await town.move(in: plan, byHand: FleetPlan.byHand)
            try await InTown.$current.withValue(town) { try await function() }
            try await town.end()
        }
    }
}

extension FleetPlan {
    /// Every kind of network and egress, forwards, and what is allowed beside.
    @Sendable static func everything() throws -> FleetPlan {
        var plan = FleetPlan(trusted: ["wg0"])
        try plan.add("web", 1, vms: "web")
        try plan.add("db", 2, vms: "db") { $0.egress = .all }
        try plan.add("list", 3, vms: "list") {
            $0.egress = .only(
                ["tcp:443", "udp:53@9.9.9.9", "172.16.0.0/12"].compactMap { EgressRule($0) })
        }
        try plan.add("none", 4, vms: "none") { $0.egress = Egress.none }
        try plan.add("pair", 5, vms: "one", "two")
        try plan.add("open", 6, vms: "left", "right") { $0.isolated = false }
        plan.addLAN()
        try plan.forward(
            "web", "8080:80", "5300:53/udp", "127.0.0.1:2201:22", "203.0.113.2:8443:443",
            "[2001:db8:1::2]:5353:53/udp")
        try plan.forward("db", "8081:80")
        try plan.forward("fixed", "8090:80")
        plan.allow("web", "db", ProtocolPort(.tcp, 80), ProtocolPort(.udp, 53))
        plan.allow("one", "two", ProtocolPort(.tcp, 22))
        plan.allow("db", "fixed", ProtocolPort(.tcp, 80))
        plan.allow("fixed", "web", ProtocolPort(.tcp, 22))
        return plan
    }

    /// Neighbours on a closed network, on an open one and on the LAN.
    @Sendable static func streets() throws -> FleetPlan {
        var plan = FleetPlan()
        try plan.add("pair", 5, vms: "one", "two")
        try plan.add("open", 6, vms: "left", "right") { $0.isolated = false }
        plan.addLAN()
        return plan
    }

    /// What can be narrowed.
    @Sendable static func changing() throws -> FleetPlan {
        var plan = try streets()
        plan.trusted = ["wg0"]
        try plan.add("web", 1, vms: "web")
        try plan.forward("web", "8080:80")
        try plan.forward("two", "8081:80")
        plan.allow("web", "one", ProtocolPort(.tcp, 80))
        plan.allow("one", "two", ProtocolPort(.tcp, 22))
        return plan
    }

    /// `fixed` has an address that the fleet knows; that of `hand` is the LAN's to give.
    mutating func addLAN() {
        var fixed = Network(name: "lan")
        fixed.bridge = "br0"
        fixed.subnet = CIDR("192.168.50.0/24")
        fixed.gateway = IPv4(Lab.Address.hostLAN)
        var free = Network(name: "free")
        free.bridge = "br0"
        free.ipv6 = true
        networks += [fixed, free]
        vms.append(Sample.vm("fixed", "lan", "192.168.50.20", 0x5020))
        vms.append(Sample.vm("hand", "free", nil, 0x5030))
    }

    static let byHand = [
        "hand": Town.ByHand(
            ipv4: "192.168.50.30/24", gateway: Lab.Address.hostLAN, ipv6: "2001:db8:50::30/64",
            gateway6: Lab.Address.hostLAN6)
    ]
}
