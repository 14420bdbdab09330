// SPDX-License-Identifier: Apache-2.0

/// What the end of a share's daemon means for the VM.
extension Lifecycle {
    /// Ends a guest that waits for a daemon; what follows is for its end to say.
    mutating func endForShares() -> [Effect] {
        switch phase {
        case .starting, .running, .paused: return [.kill]
        case .backoff:
            guard let sharesGone else { return [] }
            return [.disarm(.relaunch)] + leave(.crashed, sharesGone)
        // A stop has a limit, and one who was given up has been killed.
        case .idle, .stopping, .suspending, .abandoned, .left: return []
        }
    }

    /// What follows on the end of a hypervisor that was ended for its shares; nil for another.
    mutating func endedForShares(_ now: Double) -> [Effect]? {
        switch phase {
        case .starting, .running, .paused, .abandoned:
            guard shutdownReason != "guest-shutdown" else { return nil }
            // Nobody here can bring them back: another start would find the same.
            if let sharesGone { return leave(.crashed, sharesGone) }
            guard let lostShare else { return nil }
            return everAccepted ? crashed(lostShare, now) : leave(.startFailed, lostShare)
        case .idle, .stopping, .suspending, .backoff, .left: return nil
        }
    }
}
