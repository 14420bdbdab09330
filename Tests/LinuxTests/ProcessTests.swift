// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Testing

@Suite(.timeLimit(.minutes(20))) struct ProcessTests {
    @Test func capturesOutputErrorsAndExitCode() async throws {
        let output = try await Program("/bin/sh", ["-c", "echo out; echo err >&2; exit 7"])
            .capture()
        #expect(output.text == "out\n")
        #expect(output.errorText == "err\n")
        #expect(output.exit == .code(7))
    }

    @Test func passesMegabytesThroughWithoutDeadlock() async throws {
        let input = [UInt8](repeating: 0x61, count: 3_000_000)
        let output = try await Program("/bin/cat").capture(input: input)
        #expect(output.standardOutput == input)
    }

    @Test func reportsTheSignalThatKilledIt() async throws {
        let output = try await Program("/bin/sh", ["-c", "kill -9 $$"]).capture()
        #expect(output.exit == .signal(SIGKILL))
        #expect(output.exit.shellCode == 137)
    }

    @Test func reportsAMissingProgramAsTheSystemDoes() throws {
        #expect(throws: SystemError("start /nope", ENOENT)) { try Program("/nope").spawn() }
    }

    @Test func aFileThatIsStillBeingWrittenIsWaitedFor() async throws {
        var template = Array("/tmp/martlet-busy.XXXXXX".utf8CString)
        let folder = String(cString: try #require(mkdtemp(&template)))
        defer { try? Files.remove(folder) }
        let path = "\(folder)/script"
        try Files.write(path, "#!/bin/sh\necho ran\n", mode: 0o755)
        // Holds it as a child of another thread does between its clone and its exec.
        var holder = Program("/bin/sh", ["-c", "echo open; sleep 0.3"])
        let out = try Pipe().split()
        let reader = Descriptor(owning: out.reader)
        let writer = try Descriptor.open(path, O_WRONLY)
        holder.descriptors = [1: out.writer, 5: writer.raw]
        let child = try holder.spawn()
        close(out.writer)
        close(writer.release())
        #expect(try read(reader.raw, 16) == Array("open\n".utf8))
        #expect(try await Program(path).capture().text == "ran\n")
        #expect(try await child.wait() == .code(0))
    }

    @Test func aGrandchildThatKeepsTheStreamDoesNotHoldUs() async throws {
        let output = try await Program("/bin/sh", ["-c", "sleep 600 & echo $!"]).capture()
        // We are here while it still sleeps: that is all there is to show.
        let grandchild = try #require(Int32(output.text.dropLast()))
        #expect(kill(grandchild, SIGKILL) == 0)
    }

    @Test func passesOnlyTheDescriptorsThatWereAsked() async throws {
        let leak = try Descriptor.open("/dev/null", O_RDONLY)
        var program = Program(
            "/bin/sh", ["-c", "ls /proc/self/fd | wc -l; readlink /proc/self/fd/7"])
        program.descriptors[7] = leak.raw
        let output = try await program.capture()
        // 0, 1, 2, 7 and the one that ls opens for the folder.
        #expect(output.text == "5\n/dev/null\n")
    }

    /// Ends of programs that come while others are awaited: none may be missed.
    @Test func noEndIsMissedWhenManyRunAtOnce() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    for _ in 0..<25 {
                        let output = try await Program("/bin/sh", ["-c", "echo out; echo err >&2"])
                            .capture()
                        #expect(output.text + output.errorText == "out\nerr\n")
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    @Test func aWaitEndsWhenItsTaskIsCancelled() async throws {
        let pipe = try Pipe().split()
        defer {
            close(pipe.reader)
            close(pipe.writer)
        }
        let waiting = Task { try await readable(pipe.reader) }
        waiting.cancel()
        await #expect(throws: CancellationError.self) { try await waiting.value }
    }

    /// The child must not wait for threads that end while it is forked.
    @Test(.enabled(if: getuid() == 0, "changing the user needs root"))
    func becomesAnotherUserWhileThreadsComeAndGo() async throws {
        try await withThrowingTaskGroup { group in
            group.addTask {
                while !Task.isCancelled { try await blocking { _ = usleep(200) } }
            }
            for _ in 0..<50 {
                var program = Program("/bin/true")
                (program.user, program.group) = (65534, 65534)
                let exit = try await program.capture().exit
                #expect(exit == .code(0))
            }
            group.cancelAll()
        }
    }

    @Test func cancellingACaptureEndsItsProgram() async throws {
        var template = Array("/tmp/martlet-capture.XXXXXX".utf8CString)
        let folder = String(cString: try #require(mkdtemp(&template)))
        defer { try? Files.remove(folder) }
        let program = Program("/bin/sh", ["-c", "echo $$ >\(folder)/pid; exec sleep 60"])
        let task = Task { try await program.capture() }
        var pid: Int32?
        while pid == nil {
            try await Task.sleep(for: .milliseconds(10))
            pid = (try? Files.readText("\(folder)/pid")).flatMap { Int32($0.prefix { $0 != "\n" }) }
        }
        task.cancel()
        await #expect(throws: CancellationError.self) { try await task.value }
        #expect(kill(try #require(pid), 0) == -1 && errno == ESRCH)
    }
}
