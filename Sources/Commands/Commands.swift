// SPDX-License-Identifier: Apache-2.0
import Arguments
import Glibc
import Linux
import Synchronization

/// The command line as a whole.
package enum Commands {
    /// Parses the words after the program's name, runs the verb, reports what failed, and returns the exit code.
    package static func main(_ words: [String]) async -> Int32 {
        Signals.ignoreBrokenPipes()
        let words = words == ["--version"] ? ["version"] : words
        // Known before the words are understood: a usage error is a JSON document, too.
        let printer = Printer(json: words.prefix { $0 != "--" }.contains("--json"))
        do {
            switch try root.parse(words) {
            case .help(let path):
                printer.write(Help(path).text(width: printer.terminal.width))
                return ExitCode.done.rawValue
            case .run(let arguments):
                return try await run(arguments)
            }
        } catch let error as UsageError where words.isEmpty && !printer.isJSON {
            printer.note(Help([root]).text(width: printer.errors.width))
            return printer.report(Failure(error))
        } catch {
            return printer.report(Failure(error))
        }
    }

    private static func run(_ arguments: Arguments) async throws -> Int32 {
        guard arguments.path.last?.handlesSignals == false else { return try await arguments.run() }
        let signals = try Signals.pipe([SIGINT, SIGTERM, SIGHUP])
        return try await cancelling(on: signals) { try await arguments.run() }
    }

    /// Runs work that the first signal cancels; a second one, or ten seconds, end the process.
    ///
    /// The result is 128 plus the signal's number when there was one.
    static func cancelling(
        on signals: Int32, _ work: @escaping @Sendable () async throws -> Int32
    ) async throws -> Int32 {
        let task = Task { try await work() }
        let watcher = SignalWatcher(signals) { task.cancel() }
        let result = await task.result
        if let number = watcher.finish() { return 128 + number }
        return try result.get()
    }
}

/// Waits for signals on a thread of its own, so that it hears them even when a verb blocks every task.
private final class SignalWatcher: Sendable {
    private struct State {
        var received: Int32?
        var isFinished = false
    }

    private let state = Mutex(State())

    init(_ pipe: Int32, onFirst: @escaping @Sendable () -> Void) {
        detachThread {
            guard let number = next(from: pipe, timeout: -1) else { return }
            self.state.withLock { $0.received = number }
            onFirst()
            // What the verb has under way gets this long to be taken back.
            let second = next(from: pipe, timeout: 10_000)
            if !self.state.withLock(\.isFinished) { _exit(128 + (second ?? number)) }
        }
    }

    /// Ends the watch; returns the signal that was heard.
    func finish() -> Int32? {
        state.withLock { state in
            state.isFinished = true
            return state.received
        }
    }
}

/// The number of the next signal; nil after `timeout` milliseconds, -1 waits for ever.
private func next(from pipe: Int32, timeout: Int32) -> Int32? {
    var one = pollfd(fd: pipe, events: Int16(POLLIN), revents: 0)
    // A signal interrupts the poll as well; its byte is then there on the next turn.
    while poll(&one, 1, timeout) < 0, errno == EINTR {}
    guard one.revents != 0, let byte = try? read(pipe, 1).first else { return nil }
    return Int32(byte)
}
