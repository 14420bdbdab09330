// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux

/// What a VM can have done again and again.
package enum ScheduledWork: String, Codable, Sendable, CaseIterable {
    case snapshot, backup, verify

    /// When it is planned for a VM; nil when it is not.
    func schedule(of vm: VM) -> Schedule? {
        switch self {
        case .snapshot: vm.snapshots?.schedule
        case .backup: vm.backups?.schedule
        case .verify: vm.backups?.verify
        }
    }
}

/// How scheduled work went: ROOT/schedule.json.
struct ScheduleRecord: Codable, Equatable {
    struct Entry: Codable, Equatable {
        /// As it was declared: another schedule begins anew.
        var schedule: String
        /// Seconds since 1970 at which this schedule was first seen.
        var since: Int64
        /// When it was begun last; nil before the first time.
        var last: Int64?
        var isDone = false
        /// What it did, or why it failed.
        var detail: String?
    }

    static let version = 1
    /// After a failure it is tried again, and not more often than this many seconds.
    static let pause: Int64 = 3600
    var version = ScheduleRecord.version
    /// By VM and then by work.
    var vms: [String: [String: Entry]] = [:]

    func entry(_ vm: String, _ work: ScheduledWork) -> Entry? { vms[vm]?[work.rawValue] }
}

extension ScheduleRecord.Entry {
    /// When it is to be done next, be it in the past; nil when never.
    func next(_ schedule: Schedule) -> Int64? {
        guard let last else { return schedule.next(after: since) }
        return isDone ? schedule.next(after: last) : last + ScheduleRecord.pause
    }
}

extension Layout {
    var scheduleRecord: String { root + "/schedule.json" }
    /// Held by the one run that does what is due.
    var scheduleLock: String { root + "/schedule.lock" }
    /// Written by each run; no VM can have a name with a dot.
    var scheduleTick: String { run + "/schedule.tick" }
}

extension Store {
    func scheduleRecord() throws(StoreError) -> ScheduleRecord {
        try RecordFile.read(
            ScheduleRecord.self, from: layout.scheduleRecord, newest: ScheduleRecord.version)
            ?? ScheduleRecord()
    }
}

/// One line of `schedule list`.
package struct PlannedWork: Sendable, Equatable {
    package let vm: String
    package let work: ScheduledWork
    package let schedule: Schedule
    /// Seconds since 1970.
    package let last: Int64?
    /// Whether the last time went well; nil before the first.
    package let isDone: Bool?
    package let detail: String?
    /// When it is due; in the past when it waits for whoever runs it.
    package let next: Int64?
}
