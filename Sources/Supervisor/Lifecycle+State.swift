// SPDX-License-Identifier: Apache-2.0

/// Where a VM is in its life, for the reducer and for those who ask.
extension Lifecycle {
    enum Phase: Sendable, Equatable {
        case idle, starting, running, paused
        case stopping(StopMethod)
        /// Going to disk; once `saved`, that cannot be taken back.
        case suspending(saved: Bool)
        /// Killed because it did not boot; it is not gone yet.
        case abandoned(String)
        case backoff
        case left(ExitRecord.Ending)
    }

    /// The state in the words of `list`.
    var state: VMState {
        switch phase {
        case .idle, .starting, .abandoned, .backoff: .starting
        case .running: .running
        case .paused: .paused
        case .stopping, .suspending: .stopping
        case .left(let ending): ending.isFailure ? .failed : .stopped
        }
    }
}

extension Lifecycle {
    /// What dm-verity has found, which guest/verity.c asks to panic for.
    var damage: String? {
        guard panic == "dm-verity device corrupted" else { return nil }
        return
            "a layer of its image is damaged, and the guest was ended before it could use what it "
            + "read: 'martlet up' says which layer, and builds it again"
    }
}
