// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// The host's own readiness to pass packets on.
package enum Forwarding {
    private static let all4 = "net/ipv4/ip_forward"
    private static let all6 = "net/ipv6/conf/all/forwarding"

    package static var isOn4: Bool { (try? Sysctl.read(all4)) == "1" }
    package static var isOn6: Bool { (try? Sysctl.read(all6)) == "1" }

    /// Switches forwarding on where a network needs it and the host has it off.
    ///
    /// It stays on: whether somebody else needs it by now cannot be known.
    static func open(for networks: FleetNetworks) throws(SystemError) {
        let routed = networks.segments.filter { $0.kind == .nat }
        if !routed.isEmpty, !isOn4 { try Sysctl.write(all4, "1") }
        if routed.contains(where: { $0.network.ipv6 }), !isOn6 {
            try keepRouterAdvertisements(besides: routed.map(\.link))
            try Sysctl.write(all6, "1")
        }
    }

    /// A host that forwards ignores router advertisements, and so would lose its own way out, unless
    /// it is told to heed them all the same.
    private static func keepRouterAdvertisements(besides ours: [String]) throws(SystemError) {
        let socket = try RouteSocket()
        for link in try socket.links() where !ours.contains(link.name) {
            let setting = "net/ipv6/conf/\(link.name)/accept_ra"
            if (try? Sysctl.read(setting)) == "1" { try Sysctl.write(setting, "2") }
        }
    }
}
