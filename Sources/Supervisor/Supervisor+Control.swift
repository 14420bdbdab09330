// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors

/// QMP on the one side, the clients of the control socket on the other.
extension Supervisor {
    /// Sends a QMP command; a reply is passed on, and an error without a listener is logged.
    ///
    /// A descriptor goes along with it, and stays ours as well.
    func send(
        _ command: QMP.Command, passing descriptor: Int32? = nil,
        _ then: ((QMP.Message) -> Void)? = nil
    ) {
        qmpNumber += 1
        if let then { qmpReplies[qmpNumber] = then }
        machine?.qmp.send(command.encoded(id: qmpNumber), passing: descriptor)
    }

    func qmpLine(_ line: [UInt8]) {
        guard let message = QMP.decode(line) else { return }
        switch message {
        case .greeting:
            // It greets before its devices exist, but answers only once they do.
            send(.capabilities) { [unowned self] reply in
                if case .value = reply { handle(.accepted) }
            }
        case .value(let id?, _), .failed(let id?, _): qmpReplies.removeValue(forKey: id)?(message)
        case .value(nil, _), .failed(nil, _): break
        case .event(let name, let data): event(name, data)
        }
    }

    private func event(_ name: String, _ data: JSONValue) {
        switch name {
        case "SHUTDOWN": handle(.shutdown(reason: data["reason"]?.string ?? ""))
        // Who holds the guest for a moment has paused it, and nobody else needs to know.
        case "STOP" where hold?.pauses == true, "RESUME" where hold?.pauses == true: break
        case "STOP":
            handle(.hypervisorPaused(reason: ioError))
            ioError = nil
        case "RESUME": handle(.hypervisorResumed)
        case "BLOCK_IO_ERROR":
            // Sent before the STOP that it leads to.
            let disk = data["node-name"]?.string ?? "a disk"
            ioError =
                data["nospace"]?.bool == true
                ? "the host has no space left for \(disk): free some, then unpause"
                : "\(disk) failed: \(data["reason"]?.string ?? "I/O error")"
        case "VSERPORT_CHANGE" where data["id"]?.string == "agent-port":
            carry(agent.port(open: data["open"]?.bool == true, at: Reactor.now))
        default: break
        }
    }

    /// Answers one request of a client.
    func serve(_ request: ControlRequest, _ client: ControlServer.Client) {
        // The guest agent refuses nearly everything while file systems are frozen.
        if let hold, request.needsThawedGuest {
            hold.waiting.append { [unowned self] in serve(request, client) }
            return
        }
        switch request {
        case .status: control.reply(client, .status(status()))
        case .events: control.subscribe(client)
        case .stop(let grace):
            control.wait(client, for: .stop)
            handle(.stop(grace: grace, agent: agent.isAlive))
        case .restart(let grace):
            control.wait(client, for: .restart)
            handle(.restart(grace: grace, agent: agent.isAlive))
        case .kill:
            control.wait(client, for: .stop)
            handle(.kill)
        case .pause:
            control.wait(client, for: .pause)
            handle(.pause)
        case .unpause:
            control.wait(client, for: .unpause)
            handle(.unpause)
        case .reload:
            do {
                try reload()
                control.reply(client, .done)
            } catch {
                control.reply(client, .failed("\(error)"))
            }
        case .exec(let arguments, let input, let timeout):
            exec(arguments, input: input, timeout: timeout) { [unowned self] outcome in
                control.reply(client, reply(outcome))
            }
        case .agent(let command, let arguments, let timeout):
            ask(command, arguments, timeout: timeout) { [unowned self] reply in
                switch reply {
                case .value(let value): control.reply(client, .value(value))
                case .failed(let why): control.reply(client, .failed(why))
                }
            }
        case .hypervisor(let command, let arguments):
            guard machine != nil else {
                return control.reply(client, .failed("the hypervisor does not run at the moment"))
            }
            let id = qmpNumber + 1
            qmpRequests.insert(id)
            send(QMP.Command(command, arguments)) { [unowned self] reply in
                qmpRequests.remove(id)
                switch reply {
                case .value(_, let value): control.reply(client, .value(value))
                case .failed(_, let why): control.reply(client, .failed(why))
                case .greeting, .event: break
                }
            }
        case .freeze(let pause, let limit): freeze(client, pause: pause, limit: limit)
        case .thaw: thaw(client)
        case .suspend(let memory):
            control.wait(client, for: .suspend)
            if lifecycle.state == .running { savedTo = memory }
            handle(.suspend)
        }
    }

    private func reply(_ outcome: ExecOutcome) -> ControlReply {
        switch outcome {
        case .failed(let why): .failed(why)
        case .ended(let end):
            .exec(
                ExecResult(
                    code: end.code, standardOutput: end.standardOutput,
                    standardError: end.standardError, truncated: end.truncated))
        }
    }
}
