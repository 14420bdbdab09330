// SPDX-License-Identifier: Apache-2.0
package import Hypervisors
import Linux

/// Where a VM is in its life, in the words of `list`.
package enum VMState: String, Codable, Sendable {
    case stopped, starting, running, stopping, paused, failed
}

package enum Health: String, Codable, Sendable {
    case none, starting, healthy, unhealthy
}

/// How a stop ended: the guest obeyed its agent or the power button, or it was ended from outside.
package enum StopMethod: String, Codable, Sendable {
    case agent, acpi, quit, kill
}

/// What a supervisor says about its VM.
package struct VMStatus: Sendable, Equatable {
    package var name: String
    package var generation: Int
    package var imageDigest: String
    package var state: VMState
    package var health: Health
    /// The last output of each failing health check.
    package var failedChecks: [String] = []
    package var supervisorPid: Int32
    /// The hypervisor; nil while none runs, such as between two attempts.
    package var pid: Int32?
    package var accelerator: Accelerator
    /// Seconds since 1970 at which the running hypervisor was started.
    package var startedAt: Int64?
    /// From the hypervisor's start to the guest's word that it is up; nil until then.
    package var bootSeconds: Double?
    /// Restarts by the restart policy and by the guest itself, in this supervisor's life.
    package var restarts: Int
    /// Boots that missed their deadline, in this supervisor's life.
    package var bootMisses: Int
    /// What systemd in the guest says after booting: `running`, `degraded`; nil until it did.
    package var guestState: String?
    package var failedUnits: [String] = []
    /// Whether the guest agent answers.
    package var agent: Bool
    /// What went wrong last, in a sentence.
    package var reason: String?
}

/// Written when a supervisor begins and when it has started its hypervisor.
///
/// With the lock it tells a later observer what was there.
package struct RunRecord: Codable, Sendable, Equatable {
    /// Distinguishes this run from any other: an exit record with the same one is its end.
    package var run: String
    package var name: String
    package var generation: Int
    package var imageDigest: String
    package var supervisorPid: Int32
    /// Nil until the hypervisor was started.
    package var pid: Int32?
    package var accelerator: Accelerator
    package var bootID: String
    package var startedAt: Int64
}

/// Written as the last thing a supervisor does.
package struct ExitRecord: Codable, Sendable, Equatable {
    package enum Ending: String, Codable, Sendable {
        /// On request.
        case stopped
        /// The guest powered itself off.
        case poweredOff
        /// Its memory is on disk, and counts for as long as this record is there.
        case suspended
        /// The hypervisor could not be started.
        case startFailed
        /// No boot within the deadline, retries included.
        case bootFailed
        /// The hypervisor died, or the guest's kernel panicked, and the policy asks for no restart.
        case crashed
        /// Too many crashes in too short a time.
        case crashLoop
        /// Its health checks failed, and restarts did not help.
        case unhealthy
        /// A file of the image is not what was built: another start would meet it again.
        case imageDamaged

        package var isFailure: Bool {
            self != .stopped && self != .poweredOff && self != .suspended
        }
    }

    package var run: String
    package var name: String
    package var generation: Int
    package var ending: Ending
    package var endedAt: Int64
    /// How the hypervisor's process ended, as a sentence part such as `exit code 1`.
    package var exit: String?
    /// A sentence; nil for an ending that needs no reason.
    package var reason: String?
    /// What the guest said last, oldest first: at most `LastLines.most` lines; nil for an ending that is
    /// no failure.
    package var lastLines: [String]?
    package var stopMethod: StopMethod?
    package var restarts: Int
    package var bootMisses: Int
    /// What was saved; nil unless it was suspended.
    package var saved: SavedMemory?
}
