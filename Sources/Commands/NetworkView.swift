// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Networking

/// The networks of one fleet as people and scripts see them.
struct NetworkView {
    let fleet: String
    let settings: NetworkSettings
    let observed: ObservedNetworks
    /// Whether names of VMs resolve on this host; nil when its hosts file cannot be read.
    let hasNames: Bool?
    /// What Tailscale is asked to announce.
    let routes: [AnnouncedRoute]

    private func state(_ segment: ObservedNetworks.Observed) -> String {
        guard let link = segment.link else {
            return segment.network.kind == .nat ? "unused" : "missing"
        }
        return link.isUp ? "up" : "down"
    }

    /// How sure the host is of who sends what.
    private func pinned(_ interface: ObservedNetworks.Interface) -> String {
        switch interface.network.kind {
        case .macvtap: "nothing: macvtap passes the host's rules by"
        case .nat: "MAC, ARP, IP"
        case .bridge:
            interface.port.address == nil ? "MAC: the LAN gives its addresses" : "MAC, ARP, IP"
        }
    }

    private var forwards: [(host: String, vm: String, guest: String)] {
        observed.interfaces.flatMap { interface in
            interface.port.forwards.map { forward in
                (
                    forward.hostEndpoint, interface.port.vm,
                    "\(forward.guest)/\(forward.transport.rawValue)"
                )
            }
        }
    }

    // MARK: - For people

    func show(_ printer: Printer) {
        guard !settings.networks.isEmpty else {
            return printer.line("The fleet '\(fleet)' has put no networks on this host.")
        }
        showSegments(printer)
        showInterfaces(printer)
        if !forwards.isEmpty {
            var table = Table(["FORWARD", "VM", "GUEST"])
            for forward in forwards {
                table.add([.init(forward.host), .init(forward.vm), .init(forward.guest)])
            }
            printer.line("")
            printer.table(table)
        }
        showLeases(printer)
        showReach(printer)
        showRules(printer)
    }

    /// Who beside the guests knows of the networks.
    private func showReach(_ printer: Printer) {
        printer.line("")
        let names =
            switch hasNames {
            case true?: "yes"
            case false?: "no ('martlet doctor --fix' sets them up)"
            case nil: "unknown ('martlet doctor' says why)"
            }
        printer.line("Names on this host: \(names)")
        guard !routes.isEmpty else { return }
        let all = routes.map { route in
            switch route.isAnnounced {
            case true?: route.route
            case false?: route.route + " " + printer.terminal.paint("(not announced)", .error)
            case nil: route.route + " (unknown)"
            }
        }
        printer.line("Routes by Tailscale: \(all.joined(separator: ", "))")
    }

    private func showSegments(_ printer: Printer) {
        var table = Table([
            "NETWORK", "KIND", "STATE", "LINK", "SUBNET", "GATEWAY", "EGRESS", "ISOLATED", "NAMES",
        ])
        for segment in observed.segments {
            let network = segment.network
            let state = state(segment)
            let subnets = [
                network.subnet?.description, network.ipv6 ? network.subnet6?.description : nil,
            ]
            table.add([
                .init(network.name), .init(network.kind.word),
                .init(state, state == "up" ? .good : state == "unused" ? nil : .error),
                .init(segment.link?.name),
                .init(subnets.compactMap { $0 }.joined(separator: " ")),
                .init(network.router.map { "\($0)" }),
                .init(network.kind == .nat ? network.egress.word : nil),
                .init(network.kind == .macvtap ? nil : network.isolated ? "yes" : "no"),
                .init(names(segment), names(segment) == "not served" ? .error : nil),
            ])
        }
        printer.table(table)
    }

    private func names(_ segment: ObservedNetworks.Observed) -> String? {
        guard let hasServer = segment.hasServer, segment.link != nil else { return nil }
        return hasServer ? "\(segment.network.name).internal" : "not served"
    }

    private func showInterfaces(_ printer: Printer) {
        guard !observed.interfaces.isEmpty else { return }
        var table = Table([
            "VM", "NETWORK", "TAP", "ADDRESS", "MAC", "STATE", .number("RECEIVED"),
            .number("SENT"), "PINNED",
        ])
        for interface in observed.interfaces {
            let link = interface.link
            // What the guest sends arrives at the host's end, and the other way round.
            let counts = link?.statistics
            table.add([
                .init(interface.port.vm), .init(interface.network.name),
                .init(interface.port.tap), .init(interface.addresses.joined(separator: " ")),
                .init("\(interface.port.mac)"),
                .init(
                    link.map { $0.isUp ? "up" : "down" } ?? "missing",
                    link?.isUp == true ? .good : .error),
                .init(counts.map { Units.bytes(Int64(clamping: $0.sentBytes)) }),
                .init(counts.map { Units.bytes(Int64(clamping: $0.receivedBytes)) }),
                .init(pinned(interface)),
            ])
        }
        printer.line("")
        printer.table(table)
    }

    /// What DHCP gave to guests that asked: those of Martlet's own images need not ask.
    private func showLeases(_ printer: Printer) {
        let leases = observed.segments.flatMap { segment in
            segment.leases.map { (network: segment.network.name, lease: $0) }
        }
        guard !leases.isEmpty else { return }
        var table = Table(["LEASE", "NETWORK", "MAC", "NAME"])
        for (network, lease) in leases {
            table.add([
                .init(lease.address), .init(network), .init(lease.mac), .init(lease.name),
            ])
        }
        printer.line("")
        printer.table(table)
    }

    private func showRules(_ printer: Printer) {
        switch observed.rules {
        case .unknown: printer.line("The packet filter can be looked at by root only.")
        case .missing where observed.interfaces.isEmpty:
            printer.line("No rules: nothing needs them.")
        case .missing:
            printer.line(
                printer.terminal.paint("The rules are missing", .error)
                    + ": somebody flushed them, and nothing is closed. 'martlet up' makes them again."
            )
        case .different:
            printer.line(
                printer.terminal.paint("The rules are not as they should be", .error)
                    + ": 'martlet up' makes them so.")
        case .current: break
        }
        let drops = (observed.drops ?? [:]).filter { $0.value > 0 }.sorted {
            ($1.value, $0.key) < ($0.value, $1.key)
        }
        guard !drops.isEmpty else { return }
        printer.line("")
        var table = Table(["DROPPED", .number("PACKETS"), "WHAT"])
        for (reason, count) in drops {
            table.add([.init(reason), .init("\(count)"), .init(Ruleset.explanation(reason))])
        }
        printer.table(table)
    }

    // MARK: - For scripts

    var json: JSONValue {
        [
            "fleet": .string(fleet), "rules": .string(observed.rules.rawValue),
            "networks": .array(observed.segments.map(json)),
            "interfaces": .array(observed.interfaces.map(json)),
            "forwards": .array(
                forwards.map {
                    ["host": .string($0.host), "vm": .string($0.vm), "guest": .string($0.guest)]
                }),
            "namesOnHost": hasNames.map { .bool($0) } ?? .null,
            "routes": .array(
                routes.map {
                    [
                        "route": .string($0.route),
                        "announced": $0.isAnnounced.map { .bool($0) } ?? .null,
                    ]
                }),
            "drops": observed.drops.map { drops in
                .object(
                    drops.sorted { $0.key < $1.key }.map {
                        .init($0.key, JSONValue(Int64(clamping: $0.value)))
                    })
            } ?? .null,
        ]
    }

    private func json(_ segment: ObservedNetworks.Observed) -> JSONValue {
        let network = segment.network
        return [
            "name": .string(network.name), "kind": .string(network.kind.word),
            "state": .string(state(segment)), "link": .text(segment.link?.name),
            "subnet": .text(network.subnet?.description),
            "subnet6": .text(network.ipv6 ? network.subnet6?.description : nil),
            "gateway": .text(network.router?.description), "egress": network.egress.json,
            "isolated": .bool(network.isolated),
            "server": segment.hasServer.map { .bool($0) } ?? .null,
            "leases": .array(
                segment.leases.map {
                    [
                        "mac": .string($0.mac), "address": .string($0.address),
                        "name": .text($0.name),
                    ]
                }),
        ]
    }

    private func json(_ interface: ObservedNetworks.Interface) -> JSONValue {
        let counts = interface.link?.statistics
        func number(_ value: UInt64?) -> JSONValue {
            value.map { JSONValue(Int64(clamping: $0)) } ?? .null
        }
        return [
            "vm": .string(interface.port.vm), "network": .string(interface.network.name),
            "tap": .string(interface.port.tap), "mac": .string("\(interface.port.mac)"),
            "addresses": .array(interface.addresses.map(JSONValue.string)),
            "state": .string(interface.link.map { $0.isUp ? "up" : "down" } ?? "missing"),
            "receivedBytes": number(counts?.sentBytes), "sentBytes": number(counts?.receivedBytes),
            "pinned": .string(pinned(interface)),
        ]
    }
}

extension Network.Kind {
    fileprivate var word: String {
        switch self {
        case .nat: "nat"
        case .bridge: "bridge"
        case .macvtap: "macvtap"
        }
    }
}

extension Egress {
    fileprivate var word: String {
        switch self {
        case .internet: "internet"
        case .all: "all"
        case .none: "none"
        case .only(let rules): rules.map(\.description).joined(separator: " ")
        }
    }
}
