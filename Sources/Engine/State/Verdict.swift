// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Planning
import Supervisor

/// Waiting for the word of a guest on how it is.
extension Engine {
    /// Waits until a VM that others come after is healthy, when it has checks.
    func awaitTurn(_ name: String) async throws {
        guard let vm = try store.current(name)?.vm, !vm.health.isEmpty else { return }
        try await awaitChecks(vm)
    }

    /// Waits until a VM that has booted is as well as anything can tell: its checks, and without
    /// any its own service manager.
    ///
    /// `known` are the units that had failed before and whose failure says nothing new; without
    /// that knowledge failed units say nothing at all.
    func awaitVerdict(_ name: String, known: [String]?) async throws {
        guard let vm = try store.current(name)?.vm else { throw LifecycleError.notCreated(name) }
        guard vm.health.isEmpty else { return try await awaitChecks(vm) }
        reporter.working(name, "waiting for its services")
        // One that does not say how its start went has said that it is up, and that must do.
        let end = Clock.monotonic() + UInt64(vm.boot.deadline.seconds * 1e9)
        while Clock.monotonic() < end {
            let status = settled(try await liveReport(name))
            if let status, status.guestState != nil {
                let new = known.map { known in status.failedUnits.filter { !known.contains($0) } }
                guard let new, !new.isEmpty else { return }
                throw LifecycleError.failed(
                    vm: name,
                    reason: "units failed that had not before: \(new.joined(separator: ", "))")
            }
            try await Task.sleep(for: .milliseconds(100))
        }
    }

    private func awaitChecks(_ vm: VM) async throws {
        reporter.working(vm.name, "waiting for its health checks")
        // Its supervisor knows better when it has been long enough: this bounds our own wait.
        let longest = vm.health.map(\.startup.seconds).max() ?? 0
        let end = Clock.monotonic() + UInt64((vm.boot.deadline.seconds + longest + 60) * 1e9)
        while true {
            let report = try await liveReport(vm.name)
            // Also while it is shut down for that, to be started again.
            if let status = report.observation.status, status.health == .unhealthy {
                let why = status.failedChecks.joined(separator: "; ")
                throw LifecycleError.failed(vm: vm.name, reason: "it is unhealthy: \(why)")
            }
            if let health = settled(report)?.health, health != .starting { return }
            guard Clock.monotonic() < end else {
                throw LifecycleError.timeout(vm: vm.name, waitingFor: "healthy")
            }
            try await Task.sleep(for: .milliseconds(100))
        }
    }

    /// What is seen of a VM that has not ended: such a one never becomes healthy, and waiting for it
    /// would be waiting for the bound.
    private func liveReport(_ name: String) async throws -> VMReport {
        let report = await observer.observe(name)
        guard report.vm.phase.isLive else {
            throw LifecycleError.failed(
                vm: name, reason: report.observation.reason ?? "the guest powered itself off")
        }
        return report
    }

    /// What a supervisor says; nil while it does not answer or starts its VM again.
    private func settled(_ report: VMReport) -> VMStatus? {
        let status = report.observation.status
        return status?.state == .running || status?.state == .paused ? status : nil
    }
}
