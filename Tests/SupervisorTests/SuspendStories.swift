// SPDX-License-Identifier: Apache-2.0
import Linux
import Testing

@testable import Supervisor

/// Going to disk and coming back, as the reducer tells it.
@Suite struct SuspendStories {
    private func running() -> LifecycleTests.Story {
        var story = LifecycleTests.Story()
        story.boot()
        return story
    }

    private func asleep() -> LifecycleTests.Story {
        var story = LifecycleTests.Story()
        story.life.isResuming = true
        story.tell(.begin, .launched, .accepted)
        return story
    }

    @Test func itIsSavedThenKeptThenEnded() {
        var story = running()
        story.tell(.suspend)
        #expect(story.effects == [.announce(.stopping, "its memory goes to disk"), .save])
        #expect(story.life.state == .stopping)
        story.tell(.saved)
        #expect(story.effects == [.keepSaved])
        story.tell(.savedForGood)
        #expect(story.effects == [.quit, .arm(.quit, seconds: 2)])
        story.tell(.timer(.quit))
        #expect(story.effects == [.kill])
        story.tell(.ended(.signal(9), detail: nil))
        #expect(story.left == .leave(.suspended, reason: nil, method: nil))
        #expect(story.effects.contains(.resolve(.suspend, .done)))
        #expect(story.announced == [.suspended])
        #expect(story.life.state == .stopped)
    }

    @Test func whatCannotBeSavedRunsOn() {
        for events in [[Lifecycle.Event.saveFailed("full")], [.saved, .saveFailed("full")]] {
            var story = running()
            story.tell(.suspend)
            for event in events { story.tell(event) }
            #expect(story.effects.first == .resume)
            #expect(story.effects.contains(.resolve(.suspend, .failed("full"))))
            #expect(story.life.state == .running)
        }
    }

    @Test func anEndWhileItIsSavedIsACrash() {
        var story = running()
        story.tell(.suspend, .ended(.signal(9), detail: nil))
        #expect(story.announced == [.restarting])
        #expect(story.left == nil)
        story.tell(.timer(.relaunch))
        #expect(story.effects == [.launch])
    }

    @Test func anEndWhenItIsKeptIsNone() {
        for how in [Lifecycle.Event.kill, .stop(grace: nil, agent: true)] {
            var story = running()
            story.tell(.suspend, .saved, .savedForGood, how, .ended(.signal(9), detail: nil))
            #expect(story.left == .leave(.suspended, reason: nil, method: nil))
        }
    }

    @Test func killedBeforeItIsKeptItIsStopped() {
        var story = running()
        story.tell(.suspend, .kill, .saved)
        #expect(story.effects == [])
        story.tell(.ended(.signal(9), detail: nil))
        #expect(story.left == .leave(.stopped, reason: nil, method: .kill))
    }

    @Test(arguments: [Lifecycle.Event.pause, .suspend]) func onlyWhatRunsIsSuspended(
        _ event: Lifecycle.Event
    ) {
        var story = LifecycleTests.Story()
        story.tell(.begin, .launched, .suspend)
        #expect(story.effects == [.resolve(.suspend, .failed("it is starting, not running"))])
        story.tell(.accepted, .booted, .suspend, event)
        #expect(!story.effects.contains(.save))
    }

    @Test func theMemoryIsForgottenBeforeItGoesOn() {
        var story = asleep()
        #expect(story.effects == [.load])
        story.tell(.loaded)
        #expect(story.effects == [.forgetMemory])
        story.tell(.memoryForgotten)
        #expect(story.effects.prefix(2) == [.disarm(.bootDeadline), .resume])
        #expect(story.announced == [.launched, .resumed])
        #expect(story.life.state == .running)
        // From here on it is a VM as any other: it boots again.
        story.tell(.ended(.signal(11), detail: nil), .timer(.relaunch), .launched, .accepted)
        #expect(story.announced == [.launched])
        #expect(!story.life.isResuming)
    }

    @Test func memoryThatDoesNotLoadStays() {
        let ends: [[Lifecycle.Event]] = [
            [.ended(.code(1), detail: "QEMU says: load of migration failed")],
            [.loadFailed("no"), .ended(.signal(9), detail: nil)],
            [.kill, .ended(.signal(9), detail: nil)],
            [.stop(grace: nil, agent: false), .ended(.signal(9), detail: nil)],
            [.timer(.bootDeadline), .ended(.signal(9), detail: nil)],
            // Too late: what came first counts.
            [.kill, .loaded, .ended(.signal(9), detail: nil)],
        ]
        for events in ends {
            var story = asleep()
            for event in events {
                story.tell(event)
                #expect(!story.effects.contains(.forgetMemory) && !story.effects.contains(.resume))
            }
            guard case .leave(.startFailed, _, _)? = story.left else {
                Issue.record("\(events): \(story.effects)")
                continue
            }
            #expect(story.life.isResuming, "or the record that says `suspended` would be lost")
        }
    }
}
