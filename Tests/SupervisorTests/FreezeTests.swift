// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Supervisor

@Suite(.timeLimit(.minutes(20))) struct FreezeTests {
    private func ready(_ behaviour: String = "boot agent freeze") async throws -> Rig {
        let rig = try Rig(behaviour)
        try await rig.startAndBoot()
        try await rig.until("agent") { try await rig.control.status().agent }
        return rig
    }

    @Test(arguments: [false, true]) func aGuestIsHeldAndLetGo(pause: Bool) async throws {
        let rig = try await ready()
        let (answer, stillness) = try await rig.control.holding(pause: pause) {
            #expect(await rig.state == .running)
            return 7
        }
        #expect(answer == 7)
        #expect(stillness.isFrozen && stillness.wasHeld && stillness.reason == nil)
        #expect(try await rig.control.exec(["/bin/true"]).code == 0)
        _ = try await rig.control.stop()
        #expect(try Files.readText(rig.spec.paths.consoleLog).contains("thawed"))
        let events = try Files.readText(rig.spec.paths.eventLog)
        #expect(!events.contains("paused"))
    }

    @Test func withoutAnAgentItIsSaidToBeACrash() async throws {
        let rig = try Rig("boot")
        try await rig.startAndBoot()
        let (_, stillness) = try await rig.control.holding(pause: true) {}
        #expect(!stillness.isFrozen && stillness.wasHeld)
        #expect(stillness.reason == "the guest agent does not answer")
        _ = try await rig.control.stop()
    }

    @Test func anAgentThatCannotFreezeSaysWhy() async throws {
        let rig = try await ready("boot agent")
        let (_, stillness) = try await rig.control.holding {}
        #expect(!stillness.isFrozen)
        #expect(stillness.reason == "no guest-fsfreeze-freeze")
        _ = try await rig.control.stop()
    }

    @Test func aHoldThatLastsTooLongIsNoHold() async throws {
        let rig = try await ready()
        let (_, stillness) = try await rig.control.holding(limit: 0.2) {
            try await rig.until("it is let go") {
                try Files.readText(rig.spec.paths.consoleLog).contains("thawed")
            }
        }
        #expect(!stillness.isFrozen && !stillness.wasHeld)
        _ = try await rig.control.stop()
    }

    @Test func aFailureWhileHoldingLetsGo() async throws {
        struct Told: Error {}
        let rig = try await ready()
        await #expect(throws: Told.self) { try await rig.control.holding { throw Told() } }
        #expect(try await rig.control.exec(["/bin/true"]).code == 0)
        _ = try await rig.control.stop()
    }

    @Test func aClientThatDiesLetsGo() async throws {
        let rig = try await ready()
        let socket = try UnixSocket.connect(rig.spec.paths.control)
        try socket.write(#"{"do":"freeze","limit":600}"#.utf8 + [10])
        _ = try socket.read(4096)
        await #expect(throws: ControlError.self) { try await rig.control.holding {} }
        _ = consume socket
        try await rig.until("it can be held again") {
            (try? await rig.control.holding {}) != nil
        }
        _ = try await rig.control.stop()
    }

    @Test func whoWantsTheGuestWaits() async throws {
        let rig = try await ready()
        let control = rig.control
        let (task, _) = try await control.holding {
            let task = Task { try await control.exec(["/bin/true"]).code }
            try await Task.sleep(for: .milliseconds(200))
            return task
        }
        #expect(try await task.value == 0)
        _ = try await rig.control.stop()
    }

    @Test func aDeathWhileHeldEndsTheHold() async throws {
        let rig = try await ready()
        let pid = try #require(rig.record?.pid)
        let (_, stillness) = try await rig.control.holding {
            Glibc.kill(pid, SIGKILL)
            try await rig.until("it was started again") {
                try await rig.control.status().restarts == 1
            }
        }
        #expect(!stillness.wasHeld && !stillness.isFrozen)
        _ = try await rig.control.kill()
    }
}
