// SPDX-License-Identifier: Apache-2.0
import Hypervisors
import Linux
import Testing

@testable import Supervisor

/// The reducer, driven through whole stories; the clock is whatever the story says.
@Suite struct LifecycleTests {
    /// One VM with its reducer, and what came of it.
    struct Story {
        var life: Lifecycle
        var now = 0.0
        var effects: [Lifecycle.Effect] = []

        init(_ change: (inout SuperviseSpec) -> Void = { _ in }) {
            var spec = SuperviseSpec(
                name: "web", generation: 1, imageDigest: "", launch: QEMULaunch.small,
                hypervisor: "/qemu", paths: QEMULaunch.paths("/x"))
            change(&spec)
            life = Lifecycle(spec)
        }

        /// Lets things happen one second apart and keeps what the last one led to.
        mutating func tell(_ events: Lifecycle.Event...) {
            for event in events {
                now += 1
                effects = life.handle(event, at: now)
            }
        }

        mutating func boot() { tell(.begin, .launched, .accepted, .booted) }

        var left: Lifecycle.Effect? {
            effects.first { if case .leave = $0 { true } else { false } }
        }

        var announced: [VMEvent.Kind] {
            effects.compactMap { if case .announce(let kind, _) = $0 { kind } else { nil } }
        }
    }

    @Test func bootsWithinItsDeadline() {
        var story = Story()
        story.tell(.begin)
        #expect(story.effects == [.launch])
        #expect(story.life.state == .starting)
        story.tell(.launched)
        #expect(story.effects == [.arm(.bootDeadline, seconds: 90)])
        story.tell(.accepted, .booted)
        #expect(story.effects == [.disarm(.bootDeadline), .announce(.booted, nil)])
        #expect(story.life.state == .running)
        story.tell(.timer(.bootDeadline))
        #expect(story.effects == [])
    }

    @Test func theLaunchIsAnnouncedBeforeTheBoot() {
        var story = Story()
        story.tell(.begin, .launched, .booted)
        #expect(story.announced == [.launched, .booted])
        story.tell(.accepted)
        #expect(story.effects == [])
    }

    @Test func aMissedDeadlineIsTriedOnceMoreThenFails() {
        var story = Story()
        story.tell(.begin, .launched, .accepted, .timer(.bootDeadline))
        #expect(story.effects == [.kill])
        story.tell(.ended(.signal(9), detail: nil))
        #expect(story.announced == [.bootMissed])
        #expect(story.effects.last == .launch)
        #expect(story.life.bootMisses == 1)
        story.tell(
            .launched, .accepted, .timer(.bootDeadline), .ended(.signal(9), detail: "no layer0"))
        let why = "the guest did not report that it is up within 90 s: no layer0 (tried 2 times)"
        #expect(story.left == .leave(.bootFailed, reason: why, method: nil))
        #expect(story.life.state == .failed)
        #expect(story.life.bootMisses == 2)
    }

    @Test(arguments: [
        (Lifecycle.Event.panicked("no init"), "the guest's kernel panicked: no init"),
        (.shutdown(reason: "guest-reset"), "the guest rebooted before it was up"),
    ]) func aBootThatBreaksOffIsAMiss(_ event: Lifecycle.Event, _ why: String) {
        var story = Story()
        story.tell(.begin, .launched, .accepted, event, .ended(.code(0), detail: nil))
        #expect(story.announced == [.bootMissed])
        story.tell(.launched, .accepted, event, .ended(.code(0), detail: nil))
        #expect(
            story.left == .leave(.bootFailed, reason: "\(why) (tried 2 times)", method: nil))
    }

    @Test func anInitThatGivesUpIsNotAskedAgain() {
        var story = Story { $0.restart.policy = .always }
        story.tell(.begin, .launched, .accepted, .initFailed("no layer0"))
        story.tell(.shutdown(reason: "guest-shutdown"), .ended(.code(0), detail: "no layer0"))
        let why = "the guest cannot boot: no layer0"
        #expect(story.left == .leave(.bootFailed, reason: why, method: nil))
    }

    @Test func aSuccessfulBootForgivesEarlierMisses() {
        var story = Story()
        story.tell(.begin, .launched, .accepted, .timer(.bootDeadline))
        story.tell(.ended(.signal(9), detail: nil), .launched, .accepted, .booted)
        story.tell(.shutdown(reason: "guest-reset"), .ended(.code(0), detail: nil))
        story.tell(.launched, .accepted, .timer(.bootDeadline), .ended(.signal(9), detail: nil))
        #expect(story.effects.last == .launch)
    }

    @Test func whatCannotStartIsNotTriedAgain() {
        var story = Story()
        story.tell(.begin, .launchFailed("no such file"))
        #expect(story.left == .leave(.startFailed, reason: "no such file", method: nil))
        story = Story()
        story.tell(.begin, .launched, .ended(.code(1), detail: "port 80 is taken"))
        #expect(story.left == .leave(.startFailed, reason: "port 80 is taken", method: nil))
    }

    @Test(arguments: SuperviseSpec.Restart.Policy.allCases)
    func aGuestThatRebootsComesBack(_ policy: SuperviseSpec.Restart.Policy) {
        var story = Story { $0.restart.policy = policy }
        story.boot()
        story.tell(.shutdown(reason: "guest-reset"), .ended(.code(0), detail: nil))
        #expect(story.announced == [.restarting])
        #expect(story.effects.last == .launch)
        #expect(story.life.restarts == 1)
    }

    @Test(arguments: [
        (SuperviseSpec.Restart.Policy.no, true), (.onFailure, true), (.always, false),
    ]) func aPowerOffFollowsThePolicy(_ policy: SuperviseSpec.Restart.Policy, _ leaves: Bool) {
        var story = Story { $0.restart.policy = policy }
        story.boot()
        story.tell(.shutdown(reason: "guest-shutdown"), .ended(.code(0), detail: nil))
        #expect((story.left == .leave(.poweredOff, reason: nil, method: nil)) == leaves)
        #expect(story.effects.contains(.arm(.relaunch, seconds: 1)) == !leaves)
    }

    @Test func aCrashIsFinalWithoutRestart() {
        var story = Story { $0.restart.policy = .no }
        story.boot()
        story.tell(.ended(.signal(11), detail: "oops"))
        let why = "the hypervisor ended with signal 11 (Segmentation fault): oops"
        #expect(story.left == .leave(.crashed, reason: why, method: nil))
    }

    /// Another start would read the same.
    @Test(arguments: [true, false]) func aDamagedLayerEndsItForGood(isUp: Bool) {
        var story = Story { $0.restart.policy = .always }
        story.tell(.begin, .launched, .accepted)
        if isUp { story.tell(.booted) }
        story.tell(.panicked("dm-verity device corrupted"), .ended(.code(0), detail: nil))
        #expect(story.life.state == .failed)
        guard case .leave(.imageDamaged, let reason?, nil) = story.left else {
            Issue.record("\(story.effects)")
            return
        }
        #expect(reason.hasPrefix("a layer of its image is damaged"))
        #expect(!story.effects.contains(.launch))
    }

    @Test func aDamagedKernelIsNotStartedAgain() {
        var story = Story { $0.restart.policy = .always }
        story.boot()
        story.tell(.shutdown(reason: "guest-reset"), .ended(.code(0), detail: nil))
        #expect(story.effects.last == .launch)
        story.tell(.imageDamaged("/vmlinux is damaged"))
        #expect(story.left == .leave(.imageDamaged, reason: "/vmlinux is damaged", method: nil))
    }

    @Test func crashesBackOffAndEndAsALoop() {
        var story = Story()
        story.boot()
        for delay in [1.0, 2, 4, 8, 16] {
            story.tell(.panicked("oops"), .ended(.code(0), detail: nil))
            #expect(story.effects.last == .arm(.relaunch, seconds: delay))
            #expect(story.life.state == .starting)
            #expect(story.life.reason == "the guest's kernel panicked: oops")
            story.tell(.timer(.relaunch))
            #expect(story.effects == [.launch])
            story.tell(.launched, .accepted, .booted)
        }
        story.tell(.panicked("oops"), .ended(.code(0), detail: nil))
        let why = "it failed 6 times within 600 s, last: the guest's kernel panicked: oops"
        #expect(story.left == .leave(.crashLoop, reason: why, method: nil))
    }

    @Test func theDelayHasABoundAndOldCrashesAreForgotten() {
        var story = Story {
            $0.restart.limit = 100
            $0.restart.longest = 5
        }
        story.boot()
        for _ in 0..<4 {
            story.tell(.ended(.signal(11), detail: nil), .timer(.relaunch), .launched, .accepted)
            story.tell(.booted)
        }
        story.tell(.ended(.signal(11), detail: nil))
        #expect(story.effects.last == .arm(.relaunch, seconds: 5))
        story.tell(.timer(.relaunch), .launched, .accepted, .booted)
        story.now += 601
        story.tell(.ended(.signal(11), detail: nil))
        #expect(story.effects.last == .arm(.relaunch, seconds: 1))
    }

    @Test func aStopGoesThroughTheAgentFirst() {
        var story = Story()
        story.boot()
        story.tell(.stop(grace: nil, agent: true))
        #expect(
            story.effects == [
                .disarm(.bootDeadline), .announce(.stopping, nil), .arm(.grace, seconds: 30),
                .agentShutdown, .arm(.agentWindow, seconds: 15),
            ])
        story.tell(.shutdown(reason: "guest-shutdown"), .ended(.code(0), detail: nil))
        #expect(story.left == .leave(.stopped, reason: nil, method: .agent))
        #expect(story.effects.contains(.resolve(.stop, .stopped(method: .agent, seconds: 2))))
        #expect(story.life.state == .stopped)
    }

    @Test func aStopEscalatesToTheEnd() {
        var story = Story()
        story.boot()
        story.tell(.stop(grace: 10, agent: true))
        #expect(story.effects.last == .arm(.agentWindow, seconds: 5))
        story.tell(.timer(.agentWindow))
        #expect(
            story.effects == [.disarm(.agentWindow), .pressButton, .arm(.button, seconds: 0.5)])
        story.tell(.timer(.button), .timer(.button))
        #expect(story.effects == [.pressButton, .arm(.button, seconds: 0.5)])
        story.tell(.timer(.grace))
        #expect(
            story.effects == [
                .disarm(.agentWindow), .disarm(.button), .quit, .arm(.quit, seconds: 2),
            ])
        story.tell(.timer(.quit))
        #expect(story.effects == [.kill])
        story.tell(.ended(.signal(9), detail: nil))
        #expect(story.left == .leave(.stopped, reason: nil, method: .kill))
    }

    @Test func theReportNamesTheStepThatWorked() {
        let steps: [(StopMethod, [Lifecycle.Event])] = [
            (.acpi, []), (.acpi, [.timer(.button)]), (.quit, [.timer(.grace)]),
            (.kill, [.timer(.grace), .timer(.quit)]), (.kill, [.kill]),
        ]
        for (method, events) in steps {
            var story = Story()
            story.boot()
            story.tell(.stop(grace: nil, agent: false))
            for event in events { story.tell(event) }
            story.tell(.ended(.code(0), detail: nil))
            #expect(story.left == .leave(.stopped, reason: nil, method: method))
        }
    }

    @Test func anAgentThatRefusesIsFollowedByTheButton() {
        var story = Story()
        story.boot()
        story.tell(.stop(grace: nil, agent: true), .agentRefused)
        #expect(story.effects.contains(.pressButton))
        story.tell(.agentRefused)
        #expect(story.effects == [])
    }

    @Test func aStopBeforeTheBootDoesNotWaitForIt() {
        var story = Story()
        story.tell(.begin, .launched, .accepted, .stop(grace: nil, agent: false))
        #expect(story.effects.contains(.pressButton))
        // A word that comes too late changes nothing.
        story.tell(.booted)
        #expect(story.effects == [])
        #expect(story.life.state == .stopping)
    }

    @Test func aStopEndsABackoff() {
        var story = Story()
        story.boot()
        story.tell(.ended(.signal(11), detail: nil), .stop(grace: nil, agent: false))
        #expect(story.left == .leave(.stopped, reason: nil, method: nil))
        #expect(story.effects.contains(.disarm(.relaunch)))
    }

    @Test func aRestartComesBackAndIsAnsweredThen() {
        var story = Story()
        story.boot()
        story.tell(.restart(grace: nil, agent: false), .ended(.code(0), detail: nil))
        #expect(story.effects.last == .launch)
        story.tell(.launched)
        #expect(story.life.state == .starting)
        story.tell(.accepted)
        #expect(story.effects.contains(.resolve(.restart, .done)))
        #expect(story.life.restarts == 0)
    }

    @Test func aStopOverridesARestart() {
        var story = Story()
        story.boot()
        story.tell(.restart(grace: nil, agent: false), .stop(grace: 1, agent: false))
        #expect(
            story.effects == [
                .resolve(.restart, .failed("it was stopped instead")), .arm(.grace, seconds: 1),
            ])
        story.tell(.ended(.code(0), detail: nil))
        #expect(story.left == .leave(.stopped, reason: nil, method: .acpi))
    }

    @Test func killIsImmediate() {
        var story = Story()
        story.boot()
        story.tell(.kill)
        #expect(story.effects == [.announce(.stopping, nil), .kill])
        story.tell(.ended(.signal(9), detail: nil))
        #expect(story.left == .leave(.stopped, reason: nil, method: .kill))
    }

    @Test func pausesAndGoesOn() {
        var story = Story()
        story.boot()
        story.tell(.pause)
        #expect(story.effects == [.pause])
        #expect(story.life.state == .running)
        story.tell(.hypervisorPaused(reason: nil))
        #expect(story.life.state == .paused)
        #expect(story.effects.contains(.resolve(.pause, .done)))
        story.tell(.unpause, .hypervisorResumed)
        #expect(story.life.state == .running)
        #expect(story.effects.contains(.resolve(.unpause, .done)))
    }

    @Test func aPausedGuestIsWokenForItsStop() {
        var story = Story()
        story.boot()
        story.tell(.pause, .hypervisorPaused(reason: nil), .stop(grace: nil, agent: true))
        #expect(story.effects.first == .resume)
        #expect(story.effects.contains(.agentShutdown))
    }

    @Test func refusesToPauseWhatDoesNotRun() {
        var story = Story()
        story.tell(.begin, .launched, .pause)
        #expect(story.effects == [.resolve(.pause, .failed("it is starting, not running"))])
        story.tell(.unpause)
        #expect(story.effects == [.resolve(.unpause, .failed("it is starting, not paused"))])
    }

    @Test func aPauseFromOutsideSaysWhy() {
        var story = Story()
        story.boot()
        story.tell(.hypervisorPaused(reason: "no space"))
        #expect(story.life.state == .paused)
        #expect(story.life.reason == "no space")
    }

    /// Whatever happens in whatever order, nothing is launched while a process may be there, and
    /// nothing happens after the end.
    @Test func noOrderOfEventsBreaksIt() {
        let events: [Lifecycle.Event] = [
            .accepted, .booted, .shutdown(reason: "guest-reset"),
            .shutdown(reason: "guest-shutdown"), .panicked("x"), .ended(.code(0), detail: nil),
            .ended(.signal(11), detail: nil), .timer(.bootDeadline), .timer(.relaunch),
            .timer(.agentWindow), .timer(.button), .timer(.grace), .timer(.quit),
            .stop(grace: nil, agent: true), .restart(grace: nil, agent: false), .kill, .pause,
            .unpause, .hypervisorPaused(reason: nil), .hypervisorResumed, .agentRefused,
        ]
        var seed: UInt64 = 42
        func random(_ bound: Int) -> Int {
            seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(seed >> 33) % bound
        }
        for _ in 0..<2000 {
            var story = Story { $0.restart.policy = .allCases[random(3)] }
            story.tell(.begin)
            var running = false
            var over = false
            for _ in 0..<60 {
                if story.effects.contains(.launch) {
                    #expect(!running && !over)
                    running = true
                    story.tell(.launched)
                    continue
                }
                if story.left != nil {
                    #expect(!running)
                    over = true
                }
                let event = events[random(events.count)]
                if case .ended = event {
                    guard running else { continue }
                    running = false
                }
                story.tell(event)
                if over { #expect(story.effects == []) }
            }
        }
    }
}

/// A spec that serves every test.
enum QEMULaunch {
    static let small = LaunchSpec(
        name: "web", uuid: "0b4f6f5e-4d8e-4b7e-9e0e-1f2a3b4c5d6e", accelerator: .tcg, cpu: "max",
        vcpu: 1, memoryBytes: 128 << 20, kernel: "/vmlinux")

    static func paths(_ folder: String) -> SuperviseSpec.Paths {
        SuperviseSpec.Paths(
            lock: folder + "/lock", runRecord: folder + "/run.json",
            exitRecord: folder + "/exit.json", consoleLog: folder + "/console.log",
            eventLog: folder + "/events.jsonl", runFolder: folder)
    }
}
