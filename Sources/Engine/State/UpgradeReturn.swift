// SPDX-License-Identifier: Apache-2.0
import Linux
import Planning

/// Going back, and finishing what a killed run left.
extension Engine {
    /// Finishes what a killed run left of an upgrade; the change lock is held.
    ///
    /// Returns whether the VM is to run because it ran before; throws when the verdict is that the
    /// new generation failed, with all as it was before the upgrade.
    func settleUpgrade(_ name: String, _ files: VMLayout) async throws -> Bool {
        guard let record = try readableUpgrade(name, files) else { return false }
        let report = await observer.observe(name).vm
        let step = record.step(current: try store.currentNumber(name))
        switch step {
        case .wait: return record.starts && !report.phase.isLive
        case .forget:
            try store.removeUpgradeRecord(name)
            return record.starts && !report.phase.isLive
        case .judge:
            reporter.working(name, "finishing an upgrade that was interrupted")
            _ = try await tryOut(record, name, files)
            return false
        case .giveBack, .startOld:
            throw try await goBack(record, name, files)
        }
    }

    /// A record that is damaged says nothing, and must not keep a VM from being started.
    private func readableUpgrade(_ name: String, _ files: VMLayout) throws -> UpgradeRecord? {
        do {
            return try store.upgradeRecord(name)
        } catch .unreadable(let path, let reason) {
            let target = try store.quarantine(files.upgradeRecord)
            reporter.warning("\(path) cannot be read (\(reason)): it is now \(target)")
            return nil
        }
    }

    /// Forgets an upgrade whose data is about to be lost on purpose.
    func abandonUpgrade(_ name: String) throws {
        guard let record = try? store.upgradeRecord(name) else { return }
        switch record.step(current: try store.currentNumber(name)) {
        case .giveBack, .startOld: try store.makeCurrent(name, record.from)
        case .forget, .wait, .judge: break
        }
        try store.removeUpgradeRecord(name)
    }

    /// Makes all as it was before an upgrade that failed, and returns what to report.
    func goBack(
        _ record: UpgradeRecord, _ name: String, _ files: VMLayout
    ) async throws -> UpgradeError {
        var record = record
        var back = UpgradeError.Return(
            vm: name, digest: try store.generation(name, record.to)?.imageDigest ?? "",
            reason: record.failure ?? "no reason known", generation: record.from,
            snapshot: record.snapshot)
        var isDataBack = record.stage == .restored
        do {
            reporter.working(name, "going back to generation \(record.from)")
            let running = await observer.observe(name).vm.running?.number
            if running != record.from || !isDataBack { _ = try await halt(name, files) }
            if !isDataBack {
                try await giveBack(record, name, files)
                record.stage = .restored
                try store.write(record, name)
                isDataBack = true
                Checkpoint.pass()
            }
            describeData(of: record, in: &back)
            try store.makeCurrent(name, record.from)
            Checkpoint.pass()
            if record.starts {
                _ = try await launch(name, files)
                try await awaitVerdict(name, known: nil)
            }
        } catch {
            if isInterruption(error) { throw error }
            // All but the start is done: that is what any later start or `up` does.
            if isDataBack { try store.removeUpgradeRecord(name) }
            return .stuck(back, because: sentence(error), isDataBack: isDataBack)
        }
        try store.removeUpgradeRecord(name)
        Checkpoint.pass()
        return .returned(back)
    }

    private func giveBack(
        _ record: UpgradeRecord, _ name: String, _ files: VMLayout
    ) async throws {
        let snapshot = try snapshots(name).first { $0.name == record.snapshot }
        // Somebody has removed it: a VM that runs on what is there is better than one that does not.
        guard let snapshot else { return }
        reporter.working(name, "giving its data back")
        try await restoreDisks(name, from: snapshot, files)
    }

    private func describeData(of record: UpgradeRecord, in back: inout UpgradeError.Return) {
        guard let all = try? snapshots(back.vm) else { return }
        back.dataOf = all.first { $0.name == record.snapshot }?.createdAt
        // What was restored first was what had failed; a killed run may have done it twice.
        let later = all.drop { $0.name != record.snapshot }
        back.failedState = later.first { $0.reason == .restore }?.name
    }

    /// Finishes the upgrades of these VMs that killed runs left, and says how each ended.
    ///
    /// What another run is at is left to it.
    package func finishUpgrades(_ names: [String]) async -> [Outcome] {
        var outcomes: [Outcome] = []
        for name in names where await observer.observe(name).vm.upgrade == .interrupted {
            let start = Clock.monotonic()
            let result: Result<String, any Error>
            do {
                let detail = try await changing(name) { files in
                    guard try await settleUpgrade(name, files) else { return "finished" }
                    return "up after \(tenths(try await bringUp(name, files).bootSeconds)) s"
                }
                result = .success(detail)
            } catch StoreError.locked {
                continue
            } catch {
                result = .failure(error)
            }
            let outcome = Outcome(
                vm: name, action: "upgrade", seconds: Double(Clock.monotonic() - start) / 1e9,
                result: result)
            reporter.finished(name, ok: outcome.ok, outcome.detail)
            outcomes.append(outcome)
        }
        return outcomes
    }
}
