// SPDX-License-Identifier: Apache-2.0
import Fleets
import FoundationEssentials
import Hypervisors
import Linux

/// What the supervisor hears from the guest: ready port, console, agent and health checks.
extension Supervisor {
    /// The guest is up: from now on its health is looked after.
    func booted() {
        guard let machine else { return }
        let now = Reactor.now
        bootedAt = now
        bootSeconds = ((now - machine.started) * 1000).rounded() / 1000
        // A foreign image does not tell when the rest of its start is over.
        if spec.boot.signal == .agent { settled = now }
        beginChecks()
    }

    /// A line on the ready port: `ready` once, and later `state WORD [UNIT…]`.
    func readyLine(_ line: [UInt8]) {
        let words = String(decoding: line, as: UTF8.self).split(separator: " ").map(String.init)
        switch words.first {
        case "ready" where spec.boot.signal == .ready:
            handle(.booted)
        case "state" where words.count > 1:
            guestState = words[1]
            settled = settled ?? Reactor.now
            failedUnits = Array(words.dropFirst(2).prefix(64))
        default:
            break
        }
    }

    /// A line on the console: only what says why the guest gives up is of interest.
    func consoleLine(_ line: [UInt8]) {
        consoleEnd.append(line)
        let text = String(decoding: line, as: UTF8.self)
        for mark in ["martlet-init: error: ", "Kernel panic - not syncing: "] {
            guard let found = text.firstRange(of: mark) else { continue }
            let words = String(text[found.upperBound...])
            handle(mark.hasPrefix("Kernel") ? .panicked(words) : .initFailed(words))
            lastError = lastError ?? words
        }
    }

    func beginChecks() {
        for index in spec.health.indices { check(index) }
    }

    private func check(_ index: Int) {
        let check = spec.health[index]
        // Frozen, its agent would refuse.
        if let hold {
            hold.waiting.append { [unowned self] in self.check(index) }
            return
        }
        // A reload or another boot makes what is still under way pointless.
        let round = checkRound
        exec(HealthTracker.command(check), timeout: check.timeout + 5) { [unowned self] result in
            guard let bootedAt, machine != nil, round == checkRound else { return }
            let failure =
                switch result {
                case .ended(let end):
                    HealthTracker.failure(
                        check, code: end.code, lastLine: end.code == 0 ? nil : lastLine(end))
                case .failed(let why):
                    "\(HealthTracker.name(of: check)): \(why)"
                }
            // One that is being stopped or is paused does not answer, and is not ill.
            if lifecycle.state == .running, hold == nil { note(failure, of: index, bootedAt) }
            reactor.arm("health-\(index)", after: health.pause(index)) { [unowned self] in
                self.check(index)
            }
        }
    }

    private func note(_ failure: String?, of index: Int, _ bootedAt: Double) {
        let before = health.health
        let now = Reactor.now
        // sshd answers long before the rest of a slow guest is there, the agent among it. One that
        // never tells how its start ended gets the boot deadline for it.
        let since = settled ?? bootedAt + spec.boot.deadline
        health.record(index, failure: failure, secondsSinceStart: now - since, at: now)
        let after = health.health
        if after != before { announce(.health, after.rawValue) }
        if after == .healthy { handle(.healthy) }
        if after == .unhealthy { fallIll() }
    }

    /// Tells the reducer that the guest is unhealthy, once it has said what it logged last.
    private func fallIll() {
        guard askedWhyIn != checkRound, spec.restart.policy != .no else { return }
        askedWhyIn = checkRound
        let round = checkRound
        exec(LastLines.journal, timeout: LastLines.patience) { [unowned self] result in
            guard round == checkRound, machine != nil else { return }
            askedWhyIn = nil
            // It may have become well again, or be held still, while it answered.
            guard health.health == .unhealthy, lifecycle.state == .running, hold == nil else {
                return
            }
            journal = LastLines()
            if case .ended(let end) = result, let text = Data(base64Encoded: end.standardOutput) {
                for line in text.split(separator: 10) { journal.append([UInt8](line)) }
            }
            handle(.unhealthy(health.complaint(at: Reactor.now), agent: agent.isAlive))
        }
    }

    private func lastLine(_ ended: GuestAgent.Ended) -> String? {
        for text in [ended.standardError, ended.standardOutput] {
            guard let bytes = Data(base64Encoded: text) else { continue }
            let line = bytes.split(separator: 10).last { !$0.isEmpty }
            if let line { return String(decoding: line.prefix(200), as: UTF8.self) }
        }
        return nil
    }
}

// MARK: - The guest agent

extension Supervisor {
    enum ExecOutcome {
        case ended(GuestAgent.Ended)
        case failed(String)
    }

    /// Sends a command to the agent and calls back with its reply, or with why there is none.
    func ask(
        _ command: String, _ arguments: JSONValue = [:], timeout: Double,
        _ then: @escaping (GuestAgent.Reply) -> Void
    ) {
        let (number, outputs) = agent.submit(
            command, arguments, timeout: timeout, at: Reactor.now)
        agentReplies[number] = then
        carry(outputs)
    }

    /// Carries out what the session wants, and sees to it that it is called when it is due.
    func carry(_ outputs: [AgentSession.Output]) {
        for output in outputs {
            switch output {
            case .send(let bytes): machine?.agent.send(bytes)
            case .finished(let number, let reply):
                agentReplies.removeValue(forKey: number)?(reply)
            }
        }
        if agent.isAlive, spec.boot.signal == .agent { handle(.booted) }
        if agent.isAlive, clockIsLate { setClock() }
        guard let deadline = agent.deadline else { return reactor.disarm("agent") }
        reactor.arm("agent", after: max(0, deadline - Reactor.now)) { [unowned self] in
            carry(agent.tick(at: Reactor.now))
        }
    }

    /// Runs a program in the guest and calls back when it has ended.
    ///
    /// The agent does not tell when that is, so it is asked: often at first, then less so.
    func exec(
        _ arguments: [String], input: String = "", timeout: Double,
        _ then: @escaping (ExecOutcome) -> Void
    ) {
        let end = Reactor.now + timeout
        ask("guest-exec", GuestAgent.exec(arguments, input: input), timeout: timeout) {
            [unowned self] reply in
            switch reply {
            case .failed(let why): then(.failed(why))
            case .value(let value):
                guard let pid = value["pid"]?.integer else {
                    return then(.failed("the guest agent started nothing"))
                }
                polls += 1
                poll(pid, "exec-\(polls)", until: end, pause: 0.02, then)
            }
        }
    }

    private func poll(
        _ pid: Int64, _ timer: String, until end: Double, pause: Double,
        _ then: @escaping (ExecOutcome) -> Void
    ) {
        reactor.arm(timer, after: pause) { [unowned self] in
            ask("guest-exec-status", ["pid": .integer(pid)], timeout: 10) { [unowned self] reply in
                switch reply {
                case .failed(let why): then(.failed(why))
                case .value(let status):
                    if let ended = GuestAgent.Ended(status) { return then(.ended(ended)) }
                    if Reactor.now > end {
                        return then(.failed("the command in the guest did not end in time"))
                    }
                    poll(pid, timer, until: end, pause: min(pause * 2, 0.25), then)
                }
            }
        }
    }

    /// Asks the agent to power the guest off; it says nothing when it obeys.
    func shutDownByAgent() {
        // One that hangs is found out by the ping, and the power button comes at once.
        ask("guest-ping", timeout: 2) { [unowned self] reply in
            guard case .value = reply else { return refused(reply) }
            ask("guest-shutdown", ["mode": "powerdown"], timeout: 600) { [unowned self] reply in
                if agent.isAlive { refused(reply) }
            }
        }
    }

    private func refused(_ reply: GuestAgent.Reply) {
        guard case .failed(let why) = reply else { return }
        log.info("\(spec.name): no shutdown through the agent: \(why)")
        handle(.agentRefused)
    }
}
