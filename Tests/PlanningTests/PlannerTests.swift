// SPDX-License-Identifier: Apache-2.0
import Fleets
import Planning
import Testing

@Suite struct PlannerTests {
    /// A plan for one VM named `a`, as words that a person can compare.
    private func planned(
        _ file: String, _ observed: ObservedVM..., image: DesiredImage = .built(digest: "1"),
        only names: Set<String>? = nil, start: Bool = true
    ) throws -> [String] {
        let loaded = FleetFile.parse("fleet: home\n" + file)
        let fleet = try #require(loaded.fleet, "\(loaded.diagnostics)")
        let plan = plan(
            from: State(vms: observed), to: fleet, only: names, start: start
        ) { _ in image }
        return plan.notes.map { "note \($0.vm): \($0.text.prefix { $0 != ":" })" }
            + plan.builds.map { "build \($0)" }
            + plan.steps.map { step in
                let fields = step.changes.compactMap { change in
                    change.field.map {
                        "\($0) \(change.from ?? "-")→\(change.to ?? "-") \(change.consequence.rawValue)"
                    }
                }
                return ([step.vm, step.actions.map(\.rawValue).joined(separator: "+")] + fields)
                    .joined(separator: " ")
            }
    }

    /// The VM `a` as it is after `up` of that file.
    private func applied(
        _ file: String, _ phase: ObservedVM.Phase, digest: String = "1", fleet: String = "home"
    ) throws -> ObservedVM {
        let vm = try #require(FleetFile.parse("fleet: home\n" + file).fleet?.vms.first)
        let generation = ObservedVM.Generation(number: 1, vm: vm, imageDigest: digest)
        return ObservedVM(
            name: vm.name, fleet: fleet, phase: phase, applied: generation,
            running: phase.isLive ? generation : nil)
    }

    @Test func whatIsAsDeclaredNeedsNothing() throws {
        let file = "vms: { a: { vcpu: 2 } }"
        #expect(try planned(file, applied(file, .running)) == [])
        #expect(try planned(file, applied(file, .starting)) == [])
        #expect(try planned(file, applied(file, .paused)) == [])
    }

    @Test func whatIsNotThereIsCreatedAndStarted() throws {
        let file = "vms: { a: {} }"
        #expect(try planned(file) == ["a create+start"])
        #expect(try planned(file, start: false) == ["a create"])
        #expect(
            try planned(file, image: .unbuilt(name: "core")) == ["build core", "a create+start"])
    }

    @Test func publishedNamesChangeWhileTheVMRuns() throws {
        func file(_ host: String, _ settings: String = "") -> String {
            settings
                + "vms: { a: { ports: [\"8080:80\"], publish: [{ host: \(host), tls: off }] } }"
        }
        let old = try applied(file("x.lan"), .running)
        #expect(try planned(file("x.lan"), old) == [])
        let changed = try planned(file("y.lan"), old)
        #expect(changed.count == 1 && changed[0].hasPrefix("a update publish"))
        #expect(!changed[0].contains("restart"))
        let without = try planned("vms: { a: { ports: [\"8080:80\"] } }", old)
        #expect(without.count == 1 && without[0].hasPrefix("a update publish"))

        let settings = "publishing: { listen: [\":80\", \":8443\"], email: me@x.org }\n"
        let fleet = try #require(
            FleetFile.parse("fleet: home\n" + file("x.lan", settings)).fleet)
        let plan = plan(from: State(vms: [old], publishing: Publishing()), to: fleet) { _ in
            .built(digest: "1")
        }
        let fields = plan.changes.compactMap(\.field).sorted()
        #expect(fields == ["publishing.email", "publishing.listen"])
        #expect(plan.changes.allSatisfy { $0.consequence == .live && $0.action == .update })
    }

    @Test func whatDoesNotStartByItselfStartsWhenItIsNamed() throws {
        let file = "vms: { a: { autostart: false } }"
        #expect(try planned(file) == ["a create"])
        #expect(try planned(file, only: ["a"]) == ["a create+start"])
        #expect(try planned(file, applied(file, .stopped)) == [])
    }

    @Test func whatHasEndedIsStartedAgain() throws {
        let file = "vms: { a: {} }"
        #expect(try planned(file, applied(file, .stopped)) == ["a start"])
        #expect(try planned(file, applied(file, .failed)) == ["a start"])
        #expect(try planned(file, applied(file, .suspended)) == [])
    }

    @Test(
        arguments: [
            ("vcpu: 2", "a update+restart vcpu 1→2 restart"),
            ("memory: 1GiB", "a update+restart memory 512MiB→1GiB restart"),
            ("disk: 9GiB", "a update disk 8GiB→9GiB live"),
            ("mode: overlay", "a update+restart mode immutable→overlay restart"),
            (
                "hardening: { kernel: strict, exceptions: [kernel.sysrq] }",
                "a update+restart hardening.kernel standard→strict restart "
                    + "hardening.exceptions []→[kernel.sysrq] restart"
            ),
            ("restart: always", "a update restart on-failure→always live"),
            ("stop: { grace: 9s }", "a update stop.grace 30s→9s live"),
            (
                "vcpu: 2, restart: always",
                "a update+restart vcpu 1→2 restart restart on-failure→always live"
            ),
            (
                "vcpu: 2, restartIfChanged: false",
                "a update vcpu 1→2 live restartIfChanged true→false live"
            ),
        ]) func aChangedKeyCostsWhatItMust(key: String, expected: String) throws
    {
        let before = try applied("vms: { a: {} }", .running)
        #expect(try planned("vms: { a: { \(key) } }", before) == [expected])
    }

    @Test func aStoppedVMTakesChangesOverWithItsNextStart() throws {
        let before = try applied("vms: { a: {} }", .stopped)
        #expect(
            try planned("vms: { a: { vcpu: 2 } }", before) == ["a update+start vcpu 1→2 live"])
    }

    @Test func aNewImageIsARebuild() throws {
        let file = "vms: { a: {} }"
        #expect(
            try planned(file, applied(file, .running), image: .built(digest: "2"))
                == ["a rebuild image 1→2 rebuild"])
    }

    @Test func aStoppedVMWithANewImageIsARebuildWhenItMayStart() throws {
        let file = "vms: { a: {} }"
        let stopped = try applied(file, .stopped)
        let new = DesiredImage.built(digest: "2")
        #expect(try planned(file, stopped, image: new) == ["a rebuild image 1→2 rebuild"])
        #expect(
            try planned(file, stopped, image: new, start: false)
                == ["a update image 1→2 live"])
    }

    @Test func aPinnedImageIsKeptAndNoted() throws {
        let file = "vms: { a: {} }"
        let note = "note a: a rollback holds its image"
        var vm = try applied(file, .running)
        vm.pinned = "1"
        #expect(try planned(file, vm) == [])
        #expect(try planned(file, vm, image: .built(digest: "2")) == [note])
        #expect(try planned(file, vm, image: .unbuilt(name: "core")) == [note])
        // Another recipe is another image; the rest of the file counts.
        let other = "vms: { a: { image: dev, vcpu: 2 } }"
        #expect(
            try planned(other, vm, image: .built(digest: "2"))
                == [note, "a update+restart vcpu 1→2 restart"])
        // What a killed rollback has left holds nothing.
        vm.pinned = "0"
        #expect(
            try planned(file, vm, image: .built(digest: "2")) == ["a rebuild image 1→2 rebuild"])
    }

    @Test func anImageThatFailedIsNotTriedUntilItIsAnother() throws {
        let file = "vms: { a: {} }"
        var vm = try applied(file, .running)
        vm.failedImages = ["2": "no boot"]
        #expect(
            try planned(file, vm, image: .built(digest: "2"))
                == ["note a: the image 2 failed on it and is not tried again (no boot)"])
        #expect(
            try planned(file, vm, image: .built(digest: "3")) == ["a rebuild image 1→3 rebuild"])
        vm.phase = .stopped
        vm.running = nil
        #expect(try planned(file, vm, image: .built(digest: "2")).last == "a start")
    }

    @Test func anUpgradeWithoutAVerdictComesFirst() throws {
        let file = "vms: { a: {} }"
        var vm = try applied("vms: { a: { vcpu: 2 } }", .running)
        for upgrade in [ObservedVM.Upgrade.interrupted, .underWay] {
            vm.upgrade = upgrade
            #expect(try planned(file, vm) == ["a rebuild"])
        }
        vm.upgrade = .untried
        #expect(try planned(file, vm) == ["a update+restart vcpu 2→1 restart"])
    }

    @Test func schedulesChangeWhileItRuns() throws {
        let before = try applied("vms: { a: {} }", .running)
        let plan = try planned("vms: { a: { snapshots: { schedule: daily } } }", before)
        #expect(plan.first?.hasPrefix("a update snapshots") == true, "\(plan)")
        #expect(plan.first?.hasSuffix("live") == true)
    }

    @Test func whatWaitsForARestartIsPlannedOnce() throws {
        let file = "vms: { a: { vcpu: 2, restartIfChanged: false } }"
        var vm = try applied(file, .running)
        let old = try applied("vms: { a: { restartIfChanged: false } }", .running)
        vm.running = old.running
        #expect(try planned(file, vm) == [])
    }

    @Test func whatIsNoLongerDeclaredIsStoppedAndNothingElse() throws {
        let file = "vms: { b: { autostart: false } }"
        let gone = try applied("vms: { a: {} }", .running)
        #expect(try planned(file, gone) == ["b create", "a stop"])
        var stopped = gone
        stopped.phase = .stopped
        #expect(try planned(file, stopped) == ["b create"])
    }

    @Test func anotherFleetsVMIsNotTouched() throws {
        let others = try applied("vms: { a: {} }", .running, fleet: "other")
        #expect(try planned("vms: { b: {} }", others) == ["b create+start"])
        let clash = try planned("vms: { a: {} }", others)
        #expect(clash == ["a refuse"])
    }

    @Test func aDisabledVMIsStopped() throws {
        let file = "vms: { a: { enable: false } }"
        #expect(try planned(file) == [])
        #expect(try planned(file, applied("vms: { a: {} }", .running)) == ["a stop"])
    }

    @Test func aDiskDoesNotShrink() throws {
        let before = try applied("vms: { a: { disk: 9GiB } }", .running)
        #expect(
            try planned("vms: { a: {} }", before) == ["a refuse disk 9GiB→8GiB data-loss"])
    }

    @Test(
        arguments: [
            ("size: 2GiB", "a update volumes[v].size 1GiB→2GiB live"),
            ("size: 512MiB", "a refuse volumes[v].size 1GiB→512MiB data-loss"),
            (
                "size: 1GiB, filesystem: xfs",
                "a refuse volumes[v].filesystem ext4→xfs data-loss"
            ),
            ("size: 1GiB, format: raw", "a refuse volumes[v].format qcow2→raw data-loss"),
            ("device: /dev/sdb", "a refuse volumes[v].device a file→/dev/sdb data-loss"),
            ("size: 2GiB, readOnly: true", "a refuse volumes[v].size 1GiB→2GiB live"),
            (
                "size: 1GiB, mount: /srv/w",
                "a update+restart volumes[v].mount /srv/v→/srv/w restart"
            ),
        ]) func aVolumeGrowsAndKeepsWhatItIs(changed: String, expected: String) throws
    {
        let before = try applied(
            "vms: { a: { volumes: [{ name: v, size: 1GiB, mount: /srv/v }] } }", .running)
        let mount = changed.contains("mount") ? "" : ", mount: /srv/v"
        let file = "vms: { a: { volumes: [{ name: v, \(changed)\(mount) }] } }"
        #expect(try planned(file, before) == [expected])
    }

    @Test func vfatDoesNotGrow() throws {
        func file(_ size: String) -> String {
            "vms: { a: { volumes: [{ name: v, size: \(size), filesystem: vfat }] } }"
        }
        let before = try applied(file("64MiB"), .running)
        #expect(
            try planned(file("128MiB"), before)
                == ["a refuse volumes[v].size 64MiB→128MiB live"])
    }

    @Test func theOrderOfVolumesMeansNothing() throws {
        let (one, two) = ("{ name: one, size: 1GiB }", "{ name: two, size: 2GiB }")
        let before = try applied("vms: { a: { volumes: [\(one), \(two)] } }", .running)
        let swapped = try planned("vms: { a: { volumes: [\(two), \(one)] } }", before)
        #expect(swapped.allSatisfy { !$0.contains("refuse") })
        // One that is no longer declared is only taken away from the guest.
        let without = "vms: { a: { volumes: [\(two)] } }"
        let fleet = try #require(FleetFile.parse("fleet: home\n" + without).fleet)
        let step = try #require(
            plan(from: State(vms: [before]), to: fleet) { _ in .built(digest: "1") }.steps.first)
        #expect(step.actions == [.update, .restart])
        #expect(step.changes.first?.reason.hasSuffix("nothing in it is deleted") == true)
    }

    @Test func aMutableVMKeepsItsImage() throws {
        func planned(
            _ mode: String, from old: String, image: String
        ) throws -> (words: [String], notes: Int) {
            let file = "fleet: home\nvms: { a: { mode: \(mode) } }"
            let fleet = try #require(FleetFile.parse(file).fleet)
            let before = try applied("vms: { a: { mode: \(old) } }", .running)
            let plan = plan(from: State(vms: [before]), to: fleet) { _ in .built(digest: image) }
            return (plan.changes.compactMap(\.field), plan.notes.count)
        }
        #expect(try planned("mutable", from: "mutable", image: "1") == ([], 0))
        #expect(try planned("mutable", from: "mutable", image: "2") == ([], 1))
        // What was written in the mode overlay belongs to one image as well.
        #expect(try planned("mutable", from: "overlay", image: "2") == (["mode"], 1))
        #expect(try planned("mutable", from: "immutable", image: "2") == (["mode", "image"], 0))
        #expect(try planned("overlay", from: "mutable", image: "2") == (["mode", "image"], 0))
        #expect(try planned("overlay", from: "overlay", image: "2") == (["image"], 0))
    }

    @Test(
        arguments: [
            "warm: true", "tpm: true", "memory: { min: 256MiB, max: 1GiB }",
            "hypervisor: firecracker", "service: web",
        ]) func whatCannotBeDoneYetIsRefusedByName(key: String) throws
    {
        let loaded = FleetFile.parse("vms: { a: { \(key) } }")
        // The reader may already refuse it; what it lets through the plan must refuse.
        guard let fleet = loaded.fleet else { return #expect(!loaded.errors.isEmpty) }
        let plan = plan(from: State(), to: fleet) { _ in .built(digest: "1") }
        let refusal = try #require(plan.steps.first?.refusal)
        #expect(refusal.reason.contains("not available yet"))
        #expect(key.hasPrefix(refusal.field ?? "nothing"))
    }

    @Test func damagedRecordsAreMadeAgainAndNewerOnesAreLeftAlone() throws {
        let file = "vms: { a: {} }"
        let damaged = ObservedVM(
            name: "a", phase: .failed, reason: "…", damaged: "/r/vms/a/vm.json")
        #expect(try planned(file, damaged) == ["a create+start"])
        let newer = ObservedVM(name: "a", phase: .failed, problem: "written by a newer martlet")
        #expect(try planned(file, newer) == ["a refuse"])
    }

    @Test func thoseThatOthersWaitForComeFirst() throws {
        let file = "vms: { a: { after: [c] }, b: {}, c: { after: [b] } }"
        #expect(
            try planned(file) == ["b create+start", "c create+start", "a create+start"])
    }

    @Test func everyPhaseAndEveryDeclarationHaveAPlan() throws {
        for phase in ObservedVM.Phase.allCases {
            for key in ["enable: false", "vcpu: 2", "autostart: false", "restartIfChanged: false"] {
                var vm = try applied("vms: { a: {} }", .running)
                vm.phase = phase
                let words = try planned("vms: { a: { \(key) } }", vm)
                #expect(words.count <= 1)
                #expect(phase.isLive || !words.contains { $0.contains("stop") })
            }
        }
    }
}
