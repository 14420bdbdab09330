// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Networking

/// What was seen of a host's network: plain data.
struct NetworkFacts {
    typealias Seen<Value> = Doctor.Seen<Value>

    var kernel: Seen<[KernelFeature: String]> = .seen([:])
    var firewalls: Seen<[ForeignFirewall]> = .seen([])
    /// Whether rules were made with the old iptables, which nftables does not list.
    var hasLegacyRules = false
    var forwards4 = true
    var forwards6 = true
    /// Whether the hosts file has our block.
    var hasNames: Seen<Bool> = .seen(true)
    var fleets: [(name: String, observed: ObservedNetworks)] = []
    var taken: [TakenLink] = []
}

/// What follows from it for the networks that are declared; pure.
struct NetworkChecks {
    typealias Finding = Doctor.Finding

    /// Programs that networks need, the package of each, and what for.
    static let tools: [(name: String, package: String, purpose: String)] = [
        (DnsmasqServer.program, DnsmasqServer.package, "gives VMs on networks addresses and names"),
        ("conntrack", "conntrack", "ends connections that a change of the fleet forbids"),
        ("tc", "iproute2", "carries `limits.network` out"),
    ]

    let needs: NetworkNeeds
    let facts: NetworkFacts

    var findings: [Finding] {
        guard needs.isAny else { return kernel }
        return kernel + firewall + forwarding + running + taken + [names]
    }

    /// A missing tool matters where there are networks.
    func tool(_ tool: (name: String, package: String, purpose: String), path: String?) -> Finding {
        if let path { return Finding(subject: tool.name, level: .good, text: path) }
        return Finding(
            subject: tool.name, level: needs.isAny ? .missing : .notice,
            text: "not installed; it \(tool.purpose)",
            remedy: "apt-get install \(tool.package)", package: needs.isAny ? tool.package : nil)
    }

    private var kernel: [Finding] {
        switch facts.kernel {
        case .unknown(let reason):
            guard needs.isAny else { return [] }
            return [
                Finding(
                    subject: "kernel", level: .notice,
                    text: "whether it has what networks need cannot be tried: \(reason)")
            ]
        case .seen(let missing):
            if missing.isEmpty {
                return [
                    Finding(subject: "kernel", level: .good, text: "has what networks need")
                ]
            }
            return KernelFeature.allCases.compactMap { feature in
                guard let reason = missing[feature] else { return nil }
                return Finding(
                    subject: "kernel", level: needs.needs(feature) ? .missing : .notice,
                    text: "without \(feature.name), which is for \(feature.purpose): "
                        + reason.prefix { !$0.isNewline },
                    remedy: "load the module, or boot a kernel that has it")
            }
        }
    }

    private var firewall: [Finding] {
        var found: [Finding] = []
        switch facts.firewalls {
        case .unknown(let reason):
            return [
                Finding(
                    subject: "firewall", level: .notice,
                    text: "whether another one drops what networks carry is not known: \(reason)")
            ]
        case .seen(let firewalls):
            found = firewalls.map { firewall in
                Finding(
                    subject: "firewall", level: .missing,
                    text: firewall.text
                        + (firewall.isTransient
                            ? "; what opens it lasts until its rules are loaded anew" : ""),
                    remedy: firewall.commands.joined(separator: " && "))
            }
        }
        if facts.hasLegacyRules {
            found.append(
                Finding(
                    subject: "firewall", level: .notice,
                    text:
                        "there are rules of the old iptables, which cannot be looked at from here",
                    remedy: "iptables-legacy -S FORWARD"))
        }
        if found.isEmpty {
            found.append(
                Finding(
                    subject: "firewall", level: .good,
                    text: "no other one drops what networks carry"))
        }
        return found
    }

    private var forwarding: [Finding] {
        var found: [Finding] = []
        func add(_ subject: String, _ isOn: Bool) {
            found.append(
                Finding(
                    subject: subject, level: isOn ? .good : .notice,
                    text: isOn
                        ? "on" : "off: 'martlet up' switches it on when the first network needs it"
                ))
        }
        if needs.hasNAT { add("forwarding", facts.forwards4) }
        if needs.hasIPv6 { add("IPv6 forwarding", facts.forwards6) }
        return found
    }

    /// What VMs that run are without.
    private var running: [Finding] {
        facts.fleets.flatMap { fleet, observed -> [Finding] in
            guard !observed.interfaces.isEmpty else { return [] }
            var found: [Finding] = []
            func add(_ what: String) {
                found.append(
                    Finding(
                        subject: "networks of '\(fleet)'", level: .missing, text: what,
                        remedy: "martlet up"))
            }
            switch observed.rules {
            case .missing: add("their rules are gone, so that nothing is closed")
            case .different: add("their rules are not as they should be")
            case .current, .unknown: break
            }
            for segment in observed.segments
            where segment.hasServer == false && segment.link != nil {
                add("nobody serves names and addresses on '\(segment.network.name)'")
            }
            return found
        }
    }

    private var taken: [Finding] {
        facts.taken.map { taken in
            Finding(
                subject: taken.link, level: .notice,
                text: "systemd-networkd configures it, too"
                    + (taken.file.map { " (\($0))" } ?? ""),
                remedy: "let /etc/systemd/network/05-martlet.network say: "
                    + "[Match] Name=mb-* mv-* mi-* [Link] Unmanaged=yes")
        }
    }

    private var names: Finding {
        switch facts.hasNames {
        case .seen(true):
            Finding(subject: "names", level: .good, text: "those of VMs resolve on this host")
        case .seen(false):
            Finding(
                subject: "names", level: .notice,
                text: "those of VMs, such as VM.NETWORK.internal, do not resolve on this host",
                remedy: "sudo martlet doctor --fix")
        case .unknown(let reason): Finding(subject: "names", level: .notice, text: reason)
        }
    }
}

// MARK: - Looking

extension NetworkFacts {
    /// Looks at the host, and changes nothing.
    init(_ engine: Engine, _ needs: NetworkNeeds) async {
        self.init()
        kernel = await .look { try await KernelFeature.missing() }
        guard needs.isAny else { return }
        forwards4 = Forwarding.isOn4
        forwards6 = Forwarding.isOn6
        let seesBridged = (try? Sysctl.read("net/bridge/bridge-nf-call-iptables")) == "1"
        let bridges = needs.bridges(seesBridged: seesBridged)
        firewalls = await .look {
            // Without privilege the list is empty, and that would be a lie.
            guard engine.isRoot else { throw SystemError("nftables", EPERM) }
            return try ForeignFirewall.look(for: bridges)
        }
        let legacy = (try? Files.readText("/proc/net/ip_tables_names")) ?? ""
        hasLegacyRules = legacy.split(separator: "\n").contains("filter")
        hasNames = await .look { try engine.hasNamesOnHost }
        for (name, _) in needs.fleets {
            // One that was never applied has nothing here yet.
            guard let observed = try? await engine.observeNetworks(of: name) else { continue }
            fleets.append((name, observed))
        }
        taken = (try? TakenLink.look()) ?? []
    }
}
