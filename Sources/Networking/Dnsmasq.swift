// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// The words for a network's dnsmasq, which gives addresses and names to its VMs; pure.
///
/// One serves one network: a common one would tell each network the names of all others.
package struct Dnsmasq: Sendable, Equatable {
    /// Holds everything below: `dhcp` and `hosts` are watched by dnsmasq, which takes files over as
    /// they come and go.
    let folder: String
    private let segment: Segment
    /// VMs of other networks that those of this one may reach, and the names of those networks.
    private let reachable: [(vm: String, network: String, addresses: [String])]

    /// The servers that a fleet needs: one for each network of its own.
    package static func all(for fleet: FleetNetworks, below folder: String) -> [Dnsmasq] {
        fleet.segments.filter { $0.kind == .nat }.map { segment in
            Dnsmasq(segment, of: fleet, folder: "\(folder)/\(segment.network.name)")
        }
    }

    private init(_ segment: Segment, of fleet: FleetNetworks, folder: String) {
        self.segment = segment
        self.folder = folder
        let ours = Set(segment.ports.map(\.vm))
        let targets = Set(fleet.openings.filter { ours.contains($0.from) }.map(\.to))
        reachable = fleet.segments.filter { $0.network.name != segment.network.name }
            .flatMap { other in
                other.ports.filter { targets.contains($0.vm) && $0.address != nil }.map {
                    ($0.vm, other.network.name, other.addresses(of: $0))
                }
            }
    }

    package var network: Network { segment.network }
    var link: String { segment.link }

    package static func == (a: Dnsmasq, b: Dnsmasq) -> Bool {
        a.configuration == b.configuration && a.hosts == b.hosts && a.leases == b.leases
    }

    /// The configuration has its own text in its name: whoever sees the process knows what it reads.
    package var file: String { "\(folder)/\(Derived.fingerprint(configuration)).conf" }
    package var processFile: String { folder + "/dnsmasq.pid" }
    package var log: String { folder + "/dnsmasq.log" }
    package var leaseFolder: String { folder + "/leases" }

    package var configuration: String {
        let domain = "\(network.name).internal"
        var lines = [
            "keep-in-foreground", "pid-file=\(processFile)", "user=nobody", "group=nogroup",
            "interface=\(link)", "except-interface=lo", "bind-interfaces",
            "no-hosts", "domain=\(domain)", "local=/internal/", "domain-needed",
            "hostsdir=\(folder)/hosts", "dhcp-hostsdir=\(folder)/dhcp",
            "dhcp-leasefile=\(leaseFolder)/leases", "dhcp-authoritative", "dhcp-fqdn",
            // A guest can ask as often as it likes: the host's log is not for each of its questions.
            "quiet-dhcp", "quiet-dhcp6", "quiet-ra",
        ]
        if let subnet = network.subnet, let router = network.router {
            lines += [
                "dhcp-range=\(subnet.base),static,\(IPv4(subnet.mask)),12h",
                "dhcp-option=option:router,\(router)", "dhcp-option=option:dns-server,\(router)",
                "dhcp-option=option:domain-search,\(domain)",
            ]
        }
        if let subnet = network.subnet6, network.ipv6 {
            // Not ra-only: a guest would prefer an address that it made up, and lose its packets.
            lines += [
                "enable-ra", "dhcp-range=\(subnet.base),static,off-link,\(subnet.prefix)",
                "ra-param=\(link),mtu:1500,60,600",
            ]
        }
        return (lines + upstreams).joined(separator: "\n") + "\n"
    }

    /// A network that may reach nothing must not reach it through names either.
    private var upstreams: [String] {
        if case .none = network.egress { return ["no-resolv"] }
        if network.dns.isEmpty { return ["resolv-file=/etc/resolv.conf"] }
        return ["no-resolv"] + network.dns.map { "server=\($0)" }
    }

    /// The files of `hosts`, by name: one for each VM.
    package var hosts: [String: String] {
        var files: [String: String] = [:]
        func add(_ vm: String, _ network: String, _ addresses: [String], short: Bool) {
            let names = "\(vm).\(network).internal" + (short ? " \(vm)" : "")
            files[vm, default: ""] += addresses.map { "\($0) \(names)\n" }.joined()
        }
        for port in segment.ports {
            add(port.vm, network.name, segment.addresses(of: port), short: true)
        }
        for other in reachable { add(other.vm, other.network, other.addresses, short: false) }
        if let router = network.router {
            let all = ["\(router)", network.router6.map { "\($0)" }].compactMap { $0 }
            files["gateway", default: ""] += all.map {
                "\($0) gateway.\(network.name).internal\n"
            }.joined()
        }
        return files
    }

    /// The files of `dhcp`, by name: the address of each hardware address.
    package var leases: [String: String] {
        var files: [String: String] = [:]
        for port in segment.ports {
            guard let address = port.address else { continue }
            var parts = ["\(port.mac)", "\(address)"]
            if let address = segment.address6(port) { parts.append("[\(address)]") }
            parts += [port.vm, "infinite"]
            files["\(port.vm)-\(port.index)"] = parts.joined(separator: ",") + "\n"
        }
        return files
    }
}

extension Segment {
    func addresses(of port: Port) -> [String] {
        [port.address.map { "\($0)" }, address6(port).map { "\($0)" }].compactMap { $0 }
    }
}
