// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Synchronization

/// What went wrong with the laboratory itself, rather than with what it tests.
struct LabError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// A child that does not outlive us, even when we are killed.
///
/// The signal that takes it along follows the thread that started it, so that thread waits with it.
func spawnBound(_ program: Program) async throws -> Child {
    var program = program
    program.dieWithParent = SIGKILL
    let bound = program
    return try await withCheckedThrowingContinuation { continuation in
        detachThread {
            do {
                let child = try bound.spawn()
                // A second descriptor: the child's own is closed by whoever reaps it.
                let watch = fcntl(child.pidfd, F_DUPFD_CLOEXEC, 3)
                continuation.resume(returning: child)
                var entry = pollfd(fd: watch, events: Int16(POLLIN), revents: 0)
                while poll(&entry, 1, -1) < 0, errno == EINTR {}
                close(watch)
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }
}

/// `probe.py` in one namespace: requests go in, and any number of them may be under way.
final class Agent: Sendable {
    private struct State {
        var next: Int64 = 1
        var waiting: [Int64: CheckedContinuation<JSONValue, any Error>] = [:]
        var isOver = false
    }
    private let state = Mutex(State())
    private let child: Child
    /// Lines longer than a pipe takes at once would mix without the lock.
    private let input: Mutex<Int32>
    private let name: String

    /// Starts the program and returns when it listens on its ports, such as `tcp:80`.
    static func start(in namespace: String, name: String, ports: [String]) async throws -> Agent {
        // -B: the folder of the sources is no place for compiled files.
        var program = Program(
            "/sbin/ip",
            [
                "netns", "exec", namespace, "/usr/bin/python3", "-BSE",
                Files.parent(#filePath) + "/probe.py", name,
            ] + ports)
        // A request to a program that has ended is an error, not our end.
        Signals.ignoreBrokenPipes()
        let requests = try Pipe().split()
        let answers = try Pipe().split()
        program.descriptors = [0: requests.reader, 1: answers.writer, 2: 2]
        let child: Child
        do {
            child = try await spawnBound(program)
        } catch {
            for fd in [requests.reader, requests.writer, answers.reader, answers.writer] {
                close(fd)
            }
            throw error
        }
        close(requests.reader)
        close(answers.writer)
        let reader = answers.reader
        let agent = Agent(child, input: requests.writer, name: name)
        // The first line says that it is ready.
        guard try await blocking({ try Linux.read(reader, 4096) }).isEmpty == false else {
            agent.stop()
            close(reader)
            throw LabError("\(name): probe.py did not start")
        }
        agent.listen(reader)
        return agent
    }

    private init(_ child: Child, input: Int32, name: String) {
        self.child = child
        self.input = Mutex(input)
        self.name = name
    }

    /// Ends the program; blocks until it has ended.
    func stop() {
        child.signal(SIGKILL)
        _ = try? child.waitBlocking()
        input.withLock { (fd) in _ = close(fd) }
    }

    /// Sends a request and returns the answer.
    func request(_ operation: String, _ fields: [JSONValue.Member]) async throws -> JSONValue {
        let id = state.withLock { state in
            defer { state.next += 1 }
            return state.next
        }
        let all: [JSONValue.Member] = [.init("op", .string(operation)), .init("id", .integer(id))]
        let line = JSONValue.object(all + fields).text() + "\n"
        let answer = try await reply(to: id) {
            try input.withLock { (fd) in try Linux.write(fd, line.utf8) }
        }
        if let text = answer["failed"]?.string { throw LabError("\(name): \(operation): \(text)") }
        return answer
    }

    private func reply(
        to id: Int64, send: () throws -> Void
    ) async throws -> JSONValue {
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let over = state.withLock {
                    if !$0.isOver { $0.waiting[id] = continuation }
                    return $0.isOver
                }
                if over { return continuation.resume(throwing: LabError("\(name) has ended")) }
                do {
                    try send()
                } catch {
                    state.withLock { $0.waiting.removeValue(forKey: id) }?.resume(throwing: error)
                }
            }
        } onCancel: {
            // A test that ran out of time must not wait here for ever.
            child.signal(SIGKILL)
        }
    }

    private func listen(_ reader: Int32) {
        detachThread { [self] in
            var buffer: [UInt8] = []
            while let chunk = try? Linux.read(reader, 65536), !chunk.isEmpty {
                buffer += chunk
                while let end = buffer.firstIndex(of: 10) {
                    if let answer = try? JSONValue(parsing: Array(buffer[..<end])),
                        let id = answer["id"]?.integer
                    {
                        state.withLock { $0.waiting.removeValue(forKey: id) }?
                            .resume(returning: answer)
                    }
                    buffer.removeSubrange(...end)
                }
            }
            close(reader)
            let left = state.withLock { state in
                state.isOver = true
                defer { state.waiting = [:] }
                return state.waiting
            }
            for one in left.values { one.resume(throwing: LabError("\(name) has ended")) }
        }
    }
}
