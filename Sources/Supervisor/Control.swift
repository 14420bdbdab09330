// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Hypervisors
import Linux

/// One line from a client to a supervisor.
package enum ControlRequest: Sendable, Equatable {
    case status
    /// Shuts the guest down, with `grace` seconds instead of the spec's. Answered when it is down.
    case stop(grace: Double?)
    /// Ends the hypervisor at once. Answered when it is gone.
    case kill
    case pause
    case unpause
    /// Shuts the guest down and starts it again. Answered when it was started.
    case restart(grace: Double?)
    /// Takes over what a running VM can take over from the file that it was started with.
    case reload
    /// Runs a program in the guest through its agent, which hands the output over at the end.
    /// Input is base64.
    case exec(arguments: [String], input: String, timeout: Double)
    /// Any other command of the guest agent; the reply carries what it returned.
    case agent(command: String, arguments: JSONValue, timeout: Double)
    /// A command of the hypervisor itself (QMP).
    case hypervisor(command: String, arguments: JSONValue)
    /// From now on one `VMEvent` a line.
    case events
    /// Holds the guest's file systems still until `thaw`, until this connection ends, or for `limit`
    /// seconds. `pause` holds its CPUs as well. The reply is a `HeldGuest`.
    case freeze(pause: Bool, limit: Double)
    /// Writes the guest's memory into this file, which is there and empty, and ends. Answered when it
    /// has.
    case suspend(memory: String)
    /// Lets go of what `freeze` on this connection holds. The reply is a `ReleasedGuest`.
    case thaw
}

/// How still a guest is held.
package struct HeldGuest: Sendable, Equatable {
    /// Whether its file systems are frozen; else what is read is as after a power cut.
    package var isFrozen: Bool
    /// Why they are not.
    package var reason: String?
}

/// How a hold ended.
package struct ReleasedGuest: Sendable, Equatable {
    /// Whether it was held until now, and was not let go of before by its time limit.
    package var wasHeld: Bool
    /// How long the guest could not write.
    package var seconds: Double
}

/// One line from a supervisor to a client: the answer to a request.
package enum ControlReply: Sendable, Equatable {
    case done
    case status(VMStatus)
    /// No method: it was not running but waiting to be restarted, or it ended by itself.
    case stopped(method: StopMethod?, seconds: Double)
    case exec(ExecResult)
    case value(JSONValue)
    case held(HeldGuest)
    case released(ReleasedGuest)
    /// A sentence that says what went wrong.
    case failed(String)
}

package struct ExecResult: Sendable, Equatable {
    /// The exit code, or 128 plus the signal.
    package var code: Int32
    /// Base64, as the agent sent it: a supervisor does not look into it.
    package var standardOutput: String
    package var standardError: String
    /// The agent cuts output off at 16 MiB.
    package var truncated: Bool
}

/// Something that happened to a VM.
package struct VMEvent: Sendable, Equatable {
    package enum Kind: String, Sendable {
        case launched, booted, health, paused, unpaused, stopping, ended, restarting, bootMissed
        case failed, suspended, resumed
    }
    package var vm: String
    /// Seconds since 1970.
    package var at: Int64
    package var kind: Kind
    package var detail: String?
}
