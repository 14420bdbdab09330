// SPDX-License-Identifier: Apache-2.0

/// What can be said about a VM from outside, and on what ground.
package struct Observation: Sendable, Equatable {
    package var state: VMState
    package var health: Health
    /// Why it failed, or what is odd about it, in a sentence.
    package var reason: String?
    /// The supervisor's own words; nil when it does not answer.
    package var status: VMStatus?
    /// The end of the last run, when it had one.
    package var exit: ExitRecord?

    /// Judges from what was seen; pure.
    ///
    /// The lock is the ground truth, for the kernel frees it when the last holder dies. The
    /// records only say how it came to that.
    package static func observe(
        lockHeld: Bool, runRecord: RunRecord?, exitRecord: ExitRecord?, bootID: String,
        controlStatus: VMStatus?
    ) -> Observation {
        let ended = runRecord.flatMap { run in exitRecord.flatMap { $0.run == run.run ? $0 : nil } }
        if lockHeld {
            if let status = controlStatus {
                return Observation(
                    state: status.state, health: status.health, reason: status.reason,
                    status: status)
            }
            // Between taking the lock and the first launch there is no record of this run yet.
            let launched = runRecord != nil && ended == nil && runRecord?.bootID == bootID
            return Observation(
                state: launched ? .running : .starting, health: .none,
                reason: "its supervisor does not answer on its control socket")
        }
        if let run = runRecord, ended == nil {
            let reason =
                run.bootID == bootID
                ? "the supervisor was killed" : "the host restarted while it was running"
            return Observation(state: .failed, health: .none, reason: reason)
        }
        guard let exit = exitRecord else {
            return Observation(state: .stopped, health: .none)
        }
        return Observation(
            state: exit.ending.isFailure ? .failed : .stopped, health: .none,
            reason: exit.ending.isFailure ? exit.reason : nil, exit: exit)
    }
}
