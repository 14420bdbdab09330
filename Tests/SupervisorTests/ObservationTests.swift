// SPDX-License-Identifier: Apache-2.0
import Hypervisors
import Testing

@testable import Supervisor

@Suite struct ObservationTests {
    static let run = RunRecord(
        run: "r2", name: "web", generation: 3, imageDigest: "sha256:1", supervisorPid: 10, pid: 11,
        accelerator: .tcg, bootID: "now", startedAt: 100)

    static func exit(_ ending: ExitRecord.Ending, run: String = "r2", _ reason: String? = nil)
        -> ExitRecord
    {
        ExitRecord(
            run: run, name: "web", generation: 3, ending: ending, endedAt: 200, reason: reason,
            restarts: 0, bootMisses: 0)
    }

    static let paused = VMStatus(
        name: "web", generation: 3, imageDigest: "sha256:1", state: .paused, health: .healthy,
        supervisorPid: 10, accelerator: .tcg, restarts: 0, bootMisses: 0, agent: true)

    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        var held = false
        var run: RunRecord?
        var exit: ExitRecord?
        var bootID = "now"
        var status: VMStatus?
        let state: VMState
        var reason: String?
    }

    @Test(arguments: [
        Case(testDescription: "never ran", state: .stopped),
        Case(
            testDescription: "answers", held: true, run: run, exit: exit(.stopped, run: "r1"),
            status: paused, state: .paused),
        Case(
            testDescription: "just began", held: true, exit: exit(.crashed, run: "r1", "old"),
            state: .starting, reason: "its supervisor does not answer on its control socket"),
        Case(
            testDescription: "launched before, begins again", held: true, run: run,
            exit: exit(.stopped), state: .starting,
            reason: "its supervisor does not answer on its control socket"),
        Case(
            testDescription: "begins again after the host's restart", held: true, run: run,
            bootID: "later", state: .starting,
            reason: "its supervisor does not answer on its control socket"),
        Case(
            testDescription: "silent", held: true, run: run, state: .running,
            reason: "its supervisor does not answer on its control socket"),
        Case(testDescription: "stopped", run: run, exit: exit(.stopped), state: .stopped),
        Case(testDescription: "powered off", run: run, exit: exit(.poweredOff), state: .stopped),
        Case(
            testDescription: "crashed", run: run, exit: exit(.crashed, "it died"), state: .failed,
            reason: "it died"),
        Case(
            testDescription: "never launched", exit: exit(.startFailed, "port in use"),
            state: .failed, reason: "port in use"),
        Case(
            testDescription: "supervisor killed", run: run, exit: exit(.stopped, run: "r1"),
            state: .failed, reason: "the supervisor was killed"),
        Case(
            testDescription: "host restarted", run: run, bootID: "later", state: .failed,
            reason: "the host restarted while it was running"),
    ]) func tellsTheTruth(_ given: Case) {
        let seen = Observation.observe(
            lockHeld: given.held, runRecord: given.run, exitRecord: given.exit,
            bootID: given.bootID, controlStatus: given.status)
        #expect(seen.state == given.state)
        #expect(seen.reason == given.reason)
    }
}
