// SPDX-License-Identifier: Apache-2.0
package import Fleets
package import Images
import Linux
import Planning
import Supervisor

/// A start, and what it was.
struct Started: Sendable {
    let bootSeconds: Double
    /// Nanoseconds of the monotonic clock at which the guest was up.
    let readyAt: UInt64
    /// The snapshot of the data of before, where it was the first start of another image.
    var snapshot: String?
}

extension Engine {
    /// Moves one VM to an image that is built, and back again when it does not come up.
    ///
    /// What `rollback` and earlier failures say against the image counts no more.
    package func upgrade(
        _ name: String, to image: ImageReference, digest: String
    ) async throws -> String {
        try await publishing(name) { try await moveOn(name, to: image, digest: digest) }
    }

    private func moveOn(
        _ name: String, to image: ImageReference, digest: String
    ) async throws -> String {
        try await changing(name) { files in
            let starts = try await settleUpgrade(name, files)
            guard let current = try store.current(name) else {
                throw LifecycleError.notCreated(name)
            }
            guard current.vm.mode != .mutable else { throw UpgradeError.mutable(vm: name) }
            let phase = await observer.observe(name).vm.phase
            guard phase != .suspended else { throw UpgradeError.suspended(vm: name) }
            try store.changeImageMemory(name) { memory in
                memory.pinned = nil
                memory.failed[digest] = nil
            }
            Checkpoint.pass()
            var vm = current.vm
            vm.image = image
            if phase.isLive || starts {
                return try await changeImage(vm, fleet: nil, digest: digest, files)
            }
            if current.imageDigest == digest { return "has the newest image already" }
            try await declare(vm, fleet: nil, digest: digest, files)
            let number = try store.currentNumber(name) ?? 0
            return "has generation \(number) with the image \(short(digest)); it does not run, "
                + "so nothing is proved yet: its first start decides whether that stays"
        }
    }

    /// Gives a VM its next generation on another image, starts it, and goes back when it fails.
    func changeImage(
        _ vm: VM, fleet: String?, digest: String, _ files: VMLayout
    ) async throws -> String {
        let name = vm.name
        let before = await observer.observe(name).vm
        let old = (before.running ?? before.applied)?.imageDigest
        let isApplied = before.applied?.vm == vm && before.applied?.imageDigest == digest
        if isApplied, let running = before.running, running.number == before.applied?.number {
            return "has the newest image already"
        }
        try await declare(vm, fleet: fleet, digest: digest, files)
        if var record = try store.upgradeRecord(name) {
            record.starts = true
            try store.write(record, name)
        }
        Checkpoint.pass()
        let began = Clock.monotonic()
        _ = try await halt(name, files)
        let started = try await bringUp(name, files)
        guard let old, old != digest, let snapshot = started.snapshot else {
            return "restarted, up after \(tenths(started.bootSeconds)) s"
        }
        let down = before.phase.isLive ? started.readyAt - began : 0
        let number = try store.currentNumber(name) ?? 0
        return "upgraded from \(short(old)) to \(short(digest)), generation \(number)"
            + (down > 0 ? ", down for \(tenths(Double(down) / 1e9)) s" : "")
            + "; the data of before is the snapshot '\(snapshot)'"
    }

    /// Writes down that the next generation has another image, which is yet to prove itself.
    func noteUpgrade(of current: GenerationRecord, digest: String) async throws {
        let name = current.vm.name
        let next = try store.nextNumber(name)
        if var record = try store.upgradeRecord(name),
            record.step(current: current.number) == .wait
        {
            let isBack = try store.generation(name, record.from)?.imageDigest == digest
            if isBack { return try store.removeUpgradeRecord(name) }
            record.to = next
            return try store.write(record, name)
        }
        let report = await observer.observe(name)
        let old = report.vm.running ?? ObservedVM.Generation(current)
        guard digest != old.imageDigest else { return }
        let status = report.observation.status
        try store.write(
            UpgradeRecord(
                from: old.number, to: next, starts: false, startedAt: Clock.now(),
                stage: .waiting,
                failedUnits: status?.guestState == nil ? nil : status?.failedUnits), name)
        Checkpoint.pass()
    }

    /// Starts a VM as it was applied.
    ///
    /// The first start of another image is its trial: the data is kept before, and when it does not
    /// come up all is as before.
    func bringUp(_ name: String, _ files: VMLayout) async throws -> Started {
        guard var record = try store.upgradeRecord(name),
            record.step(current: try store.currentNumber(name)) == .wait,
            await !observer.observe(name).vm.phase.isLive
        else {
            let seconds = try await launch(name, files)
            return Started(bootSeconds: seconds, readyAt: Clock.monotonic())
        }
        record.to = try store.currentNumber(name) ?? record.to
        do {
            // The snapshot is one of the old generation, which it is to be restored with.
            try store.makeCurrent(name, record.from)
            Checkpoint.pass()
            reporter.working(name, "taking a snapshot")
            record.snapshot =
                try await takeSnapshot(name, as: nil, reason: .upgrade, files).name
        } catch {
            throw try await declined(record, name, files, because: error)
        }
        Checkpoint.pass()
        record.stage = .trying
        record.starts = true
        try store.write(record, name)
        Checkpoint.pass()
        try store.makeCurrent(name, record.to)
        Checkpoint.pass()
        return try await tryOut(record, name, files)
    }

    /// Without a snapshot nothing is tried: the old generation is the current one again.
    private func declined(
        _ record: UpgradeRecord, _ name: String, _ files: VMLayout, because error: any Error
    ) async throws -> any Error {
        if isInterruption(error) { return error }
        try store.removeUpgradeRecord(name)
        if record.starts { _ = try await launch(name, files) }
        return UpgradeError.notTried(
            vm: name, generation: record.from, reason: sentence(error))
    }

    /// Starts the new generation and waits for its verdict.
    func tryOut(
        _ record: UpgradeRecord, _ name: String, _ files: VMLayout
    ) async throws -> Started {
        let digest = try store.generation(name, record.to)?.imageDigest ?? ""
        let started: Started
        do {
            let seconds = try await launch(name, files)
            started = Started(
                bootSeconds: seconds, readyAt: Clock.monotonic(), snapshot: record.snapshot)
            Checkpoint.pass()
            try await awaitVerdict(name, known: record.failedUnits)
        } catch {
            if isInterruption(error) { throw error }
            var record = record
            record.stage = .returning
            record.failure = reason(error)
            if isGuests(error) {
                try store.changeImageMemory(name) { $0.failed[digest] = reason(error) }
                Checkpoint.pass()
            }
            try store.write(record, name)
            Checkpoint.pass()
            throw try await goBack(record, name, files)
        }
        try store.changeImageMemory(name) { $0.failed[digest] = nil }
        try store.removeUpgradeRecord(name)
        Checkpoint.pass()
        return started
    }

    /// Whether it is the guest that failed, and not its host: only then the image is to blame.
    private func isGuests(_ error: any Error) -> Bool {
        switch error as? LifecycleError {
        case .failed, .timeout: true
        default: false
        }
    }

    private func reason(_ error: any Error) -> String {
        if case .failed(_, let reason)? = error as? LifecycleError { return reason }
        return sentence(error)
    }

    /// Whether somebody wants us to end: then there is no verdict, and the next run finds one.
    func isInterruption(_ error: any Error) -> Bool {
        error is CancellationError || Task.isCancelled
    }

    /// What became of the packages between two images; nil when one of them is not here any more.
    package func packageChanges(from old: String, to new: String) -> [PackageChange]? {
        guard let old = try? images.resolve(old), let new = try? images.resolve(new) else {
            return nil
        }
        return old.changes(to: new)
    }
}
