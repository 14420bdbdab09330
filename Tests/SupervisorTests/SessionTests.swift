// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors
import Testing

@testable import Supervisor

@Suite struct AgentSessionTests {
    private func line(_ text: String) -> [UInt8] { [UInt8](text.utf8) }
    private let ping = GuestAgent.command("guest-ping")

    /// A session whose agent has opened its port and answered the greeting.
    private func synced() -> AgentSession {
        var session = AgentSession()
        #expect(session.port(open: true, at: 0) == [.send(GuestAgent.sync(1))])
        #expect(session.received(line(#"{"return": 1}"#), at: 0.1) == [])
        #expect(session.isAlive)
        return session
    }

    @Test func withoutAnAgentEveryRequestFailsAtOnce() {
        var session = AgentSession()
        let (number, outputs) = session.submit("guest-ping", [:], timeout: 1, at: 0)
        #expect(outputs == [.finished(number, AgentSession.closed)])
    }

    @Test func asksOneThingAtATime() {
        var session = synced()
        let (first, sent) = session.submit("guest-ping", [:], timeout: 1, at: 1)
        #expect(sent == [.send(ping)])
        let (second, queued) = session.submit("guest-ping", [:], timeout: 1, at: 1)
        #expect(queued == [])
        #expect(
            session.received(line(#"{"return": {}}"#), at: 1.1)
                == [.finished(first, .value([:])), .send(ping)])
        #expect(
            session.received(line(#"{"error": {"desc": "no"}}"#), at: 1.2)
                == [.finished(second, .failed("no"))])
    }

    @Test func aLateAnswerIsNotTakenForTheNextOne() {
        var session = synced()
        let (first, _) = session.submit("guest-exec", [:], timeout: 1, at: 1)
        #expect(session.deadline == 2)
        #expect(
            session.tick(at: 2)
                == [.finished(first, .failed("the guest agent did not answer in time"))])
        #expect(!session.isAlive)
        let (second, outputs) = session.submit("guest-ping", [:], timeout: 1, at: 3)
        #expect(outputs == [.send(GuestAgent.sync(2))])
        #expect(session.received(line(#"{"return": {"pid": 5}}"#), at: 3.1) == [])
        #expect(session.received(line(#"{"return": 2}"#), at: 3.2) == [.send(ping)])
        #expect(
            session.received(line(#"{"return": {}}"#), at: 3.3) == [.finished(second, .value([:]))])
    }

    @Test func aSilentAgentIsNotAliveButMayWakeUp() {
        var session = AgentSession()
        _ = session.port(open: true, at: 0)
        let (number, _) = session.submit("guest-ping", [:], timeout: 1, at: 1)
        #expect(
            session.tick(at: 5) == [.finished(number, .failed("the guest agent does not answer"))])
        #expect(session.received(line(#"{"return": 1}"#), at: 9) == [])
        #expect(session.isAlive)
    }

    @Test func aClosedPortEndsWhatWaits() {
        var session = synced()
        let (first, _) = session.submit("guest-ping", [:], timeout: 1, at: 1)
        let (second, _) = session.submit("guest-ping", [:], timeout: 1, at: 1)
        #expect(
            session.port(open: false, at: 2) == [
                .finished(first, AgentSession.closed), .finished(second, AgentSession.closed),
            ])
        #expect(!session.isAlive)
        #expect(session.deadline == nil)
    }

    @Test(arguments: ["", "{", "\u{1}\u{2}", "[]", #"{"x":1}"#])
    func garbageIsNoAnswer(_ text: String) {
        var session = synced()
        _ = session.submit("guest-ping", [:], timeout: 1, at: 1)
        #expect(session.received(line(text), at: 1.1) == [])
        #expect(session.deadline == 2)
    }
}

@Suite struct HealthTrackerTests {
    static let http = SuperviseSpec.HealthCheck(.http(port: 80, path: "/"))

    @Test func withoutChecksThereIsNoHealth() { #expect(HealthTracker([]).health == .none) }

    @Test func failuresWhileStartingDoNotCount() {
        var tracker = HealthTracker([Self.http])
        for second in -30..<59 {
            tracker.record(0, failure: "refused", secondsSinceStart: Double(second), at: 0)
        }
        #expect(tracker.health == .starting)
        #expect(tracker.failures == ["refused"])
        #expect(tracker.pause(0) == 1)
        for second in 60..<62 {
            tracker.record(0, failure: "refused", secondsSinceStart: Double(second), at: 0)
        }
        #expect(tracker.health == .starting)
        tracker.record(0, failure: "refused", secondsSinceStart: 62, at: 0)
        #expect(tracker.health == .unhealthy)
    }

    @Test func onceHealthyItTakesSomeFailuresInARow() {
        var tracker = HealthTracker([Self.http])
        func record(_ results: String) {
            for result in results {
                tracker.record(0, failure: result == "x" ? "no" : nil, secondsSinceStart: 5, at: 0)
            }
        }
        record(".xx.xx")
        #expect(tracker.health == .healthy)
        record("x")
        #expect(tracker.health == .unhealthy)
        record(".")
        #expect(tracker.health == .healthy)
        #expect(tracker.failures == [])
        #expect(tracker.pause(0) == 10)
        tracker.reset()
        #expect(tracker.health == .starting)
    }

    @Test func theWorstCheckCounts() {
        var tracker = HealthTracker([Self.http, Self.http])
        tracker.record(0, failure: nil, secondsSinceStart: 1, at: 0)
        #expect(tracker.health == .starting)
        tracker.record(1, failure: nil, secondsSinceStart: 1, at: 0)
        #expect(tracker.health == .healthy)
        for _ in 0..<3 { tracker.record(1, failure: "no", secondsSinceStart: 2, at: 0) }
        #expect(tracker.health == .unhealthy)
    }

    @Test(arguments: [
        (SuperviseSpec.HealthCheck.Probe.tcp(port: 80), "/usr/lib/martlet/guest probe tcp 80 2"),
        (.http(port: 80, path: "/x"), "/usr/lib/martlet/guest probe http 80 /x 2"),
        (.dns(name: "a.b"), "/usr/bin/timeout -k 1 2 /usr/bin/getent hosts a.b"),
        (.exec(command: "true"), "/usr/bin/timeout -k 1 2 /bin/sh -c true"),
    ]) func asksInsideTheGuest(_ probe: SuperviseSpec.HealthCheck.Probe, _ command: String) {
        let words = HealthTracker.command(SuperviseSpec.HealthCheck(probe))
        #expect(words.joined(separator: " ") == command)
    }

    @Test func saysWhatFailed() {
        let exec = SuperviseSpec.HealthCheck(.exec(command: "check"))
        #expect(HealthTracker.failure(exec, code: 0, lastLine: "fine") == nil)
        #expect(HealthTracker.failure(exec, code: 1, lastLine: "broken") == "exec 'check': broken")
        #expect(
            HealthTracker.failure(exec, code: 3, lastLine: nil)
                == "exec 'check': failed with exit code 3")
        #expect(
            HealthTracker.failure(exec, code: 124, lastLine: nil)
                == "exec 'check': no answer within 2.0 s")
    }
}

@Suite struct ExplanationTests {
    @Test(arguments: [
        (
            "qemu-system-x86_64: -netdev user,id=net0,hostfwd=tcp:127.0.0.1:2398-:22: Could not set up host forwarding rule 'tcp:127.0.0.1:2398-:22'",
            "port 127.0.0.1:2398/tcp of the host cannot be opened"
        ),
        (
            "qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory",
            "QEMU says: cannot set up"
        ),
        ("some library: broken", "QEMU says: some library: broken"),
    ]) func putsQEMUsWordsIntoASentence(_ line: String, _ start: String) {
        let text = Machine.explain(["warning", line], QEMULaunch.small)
        #expect(text?.hasPrefix(start) == true)
    }

    @Test func silenceHasNoExplanation() { #expect(Machine.explain([], QEMULaunch.small) == nil) }
}
