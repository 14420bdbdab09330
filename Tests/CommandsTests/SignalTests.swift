// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Testing

@testable import Commands

// Not with exit tests of the testing library: its monitor waits for any child, and an unreaped
// child of another suite makes it spin for ever.
@Suite(.timeLimit(.minutes(20))) struct SignalTests {
    @Test func theFirstSignalCancelsTheVerb() async throws {
        // The watcher reads on for a while: its end of the pipe stays open.
        let (reader, writer) = try Pipe().split()
        defer { close(writer) }
        let code = try await Commands.cancelling(on: reader) {
            try write(writer, [UInt8(SIGINT)])
            do {
                try await Task.sleep(for: .seconds(50))
                return 0
            } catch is CancellationError {
                return 1
            }
        }
        #expect(code == 130)
    }

    @Test func withoutASignalTheVerbDecides() async throws {
        let (reader, writer) = try Pipe().split()
        defer { close(writer) }
        #expect(try await Commands.cancelling(on: reader) { 7 } == 7)
        let error = await #expect(throws: Failure.self) {
            try await Commands.cancelling(on: reader) { throw Failure(.locked, "busy") }
        }
        #expect(error?.code == .locked)
    }

    /// A verb that is stuck in a system call: the open of a FIFO without a writer.
    @Test func aSecondSignalEndsAVerbThatDoesNotListen() async throws {
        let folder = try Martlet.makeFolder()
        defer { try? Files.remove(folder) }
        mkfifo("\(folder)/fleet.yaml", 0o600)
        var program = Program("\(Martlet.folder)/martlet", ["validate"])
        program.folder = folder
        let child = try program.spawn()
        try await untilItCatches(SIGINT, child.pid)
        child.signal(SIGINT)
        // The first one is heard before the second one is sent.
        usleep(100_000)
        child.signal(SIGTERM)
        #expect(try await child.wait() == .code(143))
    }

    @Test func aReaderThatLeavesEndsTheProgram() async throws {
        let (reader, writer) = try Pipe().split()
        close(reader)
        var program = Program("\(Martlet.folder)/martlet", ["help"])
        program.descriptors[1] = writer
        let child = try program.spawn()
        close(writer)
        #expect(try await child.wait() == .code(141))
    }

    /// Before the program has its handlers a signal would simply end it.
    private func untilItCatches(_ signal: Int32, _ pid: Int32) async throws {
        while true {
            let status = try Files.readText("/proc/\(pid)/status")
            let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("SigCgt:") })
            let mask = UInt64(line.split(separator: "\t").last ?? "", radix: 16) ?? 0
            if mask & (1 << UInt64(signal - 1)) != 0 { return }
            try await Task.sleep(for: .milliseconds(5))
        }
    }
}
