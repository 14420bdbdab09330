// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Supervisor
import Testing

/// Whole VMs to disk and back: real migration of a machine whose guest is made up.
@Suite(.timeLimit(.minutes(20))) struct SuspendTests {
    private static let declared = "web: {memory: 256MiB, restart: no}"

    private func ready(_ vms: String = declared) async throws -> World {
        let world = try await World("qemu boot=0.05 agent freeze")
        try world.declare(vms)
        try await world.must("up")
        return world
    }

    @Test func goesOnWhereItWas() async throws {
        let world = try await ready()
        try await world.guest("web").write(1, at: 0)
        let files = world.layout.vm("web")
        try await world.must("suspend", "web")
        try await world.expectState("web", "suspended")
        try world.expectNothingLeftOver()
        #expect(try Files.status(files.memory).mode == 0o600)
        // It is no failure, nothing starts it by the way, and a second one has nothing to do.
        #expect(try await world.martlet("plan", "--check").exit == .code(0))
        try await world.must("up")
        try await world.must("stop", "web")
        try await world.expectState("web", "suspended")
        let boots = try Files.readText(files.consoleLog).split(separator: "booted").count

        try await world.must("resume", "web")
        try await world.expectState("web", "running")
        try await world.until("its clock is set") {
            try Files.readText(files.consoleLog).contains("clock set")
        }
        #expect(try Files.readText(files.consoleLog).split(separator: "booted").count == boots)
        #expect(try await world.guest("web").holds(1, at: 0))
        #expect(!Files.exists(files.memory) && !Files.exists(files.suspendRecord))
        try await world.expectTruth()
        try world.expectNothingLeftOver()
        // Its guest can be shut down, and then starts as ever.
        try await world.must("restart", "web")
        try await world.must("suspend", "web")
        try await world.must("resume", "web")
        try await world.must("stop", "web")
        try await world.expectState("web", "stopped")
    }

    @Test func isNotStartedByTheWay() async throws {
        let world = try await ready()
        try await world.must("suspend", "web")
        for words in [["start", "web"], ["prepare", "web"], ["restart", "web"]] {
            let output = try await world.program(words).capture()
            #expect(output.exit == .code(1))
            let said = output.text + output.errorText
            #expect(said.contains("'martlet resume web'"), "\(said)")
        }
        try await world.expectState("web", "suspended")
        try await world.must("start", "--discard-memory", "web")
        try await world.expectState("web", "running")
        #expect(!Files.exists(world.layout.vm("web").memory))
        let said = try await world.mustFail("resume", "web", code: 1)
        #expect(said.contains("it is running, not suspended"))
    }

    @Test func aChangeWaitsUntilItIsResumed() async throws {
        let world = try await ready()
        try await world.must("suspend", "web")
        try world.declare("web: {memory: 320MiB, restart: no}")
        let said = try await world.mustFail("up", code: 1)
        #expect(said.contains("its memory would be lost"))
        // What only the host uses does not concern its memory.
        try world.declare("web: {memory: 256MiB, restart: no, stop: {grace: 7s}}")
        try await world.must("up")
        try await world.expectState("web", "suspended")
        try await world.must("resume", "web")
        #expect(try await world.martlet("plan", "--check").exit == .code(0))
    }

    @Test func otherDisksAreNotMet() async throws {
        let world = try await ready()
        try await world.must("suspend", "web")
        try await world.mark("web")
        let said = try await world.mustFail("resume", "web", code: 1)
        #expect(said.contains("data.qcow2 was changed since it was suspended"), "\(said)")
        try await world.expectState("web", "suspended")
        try await world.must("recreate", "web", "--yes")
        try await world.expectState("web", "stopped")
    }

    @Test func anotherHypervisorIsRefused() async throws {
        let world = try await ready()
        try await world.must("suspend", "web")
        try world.behave("qemu version=6.1 boot=0.05 agent")
        let said = try await world.mustFail("resume", "web", code: 1)
        #expect(said.contains("and 6.1 is installed"), "\(said)")
        try await world.expectState("web", "suspended")
    }

    @Test func damagedMemoryStaysForTheNextTry() async throws {
        let world = try await ready()
        try await world.must("suspend", "web")
        let memory = world.layout.vm("web").memory
        let good = try Files.read(memory)
        let file = try Descriptor.open(memory, O_WRONLY)
        try file.write([UInt8](repeating: 0x5a, count: good.count))
        let said = try await world.mustFail("resume", "web", code: 1)
        #expect(said.contains("web did not start"), "\(said)")
        try await world.expectState("web", "suspended")
        try world.expectNothingLeftOver()
        lseek(file.raw, 0, SEEK_SET)
        try file.write(good)
        try await world.must("resume", "web")
        try await world.expectState("web", "running")
    }

    @Test func aStrangerIsNotSuspended() async throws {
        let world = try await ready("web: {memory: 256MiB}, idle: {autostart: false}")
        let said = try await world.mustFail("suspend", "idle", code: 1)
        #expect(said.contains("it is stopped, not running"))
        try await world.must("pause", "web")
        #expect(try await world.mustFail("suspend", "web", code: 1).contains("it is paused"))
        try await world.must("unpause", "web")
        #expect(!Files.exists(world.layout.vm("web").suspendRecord))
    }

    @Test func withoutSpaceItRunsOn() async throws {
        let world = try await ready()
        let control = ControlClient(world.layout.vm("web").controlSocket)
        await #expect(throws: ControlError.self) { try await control.suspend(memory: "/dev/full") }
        try await world.expectState("web", "running")
        try await world.guest("web").write(1, at: 0)
        try await world.must("suspend", "web")
        try await world.must("resume", "web")
    }

    /// Killed at every step of either, it is suspended or runs, and nothing that was flushed is lost.
    @Test(arguments: ["suspend", "resume"]) func killedAtEveryStep(_ verb: String) async throws {
        let world = try await ready()
        try await world.guest("web").write(9, at: 0, flush: true)
        if verb == "resume" { try await world.must("suspend", "web") }
        var step = 0
        var wasKilled = true
        while wasKilled {
            step += 1
            let output = try await world.program([verb, "web"], killAt: step).capture()
            wasKilled = output.exit == .signal(SIGKILL)
            try await world.until("it is settled") {
                ["running", "suspended"].contains(try await world.state("web"))
            }
            if wasKilled,
                try await world.state("web") == (verb == "suspend" ? "running" : "suspended")
            {
                try await world.must(verb, "web")
            }
            try await world.must("up")
            try await world.expectTruth("\(verb) killed at \(step)")
            try world.expectNothingLeftOver("\(verb) killed at \(step)")
            try await world.must(verb == "suspend" ? "resume" : "suspend", "web")
            if verb == "suspend" { #expect(try await world.guest("web").holds(9, at: 0)) }
        }
        #expect(step > 2)
    }

    /// Whoever of supervisor and hypervisor is killed when, memory never meets disks that moved on.
    @Test(arguments: [false, true], [0, 60, 150])
    func killedMeanwhile(_ supervisor: Bool, _ milliseconds: Int) async throws {
        let world = try await ready()
        try await world.guest("web").write(9, at: 0, flush: true)
        for verb in ["suspend", "resume"] {
            let program = world.program([verb, "web"])
            async let run = program.capture()
            try await Task.sleep(for: .milliseconds(milliseconds))
            for pid in world.processes {
                let words = (try? Files.readText("/proc/\(pid)/cmdline")) ?? ""
                if words.contains("supervise") == supervisor { kill(pid, SIGKILL) }
            }
            _ = try await run
            try await world.until("it is settled") {
                let state = try await world.state("web")
                return state != "starting" && state != "stopping"
            }
            try await world.expectTruth("\(verb)")
            if try await world.state("web") == "suspended" {
                try await world.must("resume", "web")
            } else {
                try await world.must("up")
            }
            #expect(try await world.guest("web").holds(9, at: 0))
            try await world.guest("web").write(8, at: 65536, flush: true)
            if verb == "suspend" { try await world.must("suspend", "web") }
        }
    }
}
