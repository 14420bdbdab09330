// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux

/// Why a host's network is not as a fleet needs it.
package enum NetworkError: Error, Equatable, CustomStringConvertible {
    case noBridge(network: String, name: String)
    case noParent(network: String, name: String)
    case notABridge(network: String, name: String, kind: String)
    case foreignLink(name: String, alias: String?)
    case overlap(network: String, subnet: String, link: String, route: String)
    case portTaken(vm: String, port: String, by: String)
    case noAddress(vm: String, port: String, address: String)
    case missingTool(name: String, package: String)
    case failed(what: String, reason: String)

    package var description: String {
        switch self {
        case .noBridge(let network, let name):
            "the network '\(network)' needs the bridge \(name), which this host does not have: "
                + "make it in the host's own network configuration, with the LAN's card as its port"
        case .noParent(let network, let name):
            "the network '\(network)' shares the interface \(name), which this host does not have: "
                + "'ip link' shows those that it has"
        case .notABridge(let network, let name, let kind):
            "the network '\(network)' needs the bridge \(name), but that is a \(kind)"
        case .foreignLink(let name, let alias):
            "the network interface \(name) is there already and "
                + (alias.map { "belongs to '\($0)'" } ?? "is not Martlet's")
                + ": remove it, or give the VM or the fleet another name"
        case .overlap(let network, let subnet, let link, let route):
            "the subnet \(subnet) of the network '\(network)' overlaps \(route), which this host "
                + "reaches through \(link): choose another subnet"
        case .portTaken(let vm, let port, let owner):
            "\(vm) forwards port \(port) of the host, which \(owner) has ('ss -lntup' and "
                + "'martlet networks' show whose it is): choose another one under `ports`"
        case .noAddress(let vm, let port, let address):
            "\(vm) forwards port \(port), but this host does not have the address \(address)"
        case .missingTool(let name, let package):
            "\(name) is not installed: install the Debian package \(package)"
        case .failed(let what, let reason): "\(what): \(reason)"
        }
    }
}
