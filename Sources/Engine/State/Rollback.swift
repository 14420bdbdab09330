// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Images
import Linux
import Planning

/// One generation of a VM as people see it.
package struct GenerationView: Sendable {
    package let number: Int
    package let appliedAt: Int64
    package let vm: VM
    package let imageDigest: String
    /// What differs from the generation before it; empty for the first that is kept.
    package let changes: [FieldChange]
    /// The next start uses it.
    package let isCurrent: Bool
    package let isRunning: Bool
    /// `rollback` holds the VM on it.
    package let isPinned: Bool
    /// Whether its image is still here.
    package let hasImage: Bool
    /// Why its image failed on this VM.
    package let failure: String?
}

extension Engine {
    /// The generations of a VM that are kept, oldest first, and a sentence for each that cannot be read.
    package func generationViews(_ name: String) async throws -> ([GenerationView], [String]) {
        let report = await observer.observe(name).vm
        let memory = (try? store.imageMemory(name)) ?? ImageMemory()
        var views: [GenerationView] = []
        var problems: [String] = []
        for number in try store.generations(name) {
            let record: GenerationRecord
            do {
                guard let found = try store.generation(name, number) else { continue }
                record = found
            } catch {
                problems.append(error.description)
                continue
            }
            let isCurrent = report.applied?.number == number
            views.append(
                GenerationView(
                    number: number, appliedAt: record.appliedAt, vm: record.vm,
                    imageDigest: record.imageDigest, changes: changes(of: record, from: views.last),
                    isCurrent: isCurrent, isRunning: report.running?.number == number,
                    isPinned: isCurrent && memory.pinned == record.imageDigest,
                    hasImage: (try? images.resolve(record.imageDigest)) ?? nil != nil,
                    failure: memory.failed[record.imageDigest]))
        }
        return (views, problems)
    }

    private func changes(
        of record: GenerationRecord, from before: GenerationView?
    ) -> [FieldChange] {
        guard let before else { return [] }
        var changes = record.vm.differences(from: before.vm).filter { $0.field != "image" }
        if record.imageDigest != before.imageDigest {
            changes.insert(
                FieldChange(
                    field: "image", from: short(before.imageDigest),
                    to: short(record.imageDigest)), at: 0)
        }
        return changes
    }

    /// Returns a VM to the configuration and the image of an earlier generation: that of this
    /// number, or the newest one before the current one that has not failed.
    ///
    /// Its data stays as it is, and is kept in a snapshot first. The image is held until the next
    /// `upgrade`.
    package func rollback(_ name: String, to number: Int?) async throws -> String {
        try await publishing(name) { try await rollBack(name, to: number) }
    }

    private func rollBack(_ name: String, to number: Int?) async throws -> String {
        try await changing(name) { files in
            let starts = try await settleUpgrade(name, files)
            let report = await observer.observe(name).vm
            guard report.phase != .suspended else { throw UpgradeError.suspended(vm: name) }
            let target = try target(of: name, number)
            if report.applied?.number == target.number,
                report.running.map({ $0.number == target.number }) ?? true
            {
                return "is on generation \(target.number) already"
            }
            // Its system is on its own disk, and fits to the image that it was made of.
            if let now = report.applied, now.vm.mode == .mutable,
                now.imageDigest != target.imageDigest
            {
                throw UpgradeError.mutable(vm: name)
            }
            guard let image = try? images.resolve(target.imageDigest) else {
                throw UpgradeError.imageGone(
                    vm: name, generation: target.number, digest: target.imageDigest)
            }
            _ = try await halt(name, files)
            reporter.working(name, "taking a snapshot")
            let snapshot: String
            do {
                snapshot = try await takeSnapshot(name, as: nil, reason: .upgrade, files).name
            } catch {
                if isInterruption(error) { throw error }
                if report.phase.isLive { _ = try await launch(name, files) }
                throw UpgradeError.notTried(
                    vm: name, generation: report.applied?.number ?? 0, reason: sentence(error))
            }
            Checkpoint.pass()
            try store.changeImageMemory(name) { $0.pinned = target.imageDigest }
            try store.removeUpgradeRecord(name)
            Checkpoint.pass()
            let now = try restore(target, over: report.applied?.vm)
            Checkpoint.pass()
            let detail =
                "is on generation \(now) again, with the image \(short(image.digest)), which is "
                + "held until 'martlet upgrade \(name)'; its data is as it was (snapshot "
                + "'\(snapshot)')"
            guard report.phase.isLive || starts else { return detail + "; it does not run" }
            do {
                _ = try await launch(name, files)
                try await awaitVerdict(name, known: nil)
            } catch {
                if isInterruption(error) { throw error }
                throw UpgradeError.unwell(
                    vm: name, generation: now, reason: sentence(error), snapshot: snapshot)
            }
            return detail
        }
    }

    private func target(of name: String, _ number: Int?) throws -> GenerationRecord {
        let known = try store.generations(name)
        if let number {
            guard known.contains(number), let record = try store.generation(name, number) else {
                throw UpgradeError.noGeneration(vm: name, number: number, known: known)
            }
            return record
        }
        let current = try store.currentNumber(name) ?? 0
        let failed = (try? store.imageMemory(name))?.failed ?? [:]
        for number in known.reversed() where number < current {
            // One that cannot be read is none to return to; naming it says why.
            guard let record = try? store.generation(name, number) else { continue }
            if failed[record.imageDigest] == nil { return record }
        }
        throw UpgradeError.noEarlier(vm: name)
    }

    /// Makes an old generation the current one, and returns its number.
    ///
    /// Disks have grown since and cannot shrink: then it is a new generation, with their sizes.
    private func restore(_ target: GenerationRecord, over current: VM?) throws -> Int {
        var vm = target.vm
        if let current {
            vm.disk = max(vm.disk, current.disk)
            for index in vm.volumes.indices {
                let now = current.volumes.first { $0.name == vm.volumes[index].name }
                if let size = now?.size, let old = vm.volumes[index].size {
                    vm.volumes[index].size = max(old, size)
                }
            }
        }
        if vm != target.vm { return try store.add(vm, imageDigest: target.imageDigest).number }
        try store.makeCurrent(vm.name, target.number)
        return target.number
    }
}
