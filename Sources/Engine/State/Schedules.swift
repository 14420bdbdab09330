// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Planning
import Storage

/// Work that is done by the clock, as it was applied to each VM: no fleet file is needed.
extension Engine {
    /// What is planned for these VMs, or for all, with how it went last.
    package func plannedWork(
        _ names: [String]? = nil, now: Int64 = Clock.now()
    ) throws -> [PlannedWork] {
        let record = try store.scheduleRecord()
        return try (names ?? store.names().vms).filter { !isVerifier($0) }.flatMap { name in
            // One whose records cannot be read has other troubles, which `list` shows.
            let vm = (try? store.current(name))??.vm
            return ScheduledWork.allCases.compactMap { work -> PlannedWork? in
                guard let vm, let schedule = work.schedule(of: vm) else { return nil }
                let known = record.entry(name, work)
                let entry = known?.schedule == schedule.text ? known : nil
                return PlannedWork(
                    vm: name, work: work, schedule: schedule, last: entry?.last,
                    isDone: entry?.last == nil ? nil : entry?.isDone, detail: entry?.detail,
                    next: entry.map { $0.next(schedule) } ?? schedule.next(after: now))
            }
        }
    }

    /// Does all that is due, one after the other, and says how it went.
    ///
    /// What was missed is made up once. What fails is tried again an hour later at the earliest.
    package func runDue(
        now: @Sendable () -> Int64 = { Clock.now() }
    ) async throws -> [Outcome] {
        try Files.makeFolder(layout.root)
        guard let lock = try FileLock.attempt(layout.scheduleLock) else {
            throw StoreError.locked(vm: "the schedule")
        }
        try Files.makeFolder(layout.run)
        try Files.write(layout.scheduleTick, "\(now())\n")
        try noteDeclared(now())
        var outcomes: [Outcome] = await renewPublishing()
        for planned in try plannedWork(now: now()) {
            guard let next = planned.next, next <= now() else { continue }
            try Task.checkCancellation()
            if let outcome = try await run(planned, now()) { outcomes.append(outcome) }
        }
        _ = consume lock
        return outcomes
    }

    /// Writes down what is planned for the first time, and forgets what is planned no more.
    ///
    /// From then on it counts: new work is not done at once, but at its next planned time.
    private func noteDeclared(_ now: Int64) throws {
        let before: ScheduleRecord
        do {
            before = try store.scheduleRecord()
        } catch .unreadable(let path, let reason) {
            let target = try store.quarantine(path)
            reporter.warning("\(path) cannot be read (\(reason)): it is now \(target)")
            return try noteDeclared(now)
        }
        var after = ScheduleRecord()
        for name in try store.names().vms where !isVerifier(name) {
            let vm: VM?
            do {
                vm = try store.current(name)?.vm
            } catch {
                // What cannot be read now may be readable later.
                after.vms[name] = before.vms[name]
                continue
            }
            for work in ScheduledWork.allCases {
                guard let vm, let schedule = work.schedule(of: vm) else { continue }
                let known = before.entry(name, work)
                let entry =
                    known?.schedule == schedule.text
                    ? known : .init(schedule: schedule.text, since: now)
                after.vms[name, default: [:]][work.rawValue] = entry
            }
        }
        if after != before { try RecordFile.write(after, to: layout.scheduleRecord) }
    }

    /// Nil when the moment is a bad one: then it is still due.
    private func run(_ planned: PlannedWork, _ now: Int64) async throws -> Outcome? {
        let start = Clock.monotonic()
        // Before, not after: what kills us every time must not be tried every time.
        let before = try store.scheduleRecord().entry(planned.vm, planned.work)
        try note(planned, now, isDone: false, "it was interrupted")
        Checkpoint.pass()
        let result: Result<String, any Error>
        do {
            result = .success(try await perform(planned))
        } catch {
            if isOnlyNow(error) {
                if let before { try note(planned, before) }
                reporter.warning("the \(planned.work.rawValue) waits: \(sentence(error))")
                return nil
            }
            result = .failure(error)
        }
        let outcome = Outcome(
            vm: planned.vm, action: planned.work.rawValue,
            seconds: Double(Clock.monotonic() - start) / 1e9, result: result)
        try note(planned, now, isDone: outcome.ok, outcome.detail)
        reporter.finished(planned.vm, ok: outcome.ok, outcome.detail)
        return outcome
    }

    /// Whether it is about the moment alone: another run is at the VM, or it starts or stops.
    private func isOnlyNow(_ error: any Error) -> Bool {
        if case StoreError.locked = error { return true }
        if case SnapshotError.busy = error { return true }
        return false
    }

    private func perform(_ planned: PlannedWork) async throws -> String {
        guard let vm = try store.current(planned.vm)?.vm else {
            throw LifecycleError.notCreated(planned.vm)
        }
        switch planned.work {
        case .snapshot:
            let made = try await createSnapshot(planned.vm, reason: .schedule)
            Checkpoint.pass()
            var gone: [String] = []
            if let keep = vm.snapshots?.keep {
                gone = try await pruneSnapshots(planned.vm, keep: keep)
            }
            return "snapshot '\(made.name)' (\(made.consistency.rawValue))"
                + (gone.isEmpty ? "" : ", \(gone.count) older removed")
        case .backup: return try await backUp(vm)
        case .verify:
            let target = try backupTarget(of: vm.name, nil, declared: nil)
            let record = try await verifyBackupByBoot(
                vm.name, nil, in: target, identity: vm.backups?.identity, fleet: nil)
            return "backup \(record.id): \(record.verdict ?? "checked")"
        }
    }

    private func backUp(_ vm: VM) async throws -> String {
        let made = try await createBackup(vm.name)
        Checkpoint.pass()
        var gone: [String] = []
        if let keep = vm.backups?.keep {
            let target = try backupTarget(of: vm.name, nil, declared: nil)
            gone = try await pruneBackups(vm.name, in: target, keep: keep)
        }
        return "backup \(made.id) (\(made.consistency?.rawValue ?? "consistency unknown"))"
            + (gone.isEmpty ? "" : ", \(gone.count) older removed")
    }

    private func note(
        _ planned: PlannedWork, _ now: Int64, isDone: Bool, _ detail: String
    ) throws {
        guard var entry = try store.scheduleRecord().entry(planned.vm, planned.work) else { return }
        (entry.last, entry.isDone, entry.detail) = (now, isDone, detail)
        try note(planned, entry)
    }

    private func note(_ planned: PlannedWork, _ entry: ScheduleRecord.Entry) throws {
        var record = try store.scheduleRecord()
        record.vms[planned.vm, default: [:]][planned.work.rawValue] = entry
        try RecordFile.write(record, to: layout.scheduleRecord)
    }

    /// When somebody last did what was due on this host since it started; nil when nobody did.
    package func lastScheduleRun() -> Int64? {
        guard let text = try? Files.readText(layout.scheduleTick) else { return nil }
        return Int64(text.prefix { $0 != "\n" })
    }
}
