// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Images
import Linux
import Planning

/// What restoring a snapshot in place did.
package struct Restored: Sendable {
    package let snapshot: SnapshotRecord
    /// The snapshot of what was replaced.
    package let safety: SnapshotRecord
    /// How the guest was stopped; nil when it did not run.
    package let stopped: Stopped?
    /// How long it took to come up again; nil when it did not run before.
    package let seconds: Double?
    /// Whether it is on another image now, and stays there until its next upgrade.
    package let isPinned: Bool
    /// Whether it was suspended, and its memory had to be dropped.
    package let hasLostMemory: Bool
}

extension Engine {
    package func createSnapshot(
        _ name: String, as wanted: String? = nil, reason: SnapshotRecord.Reason = .manual
    ) async throws -> SnapshotRecord {
        try await changing(name) { files in
            try refuseHalfRestored(files)
            return try await takeSnapshot(name, as: wanted, reason: reason, files)
        }
    }

    package func deleteSnapshot(_ name: String, _ snapshot: String) async throws {
        try await changing(name) { files in
            try await removeSnapshot(name, try self.snapshot(name, snapshot), files)
        }
    }

    /// Goes back to a snapshot: stops the VM if it runs, and starts it again if it ran.
    package func restoreSnapshot(_ name: String, _ snapshot: String) async throws -> Restored {
        try await changing(name) { files in
            try await goBack(name, to: try self.snapshot(name, snapshot), files)
        }
    }

    /// The same for who holds the change lock.
    func goBack(
        _ name: String, to record: SnapshotRecord, _ files: VMLayout
    ) async throws -> Restored {
        // All that can be known before comes before the stop.
        let digest = record.generation.imageDigest
        guard try images.resolve(digest) != nil else {
            throw SnapshotError.missingImage(vm: name, snapshot: record.name, digest: digest)
        }
        try await checkParts(of: record, files)
        let before = try store.current(name)
        let wasSuspended = files.suspended.contains(where: Files.exists)
        let wasLive = await observer.observe(name).vm.phase.isLive
        let stopped = wasLive ? try await halt(name, files) : nil
        let safety: SnapshotRecord
        do {
            safety = try await restoreDisks(name, from: record, takesGeneration: true, files)
        } catch let error as SnapshotError {
            if case .halfRestored = error { throw error }
            throw await startingAgain(name, after: error, wasLive, files)
        } catch {
            throw await startingAgain(name, after: error, wasLive, files)
        }
        try await makeLasting(name)
        let seconds = wasLive ? try await launch(name, files) : nil
        return Restored(
            snapshot: record, safety: safety, stopped: stopped, seconds: seconds,
            isPinned: before?.imageDigest != digest, hasLostMemory: wasSuspended)
    }

    /// The disks are as they were, and so is the VM to be.
    private func startingAgain(
        _ name: String, after error: any Error, _ wasLive: Bool, _ files: VMLayout
    ) async -> any Error {
        guard wasLive else { return error }
        do {
            _ = try await launch(name, files)
            return error
        } catch let second {
            return SnapshotError.failed(
                "\(sentence(error)); its disks are as they were, but it did not start again: "
                    + sentence(second))
        }
    }
}

extension Engine {
    /// Removes the scheduled snapshots of a VM that its retention does not keep, and returns their
    /// names, oldest first.
    ///
    /// Those made by hand, by an upgrade or by a restore are never removed.
    package func pruneSnapshots(
        _ name: String, keep: Retention, now: Int64 = Clock.now()
    ) async throws -> [String] {
        try await changing(name) { files in
            let scheduled = try snapshots(name).filter { $0.reason == .schedule }
            let kept = keep.retained(scheduled, at: \.createdAt, now: now).map(\.name)
            let gone = scheduled.filter { !kept.contains($0.name) }
            for record in gone { try await removeSnapshot(name, record, files) }
            return gone.map(\.name)
        }
    }
}
