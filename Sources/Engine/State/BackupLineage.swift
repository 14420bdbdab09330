// SPDX-License-Identifier: Apache-2.0
import Linux
import Storage

/// What the next backup of a VM can rest on: `backups.json`.
///
/// It is written when a backup has reached its target, by one rename: until then the backup before
/// is the last one.
struct BackupLineage: Codable, Equatable {
    static let version = 1
    var version = BackupLineage.version
    let target: String
    /// The last backup, and the digest of its manifest.
    let last: String
    let manifest: String
    /// How many backups the chain up to it has.
    let length: Int
    /// The disks whose bitmap begins at it, with their sizes.
    let disks: [String: Int64]
    /// Bitmaps of earlier backups that may not be removed yet; nothing may be learnt from them.
    let retired: [String]

    /// So many backups may rest on each other; then a full one begins the next chain.
    static let longest = 14

    /// The dirty bitmap that takes note of what changes after a backup.
    static func bitmap(_ id: String) -> String { "\(bitmapPrefix)\(id)" }
    static let bitmapPrefix = "martlet-"
}

extension VMLayout {
    var lineage: String { path + "/backups.json" }
}

/// What is to be done with the bitmaps found in one disk before the next backup; pure.
///
/// The rule: a bitmap is believed only when nothing can have been written that neither it nor one
/// merged into it has seen. In doubt the disk is backed up whole.
struct BitmapPlan: Equatable {
    /// The bitmap that will tell what changed since the parent; nil: the whole disk counts.
    var base: String?
    /// Those of backups that were not finished: what they saw is missing in the base.
    var merge: [String] = []
    var remove: [String] = []
    /// Whether the base has to be switched on again.
    var enable = false

    init(found: [DirtyBitmap], base wanted: String?, retired: [String]) {
        let ours = found.filter { $0.name.hasPrefix(BackupLineage.bitmapPrefix) }
        remove = ours.map(\.name).filter { retired.contains($0) }
        let counted = ours.filter { !retired.contains($0.name) }
        guard let wanted, let base = counted.first(where: { $0.name == wanted }),
            !counted.contains(where: \.isInconsistent), counted.contains(where: \.isRecording)
        else {
            remove = ours.map(\.name)
            return
        }
        self.base = wanted
        merge = counted.map(\.name).filter { $0 != wanted }
        remove += merge
        enable = !base.isRecording || !merge.isEmpty
    }

    var isEmpty: Bool { merge.isEmpty && remove.isEmpty && !enable }
}
