// SPDX-License-Identifier: Apache-2.0
import Fleets

extension Owner {
    /// The name of the fleet's section in the host's hosts file.
    package var section: String { "\(fleet)/\(root)" }
}

extension FleetNetworks {
    /// The names of VMs for the host's hosts file, as the network's own server gives them to guests.
    package var hostEntries: [HostsFile.Entry] {
        segments.flatMap { segment in
            segment.ports.flatMap { port in
                segment.addresses(of: port).map {
                    ($0, ["\(port.vm).\(segment.network.name).internal"])
                }
            }
        }
    }
}
