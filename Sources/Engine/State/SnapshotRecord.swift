// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux

/// A snapshot: what a VM's disks held at one moment, and the configuration and image it had then.
///
/// It is `snapshots/NAME.json`, and exists exactly as long as that file does.
package struct SnapshotRecord: Codable, Equatable, Sendable {
    static let version = 1
    package var version = SnapshotRecord.version
    package let name: String
    /// Seconds since 1970.
    package let createdAt: Int64
    /// Counts a VM's snapshots: it tells which of one second is the older one.
    let ordinal: Int
    package let reason: Reason
    package internal(set) var consistency: Consistency
    /// Why it is not better than `crash`.
    package internal(set) var why: String?
    /// The configuration that the guest ran, or would have been started, with.
    package let generation: GenerationRecord
    package internal(set) var disks: [DiskPart]
    /// What belongs to the VM and is not part of the snapshot, each with the reason.
    package internal(set) var leftOut: [String]

    package enum Reason: String, Codable, Sendable { case manual, schedule, upgrade, restore }

    package enum Consistency: String, Codable, Sendable {
        /// The guest's file systems were frozen: all that was written is there, whole.
        case frozen
        /// The guest had shut down.
        case stopped
        /// As after a power cut.
        case crash
    }

    /// One disk of it.
    package struct DiskPart: Codable, Equatable, Sendable {
        /// The disk's name, such as `data`.
        package let name: String
        package let format: Format
        package internal(set) var mechanism: Mechanism
        /// The tag inside the qcow2 file or of the ZFS snapshot, or the file in `snapshots/NAME/`.
        package internal(set) var place: String
        /// Bytes that the disk took on the host at that time.
        ///
        /// What of it the snapshot alone keeps grows as the disk changes, and no mechanism can tell.
        package let bytes: Int64

        package enum Format: String, Codable, Sendable { case qcow2, raw, device }
        package enum Mechanism: String, Codable, Sendable {
            /// Inside the qcow2 file.
            case `internal`
            /// A file that shares its blocks with the disk.
            case reflink
            /// A whole copy.
            case copy
            case zfs
            /// Reserved for a subvolume of its own; files on btrfs are `reflink`.
            case btrfs
        }
    }

    /// Bytes that its disks took on the host at that time.
    package var bytes: Int64 { disks.reduce(0) { $0 + $1.bytes } }
    /// Its name inside qcow2 files and in ZFS.
    var tag: String { SnapshotRecord.tag(name) }

    static func tag(_ name: String) -> String { "martlet-\(name)" }
    static let tagPrefix = "martlet-"
}

/// Why a snapshot cannot be made, restored or removed.
package enum SnapshotError: Error, Equatable, CustomStringConvertible {
    case badName(String)
    case exists(vm: String, snapshot: String)
    case unknown(vm: String, snapshot: String, known: [String])
    /// The VM is between two states.
    case busy(vm: String, phase: String)
    case nothing(vm: String)
    /// The guest ran on while its disks were read.
    case notHeld(vm: String, reason: String)
    case lost(vm: String, snapshot: String, disk: String, why: String)
    case missingImage(vm: String, snapshot: String, digest: String)
    /// Restoring failed, and going back to what was there did too.
    case halfRestored(vm: String, reason: String, safety: String)
    case failed(String)

    package var description: String {
        switch self {
        case .badName(let name):
            "'\(name)' is no name for a snapshot: it takes a-z, 0-9 and inner '-', at most 63 "
                + "characters"
        case .exists(let vm, let snapshot):
            "\(vm) has a snapshot '\(snapshot)' already: give another name, or remove that one "
                + "with 'martlet snapshot remove \(vm) \(snapshot)'"
        case .unknown(let vm, let snapshot, let known):
            "\(vm) has no snapshot '\(snapshot)'"
                + (known.isEmpty ? ": it has none" : "; it has \(known.joined(separator: ", "))")
        case .busy(let vm, let phase): "\(vm) is \(phase): try again when it is up, or stopped"
        case .nothing(let vm): "\(vm) has no disk that a snapshot could hold"
        case .notHeld(let vm, let reason):
            "\(vm) could not be held still while its disks were read: \(reason); nothing was kept"
        case .lost(let vm, let snapshot, let disk, let why):
            "the snapshot '\(snapshot)' of \(vm) cannot be restored: of its disk '\(disk)' \(why)"
        case .missingImage(let vm, let snapshot, let digest):
            "the snapshot '\(snapshot)' of \(vm) needs the image \(digest.prefix(12)), which is "
                + "gone: build or import it, then restore again"
        case .halfRestored(let vm, let reason, let safety):
            "\(vm) could not be restored, nor put back: \(reason). Its disks are a mixture, and it "
                + "will not be started. What it held before is in the snapshot '\(safety)'; the "
                + "next command for \(vm) tries again"
        case .failed(let text): text
        }
    }
}

extension VMLayout {
    package var snapshots: String { path + "/snapshots" }
    package func snapshot(_ name: String) -> String { "\(snapshots)/\(name).json" }
    /// Files that belong to a snapshot.
    package func snapshotFiles(_ name: String) -> String { "\(snapshots)/\(name)" }
    /// A snapshot that is being made or removed: what there is of it is garbage.
    func pendingSnapshot(_ name: String) -> String { snapshot(name) + ".pending" }
    /// A restore that has begun to write.
    var restoreJournal: String { snapshots + "/restore.journal" }
    /// Memory of a suspended VM, which knows what its disks held then.
    var suspended: [String] { [suspendRecord] + savedMemories }
    /// Where memory may lie, the place of today first.
    var savedMemories: [String] { [memory, earlierMemory] }
}

extension Engine {
    /// All snapshots of a VM, oldest first.
    package func snapshots(_ name: String) throws -> [SnapshotRecord] {
        let files = layout.vm(name)
        let names = try Files.list(files.snapshots).filter { $0.hasSuffix(".json") }
        return try names.compactMap { file in
            try RecordFile.read(
                SnapshotRecord.self, from: "\(files.snapshots)/\(file)",
                newest: SnapshotRecord.version)
        }.sorted { ($0.createdAt, $0.ordinal) < ($1.createdAt, $1.ordinal) }
    }

    /// The count of the next one.
    func nextSnapshot(_ name: String) throws -> Int {
        (try snapshots(name).map(\.ordinal).max() ?? 0) + 1
    }

    /// One snapshot by its name.
    package func snapshot(_ name: String, _ snapshot: String) throws -> SnapshotRecord {
        let all = try snapshots(name)
        guard let record = all.first(where: { $0.name == snapshot }) else {
            throw SnapshotError.unknown(
                vm: name, snapshot: snapshot, known: all.map(\.name))
        }
        return record
    }

    /// A name that is free: the given one, or that of the time.
    func snapshotName(_ wanted: String?, at time: Int64, _ files: VMLayout) throws -> String {
        func isTaken(_ name: String) -> Bool {
            Files.exists(files.snapshot(name)) || Files.exists(files.pendingSnapshot(name))
        }
        if let wanted {
            guard isVMName(wanted), !wanted.hasPrefix("-"), !wanted.hasSuffix("-") else {
                throw SnapshotError.badName(wanted)
            }
            if isTaken(wanted) { throw SnapshotError.exists(vm: files.name, snapshot: wanted) }
            return wanted
        }
        let digits = Clock.iso8601(time).filter(\.isNumber)
        let base = "\(digits.prefix(8))-\(digits.dropFirst(8))"
        if !isTaken(base) { return base }
        return (2...).lazy.map { "\(base)-\($0)" }.first { !isTaken($0) } ?? base
    }
}
