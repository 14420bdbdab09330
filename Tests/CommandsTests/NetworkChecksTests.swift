// SPDX-License-Identifier: Apache-2.0
import Engine
import Linux
import Testing

@testable import Commands
@testable import Fleets
@testable import Networking

/// A fleet of one network, and hosts on which this or that is not as it should be.
@Suite struct NetworkChecksTests {
    private static let network = {
        var network = Network(name: "one")
        network.subnet = CIDR("10.1.0.0/24")
        return network
    }()

    private static func fleet(_ networks: [Network] = [network], limit: Bool = false) -> Fleet {
        var fleet = Fleet()
        fleet.name = "home"
        fleet.networks = networks
        var vm = VM(name: "web")
        vm.interfaces = [Interface(network: "one")]
        if limit { vm.limits.network = BitRate("16Mbit/s") }
        fleet.vms = [vm]
        return fleet
    }

    /// What is not good, a line each.
    private func complaints(
        _ needs: NetworkNeeds = NetworkNeeds(fleet()), _ change: (inout NetworkFacts) -> Void
    ) -> [String] {
        var facts = NetworkFacts()
        change(&facts)
        return NetworkChecks(needs: needs, facts: facts).findings.filter { $0.level != .good }
            .map { finding in
                "\(finding.level) \(finding.subject): \(finding.text)"
                    + (finding.remedy.map { " [\($0)]" } ?? "")
            }
    }

    @Test func aHostThatHasEverythingIsGood() {
        let findings = NetworkChecks(
            needs: NetworkNeeds(Self.fleet()), facts: NetworkFacts()
        ).findings
        #expect(findings.map(\.subject) == ["kernel", "firewall", "forwarding", "names"])
        #expect(findings.allSatisfy { $0.level == .good && $0.remedy == nil })
    }

    @Test func withoutNetworksOnlyTheKernelIsMentioned() {
        let needs = NetworkNeeds(Self.fleet([]))
        #expect(!needs.isAny)
        let lines = complaints(needs) { facts in
            facts.kernel = .seen([.macvtaps: "Operation not supported"])
            facts.firewalls = .unknown("only root can look")
            facts.forwards4 = false
            facts.hasNames = .seen(false)
        }
        #expect(
            lines == [
                "notice kernel: without macvtaps (macvtap), which is for networks with `macvtap`: "
                    + "Operation not supported [load the module, or boot a kernel that has it]"
            ])
        #expect(complaints(needs) { $0.kernel = .unknown("only root can look") } == [])
    }

    @Test func aMissingToolMattersWhereThereAreNetworks() {
        let tool = NetworkChecks.tools[0]
        func finding(_ networks: [Network], _ path: String? = nil) -> Doctor.Finding {
            NetworkChecks(needs: NetworkNeeds(Self.fleet(networks)), facts: NetworkFacts())
                .tool(tool, path: path)
        }
        let needed = finding([Self.network])
        #expect(needed.level == .missing && needed.package == "dnsmasq-base")
        #expect(needed.text == "not installed; it gives VMs on networks addresses and names")
        #expect(needed.remedy == "apt-get install dnsmasq-base")
        // --fix does not install what nobody needs.
        let idle = finding([])
        #expect(idle.level == .notice && idle.package == nil && idle.remedy == needed.remedy)
        #expect(finding([], "/usr/sbin/dnsmasq").level == .good)
        #expect(NetworkChecks.tools.map(\.package) == ["dnsmasq-base", "conntrack", "iproute2"])
    }

    @Test(
        arguments: [
            // For whom a feature is missing, and not just worth a notice.
            (.nftables, [true, true, true, true]), (.bridges, [true, true, false, true]),
            (.macvtaps, [false, false, true, false]), (.ipv6, [false, true, false, false]),
            (.ifb, [false, false, false, true]), (.queues, [false, false, false, true]),
        ] as [(KernelFeature, [Bool])])
    func aFeatureIsMissingForWhoNeedsIt(feature: KernelFeature, expected: [Bool]) {
        var six = Self.network
        six.ipv6 = true
        var shared = Network(name: "one")
        shared.macvtap = "eth0"
        let fleets = [
            Self.fleet(), Self.fleet([six]), Self.fleet([shared]), Self.fleet(limit: true),
        ]
        let found = fleets.map { fleet in
            complaints(NetworkNeeds(fleet)) { $0.kernel = .seen([feature: "no"]) }
                .contains { $0.hasPrefix("missing kernel: without \(feature.name)") }
        }
        #expect(found == expected)
    }

    @Test func aFirewallIsNamedWithWhatOpensIt() {
        let docker = ForeignFirewall(
            family: "ip", table: "filter", chain: "FORWARD", hook: .forward, maker: .docker,
            bridges: ["mb-one-abcdef"])
        let ufw = ForeignFirewall(
            family: "ip", table: "filter", chain: "INPUT", hook: .input, maker: .ufw,
            bridges: ["mb-one-abcdef"])
        #expect(
            complaints { $0.firewalls = .seen([docker, ufw]) } == [
                "missing firewall: the chain 'ip filter FORWARD' (Docker) drops forwarded packets "
                    + "of mb-one-abcdef; what opens it lasts until its rules are loaded anew "
                    + "[nft insert rule ip filter DOCKER-USER iifname \"mb-*\" accept && "
                    + "nft insert rule ip filter DOCKER-USER oifname \"mb-*\" accept]",
                "missing firewall: the chain 'ip filter INPUT' (ufw) drops what mb-one-abcdef asks "
                    + "of this host (DHCP and DNS of VMs) [ufw allow in on mb-one-abcdef]",
            ])
        #expect(
            complaints { $0.hasLegacyRules = true } == [
                "notice firewall: there are rules of the old iptables, which cannot be looked at "
                    + "from here [iptables-legacy -S FORWARD]"
            ])
    }

    @Test func whatOnlyRootSeesIsSaidToBeUnknown() {
        let lines = complaints { facts in
            facts.firewalls = .unknown("only root can look")
            facts.kernel = .unknown("only root can look")
        }
        #expect(
            lines == [
                "notice kernel: whether it has what networks need cannot be tried: only root can "
                    + "look",
                "notice firewall: whether another one drops what networks carry is not known: only "
                    + "root can look",
            ])
    }

    @Test func forwardingAndNamesAreNotices() {
        var six = Self.network
        six.ipv6 = true
        let lines = complaints(NetworkNeeds(Self.fleet([six]))) { facts in
            facts.forwards4 = false
            facts.forwards6 = false
            facts.hasNames = .seen(false)
        }
        let off = "off: 'martlet up' switches it on when the first network needs it"
        #expect(
            lines == [
                "notice forwarding: \(off)", "notice IPv6 forwarding: \(off)",
                "notice names: those of VMs, such as VM.NETWORK.internal, do not resolve on this "
                    + "host [sudo martlet doctor --fix]",
            ])
        // Nobody asked for IPv6.
        #expect(complaints { $0.forwards6 = false } == [])
        #expect(
            complaints { $0.hasNames = .unknown("/etc/hosts:2: a mess") } == [
                "notice names: /etc/hosts:2: a mess"
            ])
    }

    @Test(
        arguments: [
            (.missing, true, true, ["their rules are gone, so that nothing is closed"]),
            (.different, true, true, ["their rules are not as they should be"]),
            (.current, false, true, ["nobody serves names and addresses on 'one'"]),
            (.current, true, true, []), (.unknown, true, true, []),
            // No VM runs: nothing needs them.
            (.missing, false, false, []),
        ] as [(ObservedNetworks.Rules, Bool, Bool, [String])])
    func whatRunningVMsLackIsMissing(
        rules: ObservedNetworks.Rules, hasServer: Bool, isUsed: Bool, texts: [String]
    ) {
        let observed = MadeUpNetworks.observed(
            rules: rules, hasServer: hasServer, isUsed: isUsed)
        let lines = complaints { $0.fleets = [("home", observed)] }
        #expect(lines == texts.map { "missing networks of 'home': \($0) [martlet up]" })
    }

    @Test func aLinkThatIsTakenOverIsNamed() {
        let lines = complaints { $0.taken = [TakenLink(link: "mb-one-abcdef", file: "/x.network")] }
        #expect(
            lines == [
                "notice mb-one-abcdef: systemd-networkd configures it, too (/x.network) "
                    + "[let /etc/systemd/network/05-martlet.network say: "
                    + "[Match] Name=mb-* mv-* mi-* [Link] Unmanaged=yes]"
            ])
    }

    @Test func otherFleetsCountAndTheFileSaysItBetter() {
        let settings = NetworkSettings(networks: [Self.network])
        let recorded = [(name: "home", settings: settings), (name: "lab", settings: settings)]
        #expect(NetworkNeeds(nil, recorded: recorded).fleets.map(\.name) == ["home", "lab"])
        #expect(NetworkNeeds(Self.fleet([]), recorded: recorded).fleets.map(\.name) == ["lab"])
        var lan = Network(name: "lan")
        lan.bridge = "br0"
        let needs = NetworkNeeds(Self.fleet([Self.network, lan]))
        let ours = Derived.bridge(fleet: "home", network: "one")
        #expect(needs.bridges(seesBridged: false).map(\.name) == [ours])
        #expect(needs.bridges(seesBridged: true).map(\.name) == [ours, "br0"])
        #expect(needs.bridges(seesBridged: true).map(\.isOurs) == [true, false])
    }
}
