// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors
import Linux

/// A guest that a client holds still for a moment.
final class Hold {
    let client: ControlServer.Client
    let pauses: Bool
    /// When the guest could write for the last time, in monotonic seconds.
    let began: Double
    var isFrozen = false
    /// Let go of; the CPUs may take a moment to run again.
    var hasEnded = false
    /// What waits until the guest is let go.
    var waiting: [() -> Void] = []

    init(_ client: ControlServer.Client, pauses: Bool, began: Double) {
        self.client = client
        self.pauses = pauses
        self.began = began
    }
}

/// Holding the guest still while somebody takes a picture of its disks.
///
/// The hold is the supervisor's and not the client's: a client that is killed takes its connection
/// with it, and a guest that nobody lets go of would hang for ever.
extension Supervisor {
    func freeze(_ client: ControlServer.Client, pause: Bool, limit: Double) {
        guard hold == nil else {
            return control.reply(client, .failed("another run holds the guest's file systems"))
        }
        guard machine != nil, lifecycle.state == .running || lifecycle.state == .paused else {
            return control.reply(client, .failed("the guest is \(lifecycle.state.rawValue)"))
        }
        let hold = Hold(
            client, pauses: pause && lifecycle.state == .running, began: Reactor.now)
        self.hold = hold
        reactor.arm("hold", after: limit) { [unowned self] in
            log.warning("\(spec.name): its file systems were held too long")
            release()
        }
        guard lifecycle.state == .running, agent.isAlive else {
            let why =
                lifecycle.state == .paused
                ? "the guest is paused, and cannot write what it has in memory"
                : "the guest agent does not answer"
            return holdOn(hold, why: why)
        }
        ask("guest-fsfreeze-freeze", timeout: min(limit, 20)) { [unowned self] reply in
            switch reply {
            case .value:
                hold.isFrozen = true
                // Let go of meanwhile: by its client's end or the limit.
                if hold.hasEnded { thawGuest() } else { holdOn(hold, why: nil) }
            case .failed(let why):
                // One that answers too late may have done it all the same.
                if machine != nil { thawGuest() }
                if !hold.hasEnded { holdOn(hold, why: why) }
            }
        }
    }

    /// Pauses the CPUs where that was asked for, and tells the client that all is still.
    private func holdOn(_ hold: Hold, why: String?) {
        let held = ControlReply.held(HeldGuest(isFrozen: hold.isFrozen, reason: why))
        guard hold.pauses else { return control.reply(hold.client, held) }
        send(.stop) { [unowned self] reply in
            guard !hold.hasEnded else { return }
            if case .failed(_, let why) = reply {
                release()
                return control.reply(hold.client, .failed(why))
            }
            control.reply(hold.client, held)
        }
    }

    func thaw(_ client: ControlServer.Client) {
        guard let hold, hold.client == client, !hold.hasEnded else {
            return control.reply(client, .released(ReleasedGuest(wasHeld: false, seconds: 0)))
        }
        release()
        let seconds = Reactor.now - hold.began
        control.reply(client, .released(ReleasedGuest(wasHeld: true, seconds: seconds)))
    }

    /// A client has gone, and with it what it held.
    func letGo(of client: ControlServer.Client) {
        if hold?.client == client { release() }
    }

    private func release() {
        guard let hold, !hold.hasEnded else { return }
        hold.hasEnded = true
        reactor.disarm("hold")
        if hold.pauses {
            // The hold is over once the CPUs run: until then, their events are ours.
            // A hypervisor that does not answer must not keep others from ending it.
            reactor.arm("hold", after: 15) { [unowned self] in forgetHold() }
            send(.resume) { [unowned self] _ in
                if hold.isFrozen { thawGuest() }
                forgetHold()
            }
        } else {
            if hold.isFrozen { thawGuest() }
            forgetHold()
        }
    }

    private func thawGuest() {
        ask("guest-fsfreeze-thaw", timeout: 20) { [unowned self] reply in
            guard case .failed(let why) = reply, machine != nil else { return }
            log.error("\(spec.name): its file systems could not be thawed: \(why)")
        }
    }

    /// Serves what had to wait; also called when the guest has ended with all that was held.
    func forgetHold() {
        guard let hold else { return }
        self.hold = nil
        hold.hasEnded = true
        reactor.disarm("hold")
        for run in hold.waiting { run() }
    }
}

extension ControlRequest {
    /// Whether the guest agent is needed for it, or the guest must be able to end.
    var needsThawedGuest: Bool {
        switch self {
        case .exec, .agent, .stop, .restart, .pause, .unpause, .suspend: true
        case .status, .kill, .reload, .hypervisor, .events, .freeze, .thaw: false
        }
    }
}
