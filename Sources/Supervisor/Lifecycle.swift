// SPDX-License-Identifier: Apache-2.0
import Hypervisors
import Linux

/// The life of one VM as a pure reducer: what happened goes in, what to do comes out.
///
/// The loop around it only carries effects out and turns the world's answers into events, so
/// every rule about restarts, deadlines and stopping is in here and tested as a table.
struct Lifecycle: Sendable {
    enum Event: Sendable, Equatable {
        case begin
        /// The hypervisor's process runs; it may still reject its devices.
        case launched
        case launchFailed(String)
        /// The hypervisor answers, so all its devices are there.
        case accepted
        /// The guest says that it is up.
        case booted
        /// The hypervisor's own word on why it is about to end, such as `guest-reset`.
        case shutdown(reason: String)
        case panicked(String)
        /// The image's init has given up, in its own words; it powers off.
        case initFailed(String)
        /// A file that the hypervisor boots from is not what was built.
        case imageDamaged(String)
        case ended(Exit, detail: String?)
        /// The running guest waits for a share for ever.
        case shareLost(String)
        /// There will be no shares any more, not for the next start either.
        case sharesGone(String)
        /// All checks pass.
        case healthy
        /// A check has failed as often as it may, in a sentence with its answer.
        case unhealthy(String, agent: Bool)
        case timer(Timer)
        case stop(grace: Double?, agent: Bool)
        case restart(grace: Double?, agent: Bool)
        case kill
        case pause
        case unpause
        case hypervisorPaused(reason: String?)
        case hypervisorResumed
        case agentRefused
        /// The whole VM is to go to disk.
        case suspend
        /// All of its memory is in the file, and on disk.
        case saved
        /// The exit record says `suspended`.
        case savedForGood
        case saveFailed(String)
        /// The hypervisor has all of the memory again; nothing runs yet.
        case loaded
        /// What was saved can never be loaded again.
        case memoryForgotten
        case loadFailed(String)
    }

    enum Timer: String, Sendable { case bootDeadline, relaunch, agentWindow, button, grace, quit }

    enum Effect: Sendable, Equatable {
        case launch
        case arm(Timer, seconds: Double)
        case disarm(Timer)
        case agentShutdown
        case pressButton
        case quit
        case kill
        case pause
        case resume
        /// Pauses the CPUs and writes the memory out.
        case save
        /// Writes the exit record that says `suspended`.
        case keepSaved
        case load
        case forgetMemory
        case announce(VMEvent.Kind, String?)
        /// Answers everyone who waits for this.
        case resolve(Wait, ControlReply)
        case leave(ExitRecord.Ending, reason: String?, method: StopMethod?)
    }

    /// What a client of the control socket may be waiting for.
    enum Wait: Sendable { case stop, restart, pause, unpause, suspend }

    private(set) var boot: SuperviseSpec.Boot
    private(set) var policy: SuperviseSpec.Restart
    private(set) var stopGrace: Double
    var phase = Phase.idle
    var restarts = 0
    private(set) var bootMisses = 0
    /// What went wrong last, in a sentence.
    var reason: String?

    /// Memory that was saved waits to be loaded: until it is, it must not be lost.
    var isResuming: Bool
    /// Why it could not be loaded.
    var loadFailure: String?

    /// Since when its checks pass without a break.
    var healthySince: Double?
    /// How often it was unhealthy without having been well for long in between.
    var illnesses = 0

    var attempt = 1
    private var accepted = false
    var everAccepted = false
    private(set) var shutdownReason: String?
    var panic: String?
    private var initError: String?
    private var failures: [Double] = []
    var lostShare: String?
    var sharesGone: String?
    var stopBegan: Double = 0
    var afterStop = AfterStop.leave

    init(_ spec: SuperviseSpec, resuming: Bool = false) {
        isResuming = resuming
        boot = spec.boot
        policy = spec.restart
        stopGrace = spec.stopGrace
    }

    /// Takes over the rules of a changed spec from now on.
    mutating func adopt(_ spec: SuperviseSpec) {
        boot = spec.boot
        policy = spec.restart
        stopGrace = spec.stopGrace
        illnesses = 0
    }

    /// Takes in what happened at `now` (monotonic seconds) and returns what to do, in order.
    mutating func handle(_ event: Event, at now: Double) -> [Effect] {
        if case .left = phase { return [] }
        switch event {
        case .begin: return [.launch]
        case .launched: return launched()
        case .launchFailed(let why): return launchFailed(why, now)
        case .accepted: return hypervisorAccepted()
        case .booted: return booted()
        case .shutdown(let why):
            shutdownReason = why
            return []
        case .panicked(let line):
            panic = panic ?? line
            return []
        case .initFailed(let line):
            initError = initError ?? line
            return []
        case .imageDamaged(let why): return leave(.imageDamaged, why)
        case .ended(let exit, let detail): return ended(exit, detail, now)
        case .shareLost(let why):
            lostShare = why
            return endForShares()
        case .sharesGone(let why):
            sharesGone = why
            return endForShares()
        case .healthy: return healthy(now)
        case .unhealthy(let why, let agent): return unhealthy(why, agent, now)
        case .timer(let timer): return fired(timer)
        case .stop(let grace, let agent): return stop(grace, agent, now, thenRestart: false)
        case .restart(let grace, let agent): return stop(grace, agent, now, thenRestart: true)
        case .kill: return kill(now)
        case .pause, .unpause, .hypervisorPaused, .hypervisorResumed: return paused(event)
        case .agentRefused:
            return phase == .stopping(.agent) ? pressButton(first: true) : []
        case .suspend, .saved, .savedForGood, .saveFailed: return suspension(event)
        case .loaded, .memoryForgotten, .loadFailed: return resumption(event)
        }
    }
}

// MARK: - Starting

extension Lifecycle {
    private mutating func launched() -> [Effect] {
        accepted = false
        shutdownReason = nil
        panic = nil
        initError = nil
        lostShare = nil
        healthySince = nil
        phase = .starting
        return [.arm(.bootDeadline, seconds: boot.deadline)]
    }

    private mutating func hypervisorAccepted() -> [Effect] {
        guard !accepted else { return [] }
        accepted = true
        if isResuming { return [.load] }
        everAccepted = true
        return [.announce(.launched, nil), .resolve(.restart, .done)]
    }

    private mutating func launchFailed(_ why: String, _ now: Double) -> [Effect] {
        if let sharesGone { return leave(everAccepted ? .crashed : .startFailed, sharesGone) }
        return everAccepted ? crashed(why, now) : leave(.startFailed, why)
    }

    private mutating func booted() -> [Effect] {
        guard phase == .starting else { return [] }
        // A guest that boots at once may be heard before its hypervisor, on another channel.
        let first = hypervisorAccepted()
        phase = .running
        attempt = 1
        reason = nil
        return first + [.disarm(.bootDeadline), .announce(.booted, nil)]
    }

    /// A boot that came to nothing: tried again at once, for a hang at boot is mostly bad luck.
    private mutating func missedBoot(_ why: String) -> [Effect] {
        bootMisses += 1
        reason = why
        guard attempt <= boot.retries else {
            let tries = attempt == 1 ? "once" : "\(attempt) times"
            return leave(.bootFailed, "\(why) (tried \(tries))")
        }
        attempt += 1
        return [.announce(.bootMissed, why), .launch]
    }
}

// MARK: - Ending

extension Lifecycle {
    private mutating func ended(_ exit: Exit, _ detail: String?, _ now: Double) -> [Effect] {
        if let effects = resumptionEnded(detail ?? "the hypervisor ended with \(exit)") {
            return effects
        }
        let before = phase
        if let effects = endedForShares(now) { return disarmed + effects }
        return disarmed + after(before, exit, detail, now)
    }

    private var disarmed: [Effect] {
        [Timer.bootDeadline, .agentWindow, .button, .grace, .quit]
            .map(Effect.disarm)
    }

    private mutating func after(
        _ before: Phase, _ exit: Exit, _ detail: String?, _ now: Double
    ) -> [Effect] {
        switch before {
        case .idle, .backoff, .left:
            return []
        case .stopping(let method):
            let reply = ControlReply.stopped(
                method: method, seconds: ((now - stopBegan) * 1000).rounded() / 1000)
            if afterStop != .leave { return afterStopping(now, method, reply) }
            return leave(.stopped, nil, method, [.resolve(.stop, reply)])
        case .suspending(saved: true):
            return leave(.suspended, nil, nil, [.resolve(.suspend, .done)])
        case .suspending(saved: false):
            let why = "the hypervisor ended with \(exit)" + hint(detail)
            return [.resolve(.suspend, .failed(why))] + crashed(why, now)
        case .abandoned(let why):
            return missedBoot(why + hint(detail))
        case .starting where !accepted:
            let why = detail ?? "the hypervisor ended with \(exit)"
            return launchFailed(why, now)
        case .starting:
            // Init looked and found something missing: it would find the same again.
            if let initError { return leave(.bootFailed, "the guest cannot boot: \(initError)") }
            if let damage { return leave(.imageDamaged, damage) }
            if let panic { return missedBoot("the guest's kernel panicked: \(panic)") }
            if shutdownReason == "guest-reset" {
                return missedBoot("the guest rebooted before it was up" + hint(detail))
            }
        case .running, .paused:
            if let damage { return leave(.imageDamaged, damage) }
            if let panic { return crashed("the guest's kernel panicked: \(panic)", now) }
            if shutdownReason == "guest-reset" {
                restarts += 1
                return [.announce(.restarting, "the guest rebooted"), .launch]
            }
        }
        if shutdownReason == "guest-shutdown" { return poweredOff(now) }
        return crashed("the hypervisor ended with \(exit)" + hint(detail), now)
    }

    private func hint(_ detail: String?) -> String { detail.map { ": \($0)" } ?? "" }

    private mutating func poweredOff(_ now: Double) -> [Effect] {
        guard policy.policy == .always else { return leave(.poweredOff, nil) }
        restarts += 1
        phase = .backoff
        return [
            .announce(.restarting, "the guest powered itself off"),
            .arm(.relaunch, seconds: policy.delay),
        ]
    }

    mutating func crashed(_ why: String, _ now: Double) -> [Effect] {
        reason = why
        guard policy.policy != .no else { return leave(.crashed, why) }
        failures = failures.filter { now - $0 < policy.window } + [now]
        guard failures.count <= policy.limit else {
            let seconds = Int(policy.window)
            return leave(
                .crashLoop, "it failed \(failures.count) times within \(seconds) s, last: \(why)")
        }
        restarts += 1
        attempt = 1
        phase = .backoff
        return [
            .announce(.restarting, why),
            .arm(.relaunch, seconds: pause(after: failures.count)),
        ]
    }

    /// Seconds before another start, after so many failures in a row.
    func pause(after count: Int) -> Double {
        var delay = policy.delay
        for _ in 1..<max(count, 1) where delay < policy.longest { delay *= 2 }
        return min(delay, policy.longest)
    }

    mutating func leave(
        _ ending: ExitRecord.Ending, _ why: String?, _ method: StopMethod? = nil,
        _ first: [Effect] = []
    ) -> [Effect] {
        phase = .left(ending)
        reason = why
        let gone = ControlReply.failed(why ?? "the VM has stopped")
        return first + [
            .announce(ending.isFailure ? .failed : ending == .suspended ? .suspended : .ended, why),
            // Whoever asked for a stop gets what he wanted, even if the guest was faster.
            .resolve(.stop, .stopped(method: method, seconds: 0)),
            .resolve(.restart, gone), .resolve(.pause, gone), .resolve(.unpause, gone),
            .resolve(.suspend, gone),
            .leave(ending, reason: why, method: method),
        ]
    }
}

// MARK: - Pausing

extension Lifecycle {
    private mutating func paused(_ event: Event) -> [Effect] {
        switch (event, phase) {
        case (.pause, .running): return [.pause]
        case (.pause, .paused): return [.resolve(.pause, .done)]
        case (.pause, _):
            return [.resolve(.pause, .failed("it is \(state.rawValue), not running"))]
        case (.unpause, .paused): return [.resume]
        case (.unpause, .running): return [.resolve(.unpause, .done)]
        case (.unpause, _):
            return [.resolve(.unpause, .failed("it is \(state.rawValue), not paused"))]
        case (.hypervisorPaused(let why), .running):
            phase = .paused
            reason = why
            return [.announce(.paused, why), .resolve(.pause, .done)]
        case (.hypervisorResumed, .paused):
            phase = .running
            reason = nil
            return [.announce(.unpaused, nil), .resolve(.unpause, .done)]
        default:
            return []
        }
    }
}
