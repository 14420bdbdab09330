// SPDX-License-Identifier: Apache-2.0
import Linux
import Planning
package import Supervisor

/// How a VM ended.
package struct Stopped: Sendable, Equatable {
    /// Nil when nothing ran.
    package let method: StopMethod?
    package let seconds: Double

    /// In words, such as `shut down by its agent`.
    package var detail: String {
        switch method {
        case nil: "was not running"
        case .agent: "shut down by its agent"
        case .acpi: "shut down by the power button"
        case .quit: "did not shut down in time: ended"
        case .kill: "killed"
        }
    }
}

extension Engine {
    /// Stops a VM within `grace` seconds, or as its declaration says; one that does not run is stopped.
    package func stop(_ name: String, grace: Double? = nil) async throws -> Stopped {
        try await changing(name) { files in try await halt(name, files, grace: grace) }
    }

    /// Ends a VM's processes at once.
    package func kill(_ name: String) async throws -> Stopped {
        try await changing(name) { files in
            try await end(name, files) { client in try await client.kill() }
        }
    }

    func halt(_ name: String, _ files: VMLayout, grace: Double? = nil) async throws -> Stopped {
        try await end(name, files) { client in
            reporter.working(name, "stopping")
            return try await client.stop(grace: grace)
        }
    }

    private func end(
        _ name: String, _ files: VMLayout,
        _ ask: (ControlClient) async throws -> (method: StopMethod?, seconds: Double)
    ) async throws -> Stopped {
        let start = Clock.monotonic()
        var method: StopMethod?
        if try FileLock.isHeld(files.lock) {
            do {
                method = try await ask(ControlClient(files.controlSocket)).method
            } catch ControlError.notRunning {
                // Its supervisor has just left; the lock tells when its hypervisor has, too.
            }
            try await awaitRelease(name, files)
        }
        Checkpoint.pass()
        try await endRun(name)
        return Stopped(method: method, seconds: Double(Clock.monotonic() - start) / 1e9)
    }

    /// Takes away what runs that have ended left below RUN.
    ///
    /// A guest that powers itself off has nobody else to do it, nor has one whose `stop` was
    /// killed. Without an exit record a start may be under way: `prepare` removes it first.
    func releaseEnded(of fleet: String) async {
        guard let reports = try? await observer.observeAll().reports else { return }
        for report in reports where report.vm.fleet == fleet {
            let name = report.vm.name
            guard Files.exists(layout.vm(name).run) else { continue }
            // Who else changes the VM now sees to it himself.
            try? await changing(name) { _ in
                let now = await observer.observe(name)
                let hasEnded = now.observation.exit != nil || now.vm.phase == .suspended
                if !now.vm.phase.isLive, hasEnded { try await endRun(name) }
            }
        }
    }

    /// Waits until neither supervisor nor hypervisor hold the VM's lock.
    func awaitRelease(_ name: String, _ files: VMLayout) async throws {
        let patience = Clock.monotonic() + 15_000_000_000
        while try FileLock.isHeld(files.lock) {
            guard Clock.monotonic() < patience else {
                throw LifecycleError.timeout(vm: name, waitingFor: "stopped")
            }
            try await Task.sleep(for: .milliseconds(20))
        }
    }

    package func pause(_ name: String) async throws {
        try await changing(name) { files in
            try await ControlClient(files.controlSocket).pause()
        }
    }

    package func unpause(_ name: String) async throws {
        try await changing(name) { files in
            try await ControlClient(files.controlSocket).unpause()
        }
    }
}
