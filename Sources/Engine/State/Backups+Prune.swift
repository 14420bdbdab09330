// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux
package import Storage

/// Which backups go, and which stay; pure.
package struct BackupPruning: Equatable, Sendable {
    package let remove: [String]

    /// Keeps what the retention keeps, all that those rest on, and the newest whole chain.
    package init(_ backups: [BackupRecord], keep: Retention, now: Int64) {
        let byID = Dictionary(backups.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        var kept: Set<String> = []
        /// A backup with all that it rests on; nil when something of that is missing.
        func line(_ backup: BackupRecord) -> [String]? {
            var line = [backup.id]
            var next = backup
            while let parent = next.parent {
                guard let found = byID[parent], !line.contains(parent) else { return nil }
                line.append(parent)
                next = found
            }
            return line
        }
        let sorted = backups.sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }
        if let newest = sorted.last(where: { $0.kind != nil && line($0) != nil }) {
            kept.formUnion(line(newest) ?? [])
        }
        for backup in sorted where backup.kind == nil {
            // What an encrypted archive rests on is not known without its record: it stays, and
            // so does what it may rest on.
            kept.formUnion(sorted.filter { $0.createdAt <= backup.createdAt }.map(\.id))
        }
        for backup in keep.retained(sorted, at: \.createdAt, now: now) {
            kept.formUnion(line(backup) ?? [backup.id])
        }
        // Children first: a kill between two leaves no backup without its parent.
        remove = sorted.reversed().map(\.id).filter { !kept.contains($0) }
    }
}

extension Engine {
    /// Removes the backups that a VM's retention does not keep, and what killed runs left in the
    /// target; returns the names of those that went.
    package func pruneBackups(
        _ name: String, in target: any BackupTarget, keep: Retention, now: Int64 = Clock.now()
    ) async throws -> [String] {
        // A VM that is gone has nobody who makes backups, and must not get a folder by this.
        guard Files.exists(layout.vm(name).path) else {
            return try await prune(name, target, keep, now)
        }
        return try await changing(name) { _ in try await prune(name, target, keep, now) }
    }

    private func prune(
        _ name: String, _ target: any BackupTarget, _ keep: Retention, _ now: Int64
    ) async throws -> [String] {
        let backups = try await target.list(name)
        let pruning = BackupPruning(backups, keep: keep, now: now)
        for id in pruning.remove {
            guard let record = backups.first(where: { $0.id == id }) else { continue }
            reporter.working(name, "removing \(id)")
            try await target.remove(record)
            Checkpoint.pass()
        }
        _ = try target.removeLeftovers(name, olderThan: now - 86400)
        return pruning.remove.reversed()
    }
}
