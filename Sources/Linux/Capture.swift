// SPDX-License-Identifier: Apache-2.0
import Glibc

/// What a finished program printed, and how it ended.
package struct Output: Sendable {
    package let exit: Exit
    package let standardOutput: [UInt8]
    package let standardError: [UInt8]

    package var text: String { String(decoding: standardOutput, as: UTF8.self) }
    package var errorText: String { String(decoding: standardError, as: UTF8.self) }
}

extension Program {
    /// Runs the program to its end, giving it `input`, and returns what it printed.
    ///
    /// Both streams are read while it runs (reading after the end deadlocks past 64 KiB), and a
    /// grandchild that keeps a stream open does not hold us: what counts is the child's own end. It
    /// is killed when the task is cancelled, and fails with EFBIG when it prints more than `limit`
    /// bytes on one of them.
    package func capture(
        input: [UInt8] = [], limit: Int = .max, onError: (@Sendable (String) -> Void)? = nil
    ) async throws -> Output {
        var program = self
        let out = try Pipe().split()
        let err = try Pipe().split()
        let outReader = Descriptor(owning: out.reader)
        let errReader = Descriptor(owning: err.reader)
        var inputReader: Int32 = -1
        var inputWriter: Int32 = -1
        if !input.isEmpty {
            (inputReader, inputWriter) = try Pipe().split()
            program.descriptors[0] = inputReader
        }
        program.descriptors[1] = out.writer
        program.descriptors[2] = err.writer
        let child: Child
        do {
            child = try program.spawn()
        } catch {
            for fd in [out.writer, err.writer, inputReader, inputWriter] where fd >= 0 { close(fd) }
            throw error
        }
        for fd in [out.writer, err.writer, inputReader] where fd >= 0 { close(fd) }
        let outFD = outReader.raw
        let errFD = errReader.raw
        async let output = collect(outFD, until: child.pidfd, limit, lines: nil)
        async let errors = collect(errFD, until: child.pidfd, limit, lines: onError)
        if inputWriter >= 0 { feed(inputWriter, input) }
        let result: ([UInt8], [UInt8])
        do {
            result = try await (output, errors)
        } catch {
            // Nobody waits for it any more, and it must not go on behind our back.
            child.signal(SIGKILL)
            // Its pidfd is closed when it is reaped: until then both readers may watch it.
            _ = try? await output
            _ = try? await errors
            _ = try? child.waitBlocking()
            throw error
        }
        let exit = try await child.wait()
        return Output(exit: exit, standardOutput: result.0, standardError: result.1)
    }
}

/// Writes the input from a thread of its own, so that a child that reads slowly blocks no task.
private func feed(_ fd: Int32, _ input: [UInt8]) {
    let writer = Descriptor(owning: fd).release()
    detachThread {
        // A child that stops reading early gets the rest lost, as in a shell pipe.
        try? write(writer, input)
        close(writer)
    }
}

/// Reads until the end of the stream, or until the child has ended and the stream is drained.
private func collect(
    _ fd: Int32, until pidfd: Int32, _ limit: Int, lines: (@Sendable (String) -> Void)?
) async throws -> [UInt8] {
    var all: [UInt8] = []
    var lineStart = 0
    while true {
        try await readable(fd, pidfd)
        var one = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
        guard poll(&one, 1, 0) > 0 else {
            // Nothing to read, so it was the child that ended.
            return all
        }
        let chunk = try read(fd, 65536)
        if chunk.isEmpty { return all }
        guard all.count + chunk.count <= limit else {
            throw SystemError("the output of a program", EFBIG)
        }
        all += chunk
        guard let lines else { continue }
        while let end = all[lineStart...].firstIndex(of: 10) {
            lines(String(decoding: all[lineStart..<end], as: UTF8.self))
            lineStart = end + 1
        }
    }
}
