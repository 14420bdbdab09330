// SPDX-License-Identifier: Apache-2.0
import Fleets
import Networking

/// What the fleets at hand ask of a host's network: that of the file in use, and those below ROOT.
struct NetworkNeeds {
    let fleets: [(name: String, settings: NetworkSettings)]
    /// Whether a VM of the file has a limit of its traffic.
    let hasLimits: Bool

    /// `recorded` are the networks of fleets as they were applied last; the file says it better.
    init(_ fleet: Fleet?, recorded: [(name: String, settings: NetworkSettings)] = []) {
        let ours = fleet.map { [(name: $0.name, settings: $0.networkSettings)] } ?? []
        fleets = (ours + recorded.filter { $0.name != fleet?.name }).filter {
            !$0.settings.networks.isEmpty
        }
        hasLimits = fleet?.vms.contains { $0.limits.network != nil && $0.isOnNetwork } ?? false
    }

    var isAny: Bool { !fleets.isEmpty }
    var networks: [Network] { fleets.flatMap(\.settings.networks) }
    var hasNAT: Bool { networks.contains { $0.kind == .nat } }
    var hasIPv6: Bool { networks.contains { $0.kind == .nat && $0.ipv6 } }

    /// The bridges whose packets a firewall of others may see.
    ///
    /// What passes between the ports of a bridge is seen where the kernel is told to show it.
    func bridges(seesBridged: Bool) -> [ForeignFirewall.Bridge] {
        var all: [ForeignFirewall.Bridge] = []
        for (fleet, settings) in fleets {
            for network in settings.networks {
                switch network.kind {
                case .nat:
                    all.append(
                        .init(
                            name: Derived.bridge(fleet: fleet, network: network.name),
                            subnet: network.subnet, hasIPv6: network.ipv6))
                case .bridge:
                    guard let name = network.bridge, seesBridged,
                        !all.contains(where: { $0.name == name })
                    else { continue }
                    all.append(.init(name: name, subnet: nil, isOurs: false))
                case .macvtap: continue
                }
            }
        }
        return all
    }

    /// Whether a network, or a VM, that is declared cannot be without it.
    func needs(_ feature: KernelFeature) -> Bool {
        let isOnBridges = networks.contains { $0.kind != .macvtap }
        return switch feature {
        case .nftables, .sets, .connections, .rates, .frames, .rules, .translation, .local, .flows:
            isAny
        case .bridges, .taps: isOnBridges
        case .macvtaps: networks.contains { $0.kind == .macvtap }
        case .queues, .ifb, .turning: hasLimits
        case .ipv6: hasIPv6
        }
    }
}
