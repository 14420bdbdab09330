// SPDX-License-Identifier: Apache-2.0

/// Going to disk and coming back.
///
/// What is saved counts from the moment at which the supervisor writes that it left `suspended`,
/// and until the moment, before any CPU runs again, at which that word is removed. So whatever is
/// killed whenever, memory never meets disks that have moved on without it.
extension Lifecycle {
    mutating func suspension(_ event: Event) -> [Effect] {
        switch (event, phase) {
        case (.suspend, .running):
            phase = .suspending(saved: false)
            return [.announce(.stopping, "its memory goes to disk"), .save]
        case (.suspend, .suspending):
            return []
        case (.suspend, _):
            return [.resolve(.suspend, .failed("it is \(state.rawValue), not running"))]
        case (.saved, .suspending(saved: false)):
            // While the guest is still there to go on, should that fail.
            return [.keepSaved]
        case (.savedForGood, .suspending(saved: false)):
            phase = .suspending(saved: true)
            return [.quit, .arm(.quit, seconds: 2)]
        case (.saveFailed(let why), .suspending(saved: false)):
            phase = .running
            let reply = ControlReply.failed(why)
            return [
                .resume, .announce(.unpaused, why), .resolve(.suspend, reply),
                .resolve(.stop, reply),
            ]
        default:
            return []
        }
    }

    mutating func resumption(_ event: Event) -> [Effect] {
        guard isResuming, phase == .starting else { return [] }
        switch event {
        case .loaded:
            // A stop that came meanwhile has ended it, and nothing was taken yet.
            return loadFailure == nil ? [.forgetMemory] : []
        case .memoryForgotten:
            isResuming = false
            everAccepted = true
            phase = .running
            return [
                .disarm(.bootDeadline), .resume, .announce(.launched, nil),
                .resolve(.restart, .done), .announce(.resumed, nil),
            ]
        case .loadFailed(let why):
            return giveUpLoading(why)
        default:
            return []
        }
    }

    mutating func giveUpLoading(_ why: String) -> [Effect] {
        loadFailure = loadFailure ?? why
        switch phase {
        case .idle, .left: return []
        default: return [.kill]
        }
    }

    /// The hypervisor has ended with its memory not loaded: it stays on disk, and is not tried
    /// again, for what it was would be lost by a boot.
    mutating func resumptionEnded(_ why: String) -> [Effect]? {
        guard isResuming else { return nil }
        return [.disarm(.bootDeadline)] + leave(.startFailed, loadFailure ?? why)
    }
}
