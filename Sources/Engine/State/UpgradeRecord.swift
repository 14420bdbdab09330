// SPDX-License-Identifier: Apache-2.0
import Linux

/// An upgrade of one VM without a verdict: `upgrade.json`.
///
/// It is written before anything of the VM changes and removed when the verdict is known. With the
/// link `current` it says how far a killed run came.
struct UpgradeRecord: Codable, Equatable, Sendable {
    enum Stage: String, Codable, Sendable, CaseIterable {
        /// The new generation is the current one, or about to be, and was never started.
        case waiting
        /// It is started, and its health is not known yet.
        case trying
        /// It failed: the data of before is to be given back.
        case returning
        /// The data is as before; the old generation is to be the current one and to start.
        case restored
    }

    /// What is left to do, in the order of an upgrade.
    enum Step: Equatable, Sendable {
        /// Nothing: no generation was switched, or somebody has made another one current since.
        case forget
        /// Its first start is to be the trial.
        case wait
        case judge
        case giveBack
        case startOld
    }

    static let version = 1
    var version = UpgradeRecord.version
    /// The generation to go back to.
    var from: Int
    var to: Int
    /// The snapshot of the data of before; nil until it is there.
    var snapshot: String?
    /// Whether the VM is to run afterwards.
    var starts: Bool
    var startedAt: Int64
    var stage: Stage
    /// Units of the guest that had failed before; nil when that is not known.
    var failedUnits: [String]?
    /// Why the new generation failed.
    var failure: String?

    /// What is left of an upgrade when this generation is the current one; pure.
    func step(current: Int?) -> Step {
        switch stage {
        // All between the two were made while this one waited.
        case .waiting: from < current ?? 0 && current ?? 0 <= to ? .wait : .forget
        case .trying: current == to ? .judge : .forget
        case .returning: current == to || current == from ? .giveBack : .forget
        case .restored: current == to || current == from ? .startOld : .forget
        }
    }
}

extension VMLayout {
    var upgradeRecord: String { path + "/upgrade.json" }
}

extension Store {
    func upgradeRecord(_ name: String) throws(StoreError) -> UpgradeRecord? {
        try RecordFile.read(
            UpgradeRecord.self, from: layout.vm(name).upgradeRecord,
            newest: UpgradeRecord.version)
    }

    func write(_ record: UpgradeRecord, _ name: String) throws {
        try RecordFile.write(record, to: layout.vm(name).upgradeRecord)
    }

    func removeUpgradeRecord(_ name: String) throws {
        try Files.remove(layout.vm(name).upgradeRecord)
    }
}
