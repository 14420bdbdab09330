// SPDX-License-Identifier: Apache-2.0
import Linux
import Testing

@testable import Supervisor

/// What the reducer makes of shares that are no longer served.
@Suite struct ShareLifecycleTests {
    private typealias Story = LifecycleTests.Story
    private let killed = Lifecycle.Event.ended(.signal(9), detail: nil)

    @Test func aLostShareRestartsTheGuestWithTheReason() {
        var story = Story()
        story.boot()
        story.tell(.shareLost("the daemon ended"))
        #expect(story.effects == [.kill])
        story.tell(killed)
        #expect(story.effects.contains(.announce(.restarting, "the daemon ended")))
        #expect(story.effects.last == .arm(.relaunch, seconds: 1))
        story.tell(.timer(.relaunch), .launched, .accepted, .booted)
        // It is not held against the next one.
        story.tell(killed)
        #expect(
            story.effects.contains(
                .announce(.restarting, "the hypervisor ended with \(Exit.signal(9))")))
    }

    @Test func aLostShareFollowsTheRestartPolicy() {
        var story = Story { $0.restart.policy = .no }
        story.boot()
        story.tell(.shareLost("gone"), killed)
        #expect(story.left == .leave(.crashed, reason: "gone", method: nil))
    }

    @Test func aShareThatIsLostBeforeTheFirstAnswerFailsTheStart() {
        var story = Story()
        story.tell(.begin, .launched, .shareLost("gone"), killed)
        #expect(story.left == .leave(.startFailed, reason: "gone", method: nil))
    }

    @Test func withoutItsKeeperItIsNotStartedAgain() {
        var story = Story { $0.restart.policy = .always }
        story.boot()
        story.tell(.sharesGone("killed"))
        #expect(story.effects == [.kill])
        story.tell(killed)
        #expect(story.left == .leave(.crashed, reason: "killed", method: nil))

        var waiting = Story()
        waiting.boot()
        waiting.tell(killed, .sharesGone("killed"))
        #expect(waiting.left == .leave(.crashed, reason: "killed", method: nil))
    }

    /// Stopping ends by itself, and its result is the one that was asked for.
    @Test func aStopIsNotDisturbed() {
        for event in [Lifecycle.Event.shareLost("x"), .sharesGone("x")] {
            var story = Story()
            story.boot()
            story.tell(.stop(grace: nil, agent: true), event)
            #expect(story.effects == [])
            story.tell(.shutdown(reason: "guest-shutdown"), .ended(.code(0), detail: nil))
            #expect(story.left == .leave(.stopped, reason: nil, method: .agent))
        }
        var story = Story()
        story.boot()
        story.tell(
            .restart(grace: nil, agent: true), .sharesGone("x"), .ended(.code(0), detail: nil))
        #expect(story.left == .leave(.crashed, reason: "x", method: nil))
    }

    @Test func aGuestThatPowersOffIsTakenAtItsWord() {
        var story = Story()
        story.boot()
        story.tell(
            .shutdown(reason: "guest-shutdown"), .shareLost("x"), .ended(.code(0), detail: nil))
        #expect(story.left == .leave(.poweredOff, reason: nil, method: nil))
    }
}
