// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux

/// What a fleet says of networks, as `up` applied it: `networks/FLEET.json`.
struct NetworkRecord: Codable, Equatable {
    static let version = 1
    var version = NetworkRecord.version
    var settings: NetworkSettings
    /// The routes that we announced: what is not among them is somebody else's.
    var advertised: [String] = []
}

extension Layout {
    package var networks: String { root + "/networks" }
    func networkRecord(_ fleet: String) -> String { "\(networks)/\(fleet).json" }
    /// Held while a fleet's links and rules are changed.
    func networkLock(_ fleet: String) -> String { "\(networks)/\(fleet).lock" }
    /// The running parts of a fleet's networks; no VM can have a name with a dot.
    func networkRun(_ fleet: String) -> String { "\(run)/.networks/\(fleet)" }
}

extension VMLayout {
    /// The VM as its interfaces on networks were made for it; there while it runs.
    var attachment: String { run + "/network.json" }
    /// The addresses that it was given, by network.
    var addresses: String { identity + "/addresses.json" }
}

extension Store {
    func networkRecord(_ fleet: String) throws(StoreError) -> NetworkRecord? {
        try RecordFile.read(
            NetworkRecord.self, from: layout.networkRecord(fleet), newest: NetworkRecord.version)
    }

    /// What a fleet's networks are, as they were applied last.
    package func networkSettings(_ fleet: String) throws(StoreError) -> NetworkSettings {
        try networkRecord(fleet)?.settings ?? NetworkSettings()
    }

    /// The addresses that the VMs of a fleet were given, those of absent ones too.
    package func keptAddresses(of fleet: String) throws(StoreError) -> KeptAddresses {
        var kept: KeptAddresses = [:]
        for name in try names().vms {
            guard (try? record(name))??.fleet ?? fleet == fleet else { continue }
            // A file that cannot be read costs its VM the address, and nothing else.
            if let addresses = try? RecordFile.plain(
                [String: IPv4].self, from: layout.vm(name).addresses)
            {
                kept[name] = addresses
            }
        }
        return kept
    }
}
