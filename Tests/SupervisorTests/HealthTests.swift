// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Supervisor

/// What a supervisor makes of the answers of a guest's health checks.
@Suite(.timeLimit(.minutes(20))) struct HealthTests {
    /// A guest that is asked all the time, and whose failures count at once.
    private func booted(
        _ behaviour: String, _ change: (inout SuperviseSpec) -> Void = { _ in }
    ) async throws -> Rig {
        let rig = try Rig(behaviour)
        change(&rig.spec)
        rig.spec.health = [.init(.exec(command: "x"))]
        rig.spec.health[0].interval = 0.02
        rig.spec.health[0].startup = 0
        try await rig.startAndBoot()
        return rig
    }

    @Test func withoutARestartPolicyItIsReportedAndLeftAlone() async throws {
        let rig = try await booted("boot agent exec=1") { $0.restart.policy = .no }
        try await rig.until("it is unhealthy") {
            try await rig.control.status().health == .unhealthy
        }
        let status = try await rig.control.status()
        #expect(status.failedChecks == ["exec 'x': hello"])
        #expect(status.state == .running && status.restarts == 0)
        _ = try await rig.control.stop()
    }

    @Test func aPausedGuestIsNotIll() async throws {
        let rig = try await booted("boot agent=pausing exec=0")
        try await rig.until("it is healthy") { try await rig.control.status().health == .healthy }
        try await rig.control.pause()
        // Its agent does not answer, many times over.
        try await rig.until("no agent") { try await !rig.control.status().agent }
        try await Task.sleep(for: .seconds(1))
        #expect(try await rig.control.status().health == .healthy)
        try await rig.control.unpause()
        #expect(await rig.state == .running)
        _ = try await rig.control.kill()
    }
}
