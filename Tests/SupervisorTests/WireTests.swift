// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors
import Testing

@testable import Supervisor

@Suite struct ControlWireTests {
    static let status = VMStatus(
        name: "web", generation: 3, imageDigest: "sha256:1", state: .running, health: .unhealthy,
        failedChecks: ["port 80: refused"], supervisorPid: 10, pid: 11, accelerator: .tcg,
        startedAt: 1_795_180_000, bootSeconds: 3.25, restarts: 1, bootMisses: 2,
        guestState: "degraded", failedUnits: ["a.service"], agent: true, reason: "why")

    @Test(arguments: [
        ControlRequest.status, .stop(grace: nil), .stop(grace: 0.5), .kill, .pause, .unpause,
        .restart(grace: 3), .reload, .events,
        .exec(arguments: ["/bin/echo", "\u{1F600} \"x\"\n"], input: "aGk=", timeout: 2),
        .agent(command: "guest-info", arguments: ["a": [1, nil]], timeout: 1),
        .hypervisor(command: "query-status", arguments: [:]),
        .freeze(pause: true, limit: 2.5), .thaw, .suspend(memory: "/x y"),
    ]) func requestsComeBackAsTheyWere(_ request: ControlRequest) throws {
        let wire = try JSONValue(parsing: request.wire.text())
        #expect(ControlRequest(wire: wire) == request)
    }

    @Test(arguments: [
        ControlReply.done, .status(status), .stopped(method: .acpi, seconds: 1.5),
        .stopped(method: nil, seconds: 0), .value(nil), .value(["x": [true]]), .failed("why"),
        .held(.init(isFrozen: true, reason: nil)), .held(.init(isFrozen: false, reason: "no")),
        .released(.init(wasHeld: false, seconds: 1.5)),
        .exec(.init(code: 137, standardOutput: "aA==", standardError: "", truncated: true)),
    ]) func repliesComeBackAsTheyWere(_ reply: ControlReply) throws {
        let wire = try JSONValue(parsing: reply.wire.text())
        #expect(ControlReply(wire: wire) == reply)
    }

    @Test func eventsComeBackAsTheyWere() throws {
        for detail in [nil, "it failed"] {
            let event = VMEvent(vm: "web", at: 5, kind: .restarting, detail: detail)
            #expect(VMEvent(wire: try JSONValue(parsing: event.wire.text())) == event)
        }
    }

    @Test(arguments: ["{}", "[]", "7", #"{"do":"dance"}"#, #"{"do":"exec","arguments":[]}"#])
    func whatIsNeitherIsNeither(_ text: String) throws {
        let wire = try JSONValue(parsing: text)
        #expect(ControlRequest(wire: wire) == nil)
        #expect(ControlReply(wire: wire) == nil)
        #expect(VMStatus(wire: wire) == nil)
    }
}
