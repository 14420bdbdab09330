// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors

/// The conversation with the guest agent, which answers one request at a time and names none.
///
/// Pure: lines and the clock go in, bytes and results come out. After a missing answer the next
/// request first gets both sides into step again, so a late answer is never taken for another.
struct AgentSession: Sendable {
    enum Output: Sendable, Equatable {
        case send([UInt8])
        case finished(Int, GuestAgent.Reply)
    }

    private struct Request {
        let number: Int
        let bytes: [UInt8]
        let seconds: Double
    }

    private enum State: Equatable {
        case closed, unsynced, idle
        case syncing(until: Double)
        case busy(Int, until: Double)
    }

    private var state = State.closed
    private var queue: [Request] = []
    private var numbers = 0
    private var syncs: Int64 = 0
    /// Whether the agent answered last.
    private(set) var isAlive = false

    static let closed = GuestAgent.Reply.failed("the guest agent does not run")

    /// The moment at which `tick` must be called at the latest.
    var deadline: Double? {
        switch state {
        case .syncing(let until), .busy(_, let until): until
        case .closed, .unsynced, .idle: nil
        }
    }

    /// The guest has opened or closed the agent's port.
    mutating func port(open: Bool, at now: Double) -> [Output] {
        isAlive = false
        if open {
            // Our own greeting finds out at once whether it really answers.
            state = .unsynced
            return sync(now)
        }
        let lost = current.map { [$0] } ?? []
        let outputs = (lost + queue.map(\.number)).map { Output.finished($0, Self.closed) }
        state = .closed
        queue = []
        return outputs
    }

    /// Queues a command; its number comes back with its reply.
    mutating func submit(
        _ command: String, _ arguments: JSONValue, timeout: Double, at now: Double
    ) -> (number: Int, outputs: [Output]) {
        numbers += 1
        guard state != .closed else { return (numbers, [.finished(numbers, Self.closed)]) }
        queue.append(
            Request(
                number: numbers, bytes: GuestAgent.command(command, arguments), seconds: timeout))
        return (numbers, advance(now))
    }

    mutating func received(_ line: [UInt8], at now: Double) -> [Output] {
        guard let reply = GuestAgent.decode(line) else { return [] }
        switch state {
        // An agent that has just started may take longer than we waited, and is welcome.
        case .syncing, .unsynced:
            guard reply == .value(.integer(syncs)) else { return [] }
            isAlive = true
            state = .idle
            return advance(now)
        case .busy(let number, _):
            state = .idle
            return [.finished(number, reply)] + advance(now)
        default:
            // The answer to something given up.
            return []
        }
    }

    mutating func tick(at now: Double) -> [Output] {
        switch state {
        case .syncing(let until) where now >= until:
            isAlive = false
            state = .unsynced
            let waiting = queue.map(\.number)
            queue = []
            return waiting.map { .finished($0, .failed("the guest agent does not answer")) }
        case .busy(let number, let until) where now >= until:
            isAlive = false
            state = .unsynced
            let reply = GuestAgent.Reply.failed("the guest agent did not answer in time")
            return [.finished(number, reply)] + advance(now)
        default:
            return []
        }
    }

    private var current: Int? { if case .busy(let number, _) = state { number } else { nil } }

    private mutating func advance(_ now: Double) -> [Output] {
        guard let next = queue.first else { return [] }
        switch state {
        case .unsynced:
            return sync(now)
        case .idle:
            queue.removeFirst()
            state = .busy(next.number, until: now + next.seconds)
            return [.send(next.bytes)]
        case .closed, .syncing, .busy:
            return []
        }
    }

    private mutating func sync(_ now: Double) -> [Output] {
        syncs += 1
        state = .syncing(until: now + 5)
        return [.send(GuestAgent.sync(syncs))]
    }
}
