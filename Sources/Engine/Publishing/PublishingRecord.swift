// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux

/// What a fleet publishes, as `up` applied it: `publishing/fleets/FLEET.json`.
struct PublishingRecord: Codable, Equatable {
    static let version = 1
    var version = PublishingRecord.version
    var settings: Publishing
    /// The VMs that it declares; one that it does not declare any more has no names either.
    var vms: [String]
    /// The host names that are this fleet's, in lower case: another one cannot have them.
    var hosts: [String]
    /// Whether `down` took the sites away until the next `up` or `start`.
    var isDown = false
}

extension Layout {
    package var publishing: String { root + "/publishing" }
    var publishingFleets: String { publishing + "/fleets" }
    func publishingRecord(_ fleet: String) -> String { "\(publishingFleets)/\(fleet).json" }
    /// Held while the reverse proxy is changed.
    var publishingLock: String { publishing + "/lock" }
    /// The running part; no VM can have a name with a dot.
    var publishingRun: String { run + "/.publishing" }
}

extension Store {
    func publishingRecord(_ fleet: String) throws(StoreError) -> PublishingRecord? {
        try RecordFile.read(
            PublishingRecord.self, from: layout.publishingRecord(fleet),
            newest: PublishingRecord.version)
    }

    /// The fleets that have published something.
    func publishingFleets() throws -> [String] {
        try Files.list(layout.publishingFleets).filter { $0.hasSuffix(".json") }.map {
            String($0.dropLast(5))
        }
    }

    /// What a fleet says of publishing, as it was applied last; nil for one that never published.
    package func publishingSettings(_ fleet: String) throws(StoreError) -> Publishing? {
        try publishingRecord(fleet)?.settings
    }
}
