// SPDX-License-Identifier: Apache-2.0
import Glibc
import Hypervisors
import Linux
import Testing

@testable import Supervisor

/// Whole supervisors as processes of their own, on real sockets, over a hypervisor that misbehaves.
@Suite(.timeLimit(.minutes(20))) struct SupervisorTests {
    @Test func bootsAndIsStoppedByItsAgent() async throws {
        let rig = try Rig("boot=0.1 agent exec=0")
        // Two checks at once, which the fake agent runs under the same process id.
        rig.spec.health = [.init(.tcp(port: 80)), .init(.exec(command: "true"))]
        try await rig.startAndBoot()
        try await rig.until("it is healthy") { try await rig.control.status().health == .healthy }
        let status = try await rig.control.status()
        #expect(status.agent)
        #expect(status.generation == 3)
        #expect(status.guestState == "degraded")
        #expect(status.failedUnits == ["a.service", "b.service"])
        let seconds = try #require(status.bootSeconds)
        #expect(seconds >= 0.1 && seconds < 60)
        #expect(await rig.observe().state == .running)
        #expect(rig.record?.pid == status.pid)

        let (method, _) = try await rig.control.stop()
        #expect(method == .agent)
        try await rig.untilGone()
        #expect(rig.exit?.ending == .stopped)
        #expect(rig.exit?.stopMethod == .agent)
        #expect(await rig.observe() == Observation(state: .stopped, health: .none, exit: rig.exit))
        let left = try Files.list(rig.folder).filter { $0.hasSuffix(".sock") }
        #expect(left == [])
    }

    @Test(arguments: [
        ("boot agent", 10.0, StopMethod.agent),
        ("boot agent=silent", 10, .acpi),
        ("boot agent=stubborn", 1, .acpi),
        ("boot presses=3", 10, .acpi),
        ("boot ignore-power", 0.5, .quit),
        ("boot agent=stubborn ignore-power ignore-quit", 0.2, .kill),
    ]) func aStopSaysHowItEnded(
        _ behaviour: String, _ grace: Double, _ expected: StopMethod
    ) async throws {
        let rig = try Rig(behaviour)
        try await rig.startAndBoot()
        if behaviour.split(separator: " ").contains("agent") {
            try await rig.until("agent") { try await rig.control.status().agent }
        }
        let (method, seconds) = try await rig.control.stop(grace: grace)
        #expect(method == expected)
        // Less than the grace that it would have without being told.
        #expect(seconds < 25)
        try await rig.untilGone()
        #expect(rig.exit?.stopMethod == expected)
    }

    @Test func killEndsAtOnce() async throws {
        let rig = try Rig("boot ignore-power ignore-quit")
        try await rig.startAndBoot()
        let (method, seconds) = try await rig.control.kill()
        #expect(method == .kill)
        #expect(seconds < 25)
        try await rig.untilGone()
    }

    @Test func aPortThatIsTakenFailsTheStart() async throws {
        let rig = try Rig(
            "refuse=-netdev_user:_Could_not_set_up_host_forwarding_rule_'tcp:127.0.0.1:22-:22'")
        await #expect {
            try await rig.start()
        } throws: { error in
            "\(error)".hasPrefix("port 127.0.0.1:22/tcp of the host cannot be opened")
        }
        try await rig.untilGone()
        let seen = await rig.observe()
        #expect(seen.state == .failed)
        #expect(seen.reason?.hasPrefix("port 127.0.0.1:22/tcp") == true)
    }

    @Test func aMissingProgramNamesItsPackage() async throws {
        let rig = try Rig("")
        rig.spec.hypervisor = "/nope/qemu"
        await #expect(
            throws: StartError.failed(
                "start /nope/qemu: No such file or directory "
                    + "(the Debian package qemu-system-x86 has it)")
        ) { try await rig.start() }
        #expect(rig.exit?.ending == .startFailed)
    }

    @Test func aSecondSupervisorIsRefused() async throws {
        let rig = try Rig("boot")
        try await rig.startAndBoot()
        await #expect(
            throws: StartError.failed(
                "web already runs: another supervisor or its hypervisor holds the lock")
        ) { try await rig.start() }
        // The first one is as it was.
        #expect(await rig.state == .running)
        _ = try await rig.control.stop()
    }

    @Test func aHangAtBootIsTriedAgain() async throws {
        let rig = try Rig("silent;boot=0.1")
        rig.spec.boot.deadline = 0.5
        try await rig.startAndBoot()
        let status = try await rig.control.status()
        #expect(status.bootMisses == 1)
        #expect(status.restarts == 0)
        _ = try await rig.control.stop()
    }

    @Test func aGuestThatNeverBootsFailsWithItsOwnWords() async throws {
        let rig = try Rig("init-error=0.1")
        // On a busy machine it has failed before the start is reported, which then says so.
        try? await rig.start()
        try await rig.untilGone()
        #expect(rig.exit?.ending == .bootFailed)
        let seen = await rig.observe()
        #expect(seen.state == .failed)
        #expect(seen.reason == "the guest cannot boot: no layer0 within 5 s")
    }

    @Test func aCrashIsRestartedThenACrashLoopGivenUp() async throws {
        let rig = try Rig("boot crash=0.1")
        rig.spec.restart.limit = 2
        try await rig.start()
        try await rig.untilGone()
        let exit = try #require(rig.exit)
        #expect(exit.ending == .crashLoop)
        #expect(exit.restarts == 2)
        #expect(
            exit.reason == "it failed 3 times within 600 s, last: the hypervisor ended with "
                + "signal 9 (Killed)")
    }

    @Test func subscribersHearWhatHappens() async throws {
        let rig = try Rig("")
        try await rig.start()
        let events = try await rig.control.events()
        // Requests are served in the order in which they came.
        #expect(await rig.state == .starting)
        try UnixSocket.connect(rig.spec.paths.console).write("boot\n".utf8)
        try await rig.until("it runs") { await rig.state == .running }
        _ = try await rig.control.stop()
        var kinds: [VMEvent.Kind] = []
        for try await event in events { kinds.append(event.kind) }
        #expect(kinds == [.booted, .stopping, .ended])
    }

    @Test func aPanicIsNamed() async throws {
        let rig = try Rig("boot panic=0.2")
        rig.spec.restart.policy = .no
        try await rig.start()
        try await rig.untilGone()
        #expect(rig.exit?.ending == .crashed)
        #expect(rig.exit?.reason == "the guest's kernel panicked: Attempted to kill init!")
    }

    @Test func aGuestThatRebootsComesBack() async throws {
        let rig = try Rig("boot reboot=0.2;boot")
        try await rig.start()
        try await rig.until("it came back") {
            let status = try await rig.control.status()
            return status.restarts == 1 && status.state == .running
        }
        _ = try await rig.control.stop()
    }

    @Test func aPowerOffIsNotUndone() async throws {
        let rig = try Rig("boot off=0.2")
        try await rig.start()
        try await rig.untilGone()
        #expect(rig.exit?.ending == .poweredOff)
        #expect(await rig.observe().state == .stopped)
    }

    @Test func theHypervisorDiesWithItsSupervisor() async throws {
        let rig = try Rig("boot ignore-power ignore-quit")
        try await rig.startAndBoot()
        let record = try #require(rig.record)
        let pid = try #require(record.pid)
        Glibc.kill(record.supervisorPid, SIGKILL)
        try await rig.untilGone()
        try await rig.until("no hypervisor is left") { Glibc.kill(pid, 0) != 0 }
        let seen = await rig.observe()
        #expect(seen.state == .failed)
        #expect(seen.reason == "the supervisor was killed")
        // And it can be started again.
        try await rig.startAndBoot()
        _ = try await rig.control.stop(grace: 0)
        try await rig.untilGone()
        #expect(await rig.observe().state == .stopped)
    }

    @Test func aKilledHypervisorIsReplaced() async throws {
        let rig = try Rig("boot")
        try await rig.startAndBoot()
        let pid = try #require(rig.record?.pid)
        Glibc.kill(pid, SIGKILL)
        try await rig.until("another one runs") {
            let status = try await rig.control.status()
            return status.state == .running && status.pid != pid
        }
        #expect(try await rig.control.status().restarts == 1)
        _ = try await rig.control.stop()
    }

    @Test func aSignalStopsItGracefully() async throws {
        let rig = try Rig("boot")
        try await rig.startAndBoot()
        Glibc.kill(try #require(rig.record?.supervisorPid), SIGTERM)
        try await rig.untilGone()
        #expect(rig.exit?.ending == .stopped)
        #expect(rig.exit?.stopMethod == .acpi)
    }

    @Test func restartsOnRequest() async throws {
        let rig = try Rig("boot")
        try await rig.startAndBoot()
        let pid = try #require(rig.record?.pid)
        try await rig.control.restart()
        try await rig.until("it runs") { await rig.state == .running }
        #expect(rig.record?.pid != pid)
        #expect(try await rig.control.status().restarts == 0)
        _ = try await rig.control.stop()
    }

    @Test func takesOverAChangedSpec() async throws {
        let rig = try Rig("boot agent exec=0")
        try await rig.startAndBoot()
        let pid = try #require(rig.record?.pid)
        #expect(try await rig.control.status().health == Health.none)
        rig.spec.generation = 4
        rig.spec.health = [.init(.tcp(port: 80))]
        rig.spec.restart.policy = .no
        try rig.spec.write(rig.spec.paths.spec)
        try await rig.control.reload()
        try await rig.until("it is healthy") { try await rig.control.status().health == .healthy }
        #expect(try await rig.control.status().generation == 4)
        #expect(rig.record?.generation == 4)
        #expect(rig.record?.pid == pid)
        Glibc.kill(pid, SIGKILL)
        try await rig.untilGone()
        #expect(rig.exit?.ending == .crashed)
    }

    @Test func pausesAndGoesOn() async throws {
        let rig = try Rig("boot")
        try await rig.startAndBoot()
        try await rig.control.pause()
        #expect(await rig.state == .paused)
        try await rig.control.unpause()
        #expect(await rig.state == .running)
        await #expect(throws: ControlError.refused("the guest agent does not run")) {
            try await rig.control.agent("guest-ping", timeout: 1)
        }
        _ = try await rig.control.stop()
    }

    @Test func aFullHostDiskIsNamed() async throws {
        let rig = try Rig("boot io-error=0.2")
        try await rig.start()
        try await rig.until("it is paused") { await rig.state == .paused }
        let why = try await rig.control.status().reason
        #expect(why == "the host has no space left for disk-data: free some, then unpause")
        _ = try await rig.control.kill()
    }

    @Test func passesCommandsToTheAgent() async throws {
        let rig = try Rig("boot agent exec=3")
        try await rig.startAndBoot()
        try await rig.until("agent") { try await rig.control.status().agent }
        let result = try await rig.control.exec(["/bin/echo", "hello"])
        #expect(result.code == 3)
        #expect(result.standardOutput == [UInt8]("hello\n".utf8))
        await #expect(throws: ControlError.refused("no guest-nope")) {
            try await rig.control.agent("guest-nope")
        }
        _ = try await rig.control.stop()
    }

    @Test func aSettledSupervisorIsSmall() async throws {
        let rig = try Rig("boot agent")
        try await rig.startAndBoot()
        let pid = try #require(rig.record?.supervisorPid)
        func kibibytes(_ field: String) throws -> Int {
            let text = try Files.readText("/proc/\(pid)/smaps_rollup")
            let line = try #require(text.split(separator: "\n").first { $0.hasPrefix(field) })
            return try #require(Int(line.split(separator: " ")[1]))
        }
        // The debug build maps 20 MiB while it starts; what is left is what it works with.
        try await rig.until("it has given back its start") { try kibibytes("Rss:") < 8192 }
        #expect(await rig.state == .running)
        _ = try await rig.control.stop()
    }

    @Test func garbageFromTheGuestHarmsNothing() async throws {
        let rig = try Rig("garbage boot=0.1 agent exec=0")
        try await rig.startAndBoot()
        try await rig.until("agent") { try await rig.control.status().agent }
        #expect(try await rig.control.exec(["/bin/true"]).code == 0)
        _ = try await rig.control.stop()
    }

    @Test func garbageFromClientsHarmsNothing() async throws {
        let rig = try Rig("boot")
        try await rig.startAndBoot()
        for text in [
            "\n\n", "{}\n", "\u{0}\u{1}\n", "{\"do\":", String(repeating: "x", count: 99_999),
        ] {
            try UnixSocket.connect(rig.spec.paths.control).write(text.utf8)
        }
        #expect(await rig.state == .running)
        _ = try await rig.control.stop()
    }

    @Test(.enabled(if: geteuid() == 0, "needs root to become somebody else"))
    func strangersAreTurnedAway() async throws {
        let rig = try Rig("boot")
        try await rig.startAndBoot()
        // Even where the permissions of the files let everybody in.
        try check("chmod") { chmod(rig.folder, 0o755) }
        let tool = rig.folder + "/tool"
        // By another process: a child that somebody forks meanwhile would hold ours open for
        // writing, and nothing could execute it.
        try #require(await Program("/bin/cp", [Rig.tool, tool]).capture().exit.isSuccess)
        try check("chmod") { chmod(tool, 0o755) }
        for socket in [rig.spec.paths.control, rig.spec.paths.console] {
            try check("chmod") { chmod(socket, 0o666) }
        }
        var ask = Program(tool, ["ask", rig.spec.paths.control])
        #expect(try await ask.capture().text == "answered\n")
        ask.user = 65534
        ask.group = 65534
        #expect(try await ask.capture().text == "refused\n")
        ask.arguments[1] = rig.spec.paths.console
        #expect(try await ask.capture().text == "refused\n")
        _ = try await rig.control.stop()
    }

    @Test func aLongPathServesToo() async throws {
        let rig = try Rig("boot")
        let long = rig.folder + "/" + String(repeating: "long/", count: 30)
        try Files.makeFolder(long)
        rig.spec.paths.runFolder = long
        try await rig.startAndBoot()
        _ = try await rig.control.stop()
    }
}

@Suite(.timeLimit(.minutes(20))) struct ConsoleTests {
    /// Reads until the text has come.
    private func expect(_ text: String, from socket: borrowing Descriptor) async throws {
        var seen = ""
        for _ in 0..<1000 {
            var one = pollfd(fd: socket.raw, events: Int16(POLLIN), revents: 0)
            if poll(&one, 1, 0) > 0 {
                seen += String(decoding: try socket.read(65536), as: UTF8.self)
            }
            if seen.contains(text) { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        Issue.record("'\(text)' did not come, but '\(seen.suffix(200))'")
    }

    @Test func twoClientsSeeTheSameAndBothMaySpeak() async throws {
        let rig = try Rig("boot")
        try await rig.startAndBoot()
        let one = try UnixSocket.connect(rig.spec.paths.console)
        let two = try UnixSocket.connect(rig.spec.paths.console)
        try one.write("first\n".utf8)
        try await expect("echo first", from: two)
        try two.write("second\n".utf8)
        try await expect("echo second", from: one)
        _ = try await rig.control.stop()
        let log = try Files.readText(rig.spec.paths.consoleLog)
        #expect(log.contains("booted") && log.contains("echo second"))
    }

    @Test func aFloodIsBoundedAndSlowClientsHoldNobodyUp() async throws {
        // 4.8 MB before the boot, and a client that reads nothing.
        let rig = try Rig("flood boot=0.3")
        try await rig.start()
        let slow = try UnixSocket.connect(rig.spec.paths.console)
        try await rig.until("it runs") { await rig.state == .running }
        for path in [rig.spec.paths.consoleLog, rig.spec.paths.consoleLog + ".1"] {
            #expect(try Files.status(path).size <= 1 << 20)
        }
        #expect(try Files.readText(rig.spec.paths.consoleLog).contains("booted"))
        _ = slow
        _ = try await rig.control.stop()
    }

    @Test func theLogKeepsTheFileBefore() throws {
        let rig = try Rig("")
        let path = rig.folder + "/log"
        let log = try BoundedLog(path, limit: Console.logLimit)
        log.append([UInt8](repeating: 97, count: Console.logLimit))
        log.append([98])
        #expect(try Files.readText(path) == "b")
        #expect(try Files.status(path + ".1").size == Int64(Console.logLimit))
        let again = try BoundedLog(path, limit: Console.logLimit)
        again.append([99])
        #expect(try Files.readText(path) == "bc")
    }
}
