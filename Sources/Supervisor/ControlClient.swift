// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
package import Fleets
import Glibc
import Hypervisors
package import Linux

/// A request that brought no result.
package enum ControlError: Error, Equatable, CustomStringConvertible {
    /// Nothing listens: the VM does not run, or its supervisor is gone.
    case notRunning(String)
    /// The supervisor said why not.
    case refused(String)
    case timeout(String)
    case system(SystemError)
    /// The other side is not what we trust it to be.
    case garbled(String)

    package var description: String {
        switch self {
        case .notRunning(let path): "no supervisor listens on \(path)"
        case .refused(let reason): reason
        case .timeout(let path): "the supervisor on \(path) did not answer in time"
        case .system(let error): error.description
        case .garbled(let path): "the supervisor on \(path) answered what is no reply"
        }
    }
}

/// Talks to the supervisor of one VM.
///
/// Every call is a connection of its own. Replies are taken as from a stranger: bounded in length and time.
package struct ControlClient: Sendable {
    private let path: String
    private static let limit = 48 << 20

    /// Takes the path of a `control.sock`; nothing is opened yet.
    package init(_ path: String) { self.path = path }

    /// What the supervisor knows; it answers from memory, so two seconds are plenty.
    package func status(timeout: Double = 2) async throws -> VMStatus {
        guard case .status(let status) = try await call(.status, timeout: timeout) else {
            throw ControlError.garbled(path)
        }
        return status
    }

    /// Stops the guest within `grace` seconds (nil: as its spec says) and tells how it ended.
    ///
    /// No method: it was not running but waiting to be restarted, or it ended by itself.
    package func stop(
        grace: Double? = nil
    ) async throws -> (method: StopMethod?, seconds: Double) {
        try await stopped(.stop(grace: grace))
    }

    /// Ends the hypervisor at once.
    package func kill() async throws -> (method: StopMethod?, seconds: Double) {
        try await stopped(.kill)
    }

    package func pause() async throws { try await done(.pause) }
    package func unpause() async throws { try await done(.unpause) }
    /// Writes the guest's memory into a file that is there and empty, and ends the VM.
    package func suspend(memory: String) async throws {
        try await done(.suspend(memory: memory))
    }

    /// Shuts the guest down and starts it again; returns when the hypervisor runs again.
    package func restart(grace: Double? = nil) async throws {
        try await done(.restart(grace: grace))
    }

    /// Makes the supervisor read `launch.json` in its run folder again.
    ///
    /// It takes over generation, health checks, restart policy, stop grace and boot deadline. What
    /// the hypervisor was started with stays until a new supervisor starts it.
    package func reload() async throws { try await done(.reload) }

    /// Runs a program in the guest through its agent.
    package func exec(
        _ arguments: [String], input: [UInt8] = [], timeout: Double = 30
    ) async throws -> (code: Int32, standardOutput: [UInt8], standardError: [UInt8]) {
        let request = ControlRequest.exec(
            arguments: arguments, input: Data(input).base64EncodedString(), timeout: timeout)
        guard case .exec(let result) = try await call(request, timeout: timeout + 5) else {
            throw ControlError.garbled(path)
        }
        return (
            result.code, [UInt8](Data(base64Encoded: result.standardOutput) ?? Data()),
            [UInt8](Data(base64Encoded: result.standardError) ?? Data())
        )
    }

    /// The guest's own addresses, without loopback and link-local ones.
    package func addresses(timeout: Double = 5) async throws -> [String] {
        let interfaces = try await agent("guest-network-get-interfaces", timeout: timeout)
        return GuestAgent.addresses(interfaces)
    }

    /// Sets a user's password through the agent; `crypted` says that it is already a hash.
    package func setPassword(
        user: String, password: [UInt8], crypted: Bool, timeout: Double = 10
    ) async throws {
        let arguments: JSONValue = [
            "username": .string(user), "crypted": .bool(crypted),
            "password": .string(Data(password).base64EncodedString()),
        ]
        _ = try await agent("guest-set-user-password", arguments, timeout: timeout)
    }

    /// Any command of the guest agent; returns what it returned.
    package func agent(
        _ command: String, _ arguments: JSONValue = [:], timeout: Double = 10
    ) async throws -> JSONValue {
        try await value(
            .agent(command: command, arguments: arguments, timeout: timeout), timeout: timeout + 5)
    }

    /// Any QMP command; returns what it returned.
    package func hypervisor(
        _ command: String, _ arguments: JSONValue = [:], timeout: Double = 30
    ) async throws -> JSONValue {
        try await value(.hypervisor(command: command, arguments: arguments), timeout: timeout)
    }

    /// Holds the guest still while `body` runs, and says how still it was.
    ///
    /// Its file systems are frozen through the agent where that answers; `pause` stops its CPUs as
    /// well, which makes the hypervisor write out all that it has in memory. The supervisor lets go
    /// when the body returns or throws, when this process ends, and after `limit` seconds: then it
    /// was not held all the time, and what was read is as after a power cut.
    package func holding<R: Sendable>(
        pause: Bool = false, limit: Double = 30, _ body: () async throws -> R
    ) async throws -> (result: R, stillness: Stillness) {
        let session = try ControlSession(self)
        let first = try await session.call(
            .freeze(pause: pause, limit: limit), timeout: limit + 30)
        guard case .held(let held) = first else { throw ControlError.garbled(path) }
        let result: R
        do {
            result = try await body()
        } catch {
            _ = try? await session.call(.thaw, timeout: limit + 30)
            throw error
        }
        guard case .released(let end) = try await session.call(.thaw, timeout: limit + 30) else {
            throw ControlError.garbled(path)
        }
        let reason = end.wasHeld ? held.reason : "it took longer than \(Int(limit)) s"
        let stillness = Stillness(
            isFrozen: held.isFrozen && end.wasHeld, wasHeld: end.wasHeld, reason: reason,
            seconds: end.seconds)
        return (result, stillness)
    }

    /// Events from now on, until the supervisor leaves or the caller stops listening.
    package func events() async throws -> AsyncThrowingStream<VMEvent, any Error> {
        let socket = try connect(.events).release()
        return AsyncThrowingStream { continuation in
            let task = Task {
                defer { close(socket) }
                var lines = LineBuffer(limit: 65536)
                do {
                    while true {
                        try await readable(socket)
                        let chunk = try Linux.read(socket, 16384)
                        if chunk.isEmpty { break }
                        for line in lines.append(chunk) {
                            let value = try? JSONValue(parsing: line)
                            let event = value.flatMap(VMEvent.init(wire:))
                            if let event { continuation.yield(event) }
                        }
                    }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
            continuation.onTermination = { _ in task.cancel() }
        }
    }

    private func done(_ request: ControlRequest) async throws {
        guard case .done = try await call(request, timeout: nil) else {
            throw ControlError.garbled(path)
        }
    }

    private func stopped(_ request: ControlRequest) async throws -> (StopMethod?, Double) {
        guard case .stopped(let method, let seconds) = try await call(request, timeout: nil) else {
            throw ControlError.garbled(path)
        }
        return (method, seconds)
    }

    private func value(_ request: ControlRequest, timeout: Double) async throws -> JSONValue {
        guard case .value(let value) = try await call(request, timeout: timeout) else {
            throw ControlError.garbled(path)
        }
        return value
    }

    /// Sends one request and waits for its reply; nil waits as long as the supervisor lives.
    private func call(_ request: ControlRequest, timeout: Double?) async throws -> ControlReply {
        let reply = try await blocking { try exchange(request, timeout: timeout) }
        if case .failed(let reason) = reply { throw ControlError.refused(reason) }
        return reply
    }

    fileprivate func connect(_ request: ControlRequest) throws(ControlError) -> Descriptor {
        let socket = try connect()
        try send(request, on: socket)
        return socket
    }

    fileprivate func connect() throws(ControlError) -> Descriptor {
        do throws(SystemError) {
            return try UnixSocket.connect(path)
        } catch {
            throw unreached(error)
        }
    }

    fileprivate func send(
        _ request: ControlRequest, on socket: borrowing Descriptor
    ) throws(ControlError) {
        do throws(SystemError) {
            try socket.write(line(request.wire))
        } catch {
            throw unreached(error)
        }
    }

    private func unreached(_ error: SystemError) -> ControlError {
        let isGone = error.isMissing || error.code == ECONNREFUSED || error.code == EPIPE
        return isGone ? .notRunning(path) : .system(error)
    }

    private func exchange(
        _ request: ControlRequest, timeout: Double?
    ) throws(ControlError) -> ControlReply {
        let socket = try connect(request)
        return try reply(on: socket, timeout: timeout)
    }

    fileprivate func reply(
        on socket: borrowing Descriptor, timeout: Double?
    ) throws(ControlError) -> ControlReply {
        let end = timeout.map { Clock.monotonic() + UInt64($0 * 1e9) }
        var lines = LineBuffer(limit: ControlClient.limit)
        while true {
            var one = pollfd(fd: socket.raw, events: Int16(POLLIN), revents: 0)
            let now = Clock.monotonic()
            if let end, now >= end { throw .timeout(path) }
            let wait = end.map { Int32(min(($0 - now) / 1_000_000 + 1, 3_600_000)) } ?? -1
            guard poll(&one, 1, wait) > 0 else { continue }
            let chunk: [UInt8]
            do { chunk = try socket.read(65536) } catch { throw .system(error) }
            if chunk.isEmpty { throw .notRunning(path) }
            guard let line = lines.append(chunk).first else { continue }
            let value = try? JSONValue(parsing: line)
            let reply = value.flatMap(ControlReply.init(wire:))
            guard let reply else { throw .garbled(path) }
            return reply
        }
    }
}

/// How still a guest was while a picture of its disks was taken.
package struct Stillness: Sendable, Equatable {
    /// Its file systems were frozen all the time: everything that was written is there, whole.
    package let isFrozen: Bool
    /// It was held all the time, frozen or not.
    package let wasHeld: Bool
    /// Why it was not frozen.
    package let reason: String?
    /// How long the guest could not write.
    package let seconds: Double
}

/// Several requests on one connection: what a supervisor holds for it ends with it.
private final class ControlSession: Sendable {
    private let client: ControlClient
    private let socket: Descriptor

    init(_ client: ControlClient) throws(ControlError) {
        self.client = client
        socket = try client.connect()
    }

    func call(_ request: ControlRequest, timeout: Double) async throws -> ControlReply {
        let reply = try await blocking { [self] in
            try client.send(request, on: socket)
            return try client.reply(on: socket, timeout: timeout)
        }
        if case .failed(let reason) = reply { throw ControlError.refused(reason) }
        return reply
    }
}
