// SPDX-License-Identifier: Apache-2.0

/// Stopping: the agent, the power button, `quit` and SIGKILL, each when the one before was in vain.
extension Lifecycle {
    mutating func stop(
        _ wanted: Double?, _ agent: Bool, _ now: Double, thenRestart: Bool
    ) -> [Effect] {
        let grace = wanted ?? stopGrace
        if isResuming { return giveUpLoading("it was stopped while its memory was loaded") }
        // Whoever asks for a start has seen to what it lacked.
        if thenRestart { illnesses = 0 }
        switch phase {
        case .idle, .left:
            return []
        case .backoff:
            if thenRestart { return [.disarm(.relaunch), .launch] }
            return [.disarm(.relaunch)] + leave(.stopped, nil)
        case .stopping:
            var effects: [Effect] = []
            if !thenRestart {
                if afterStop != .leave {
                    effects.append(.resolve(.restart, .failed("it was stopped instead")))
                }
                afterStop = .leave
            } else if afterStop != .leave {
                afterStop = .restart
            }
            if wanted != nil { effects.append(.arm(.grace, seconds: grace)) }
            return effects
        case .suspending:
            // Whoever wants it stopped is answered when it has gone to disk.
            return thenRestart ? [.resolve(.restart, .failed("it is being suspended"))] : []
        case .abandoned:
            stopBegan = now
            afterStop = thenRestart ? .restart : .leave
            phase = .stopping(.kill)
            return [.announce(.stopping, nil)]
        case .starting, .running, .paused:
            break
        }
        afterStop = thenRestart ? .restart : .leave
        return beginStop(grace, agent, now, .announce(.stopping, nil))
    }

    /// Asks the guest to end; what then becomes of the VM is `afterStop`.
    mutating func beginStop(
        _ grace: Double, _ agent: Bool, _ now: Double, _ word: Effect
    ) -> [Effect] {
        // A paused guest hears neither its agent nor the button.
        let wake: [Effect] = phase == .paused ? [.resume] : []
        stopBegan = now
        let start: [Effect] = wake + [.disarm(.bootDeadline), word, .arm(.grace, seconds: grace)]
        guard agent else { return start + pressButton(first: true) }
        phase = .stopping(.agent)
        // Half the time is the agent's: one that hangs must not take the button's chance away.
        return start + [.agentShutdown, .arm(.agentWindow, seconds: min(grace / 2, 15))]
    }

    /// What follows when a VM that is not to stay stopped has stopped.
    mutating func afterStopping(
        _ now: Double, _ method: StopMethod, _ reply: ControlReply
    ) -> [Effect] {
        let then = afterStop
        afterStop = .leave
        if let sharesGone { return leave(.crashed, sharesGone) }
        attempt = 1
        switch then {
        case .leave: return leave(.stopped, nil, method, [.resolve(.stop, reply)])
        case .restart: return [.announce(.restarting, "on request"), .launch]
        case .recover:
            restarts += 1
            phase = .backoff
            return [.arm(.relaunch, seconds: pause(after: illnesses))]
        case .giveUp(let why): return leave(.unhealthy, why, method)
        }
    }

    /// A single press right after boot is lost, so it is repeated until something happens.
    mutating func pressButton(first: Bool) -> [Effect] {
        phase = .stopping(.acpi)
        return (first ? [.disarm(.agentWindow)] : [])
            + [.pressButton, .arm(.button, seconds: 0.5)]
    }

    mutating func kill(_ now: Double) -> [Effect] {
        if isResuming { return giveUpLoading("it was killed while its memory was loaded") }
        switch phase {
        case .suspending(saved: true): return [.kill]
        case .idle, .left: return []
        case .backoff: return [.disarm(.relaunch)] + leave(.stopped, nil)
        case .stopping: break
        case .starting, .running, .paused, .abandoned, .suspending: stopBegan = now
        }
        var effects: [Effect] = [.announce(.stopping, nil), .kill]
        if afterStop == .restart {
            effects.append(.resolve(.restart, .failed("it was killed instead")))
        }
        afterStop = .leave
        phase = .stopping(.kill)
        return effects
    }

    mutating func fired(_ timer: Timer) -> [Effect] {
        switch (timer, phase) {
        case (.bootDeadline, .starting):
            let seconds = Int(boot.deadline)
            if isResuming { return giveUpLoading("its memory was not loaded within \(seconds) s") }
            phase = .abandoned("the guest did not report that it is up within \(seconds) s")
            return [.kill]
        case (.relaunch, .backoff):
            return [.launch]
        case (.agentWindow, .stopping(.agent)):
            return pressButton(first: true)
        case (.button, .stopping(.acpi)):
            return pressButton(first: false)
        case (.grace, .stopping(.agent)), (.grace, .stopping(.acpi)):
            phase = .stopping(.quit)
            return [
                .disarm(.agentWindow), .disarm(.button), .quit, .arm(.quit, seconds: 2),
            ]
        case (.quit, .stopping(.quit)):
            phase = .stopping(.kill)
            return [.kill]
        case (.quit, .suspending(saved: true)):
            return [.kill]
        default:
            // A timer that was overtaken by what it waited for.
            return []
        }
    }
}
