// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Testing

/// A world whose VM `web` runs an image of its own that has a newer build.
struct UpgradeWorld {
    static let old = "app: {from: core, packages: [one]}"
    static let new = "app: {from: core, packages: [one, two]}"
    let world: World
    let oldDigest: String
    let newDigest: String

    init(_ keys: String = "", _ behaviour: String = "boot=0.01 agent") async throws {
        world = try await World(behaviour)
        oldDigest = try await world.makeImage("app", Self.old, packages: ["one": "1"])
        newDigest = try await world.makeImage(
            "app", Self.new, packages: ["one": "2", "two": "1"])
        try declareOld(keys)
    }

    func declareOld(_ keys: String = "") throws { try declare(Self.old, keys) }
    func declareNew(_ keys: String = "") throws { try declare(Self.new, keys) }
    private func declare(_ images: String, _ keys: String) throws {
        try world.declare("web: {image: app\(keys.isEmpty ? "" : ", ")\(keys)}", images: images)
    }

    /// Starts it on the old image, with something on its data volume.
    func begin(_ keys: String = "") async throws {
        try await world.must("up")
        try await world.mark("web")
        try declareNew(keys)
    }

    /// The new image writes to the data and never comes up.
    func breakNew() throws {
        try world.behave("init-error=0.01", with: newDigest, first: world.unmarking("web"))
    }

    func digest() async throws -> String? { try await world.list()["web"]?["imageDigest"]?.string }

    func snapshots() async throws -> [JSONValue] {
        let output = try await world.must("snapshot", "list", "web", "--json")
        return try JSONValue(parsing: output.standardOutput).elements
    }

    func generations() async throws -> [JSONValue] {
        let output = try await world.must("generations", "web", "--json")
        return try JSONValue(parsing: output.standardOutput).elements
    }
}

@Suite(.timeLimit(.minutes(20))) struct UpgradeTests {
    @Test func anUpgradeShowsThePackagesAndKeepsTheData() async throws {
        let rig = try await UpgradeWorld()
        try await rig.begin()
        #expect(try await rig.world.list()["web"]?["imageState"] == "outdated")
        let said = try await rig.world.must("upgrade", "web")
        #expect(said.text.contains("2 packages"))
        #expect(said.text.contains("two") && said.text.contains("upgraded from"))
        #expect(said.text.contains("down for"))
        #expect(try await rig.digest() == rig.newDigest)
        let vm = try await rig.world.list()["web"]
        #expect(vm?["generation"] == 2 && vm?["imageState"] == "current")
        #expect(try await rig.world.isMarked("web"))
        #expect(try await rig.snapshots().map { $0["consistency"] } == ["stopped"])
        try await rig.world.must("plan", "--check")
        let again = try await rig.world.must("upgrade", "web", "--json")
        let result = try JSONValue(parsing: again.standardOutput)["results"]?.elements.first
        #expect(result?["ok"] == true && result?["action"] == "upgrade")
        #expect(result?["detail"]?.string?.contains("newest image already") == true)
        #expect(try await rig.snapshots().count == 1)
    }

    /// What it says, where the VM is, what its data are, and that nobody has been asked.
    private func expectReturned(_ rig: UpgradeWorld, _ text: String) async throws {
        #expect(text.contains("failed") && text.contains("back on generation 1"), "\(text)")
        #expect(text.contains("with the data of 20"), "\(text)")
        #expect(text.contains("the state that failed is the snapshot"), "\(text)")
        let vm = try await rig.world.list()["web"]
        #expect(vm?["state"] == "running" && vm?["generation"] == 1)
        #expect(vm?["imageDigest"]?.string == rig.oldDigest && vm?["imageState"] == "outdated")
        #expect(try await rig.world.isMarked("web"))
        #expect(!Files.exists(rig.world.layout.vm("web").path + "/upgrade.json"))
        #expect(try await rig.snapshots().count == 2)
        try rig.world.expectNothingLeftOver()
    }

    @Test(arguments: ["upgrade", "up"])
    func anImageThatDoesNotBootIsTakenBackWithTheDataOfBefore(verb: String) async throws {
        let rig = try await UpgradeWorld()
        try rig.breakNew()
        try await rig.begin()
        let text = try await rig.world.mustFail(verb, "web", code: 1)
        try await expectReturned(rig, text)
        #expect(text.contains("no layer0"), "\(text)")
        // `up` does not try it again and says so, and has nothing to do.
        let plan = try await rig.world.must("plan", "--check")
        #expect(plan.errorText.contains("is not tried again"))
        try await rig.world.must("up")
        #expect(try await rig.snapshots().count == 2)
        let status = try await rig.world.must("status", "web").text
        #expect(status.contains("is not tried again"), "\(status)")
        let second = try #require(try await rig.generations().last)
        #expect(second["number"] == 2 && second["current"] == false)
        #expect(second["failed"]?.string?.contains("no layer0") == true)
        // A snapshot can be looked at and goes back to the state that failed.
        let failed = try #require(try await rig.snapshots().last?["name"]?.string)
        try await rig.world.must("stop", "web")
        try await rig.world.must("snapshot", "restore", "web", failed)
        #expect(try await !rig.world.isMarked("web"))
    }

    @Test func anUnhealthyServiceIsTakenBack() async throws {
        let keys = "health: {exec: x, interval: 1s, retries: 1, startup: 1s}"
        let rig = try await UpgradeWorld(keys)
        try rig.world.behave("boot=0.01 agent exec=1", with: rig.newDigest)
        try await rig.begin(keys)
        let text = try await rig.world.mustFail("upgrade", "web", code: 1)
        try await expectReturned(rig, text)
        #expect(text.contains("it is unhealthy"))
        // Mended meanwhile: `upgrade` tries again, and the failure is forgotten.
        try rig.world.behave("boot=0.01 agent", with: rig.newDigest)
        try await rig.world.must("upgrade", "web")
        #expect(try await rig.digest() == rig.newDigest)
        #expect(try await rig.generations().allSatisfy { $0["failed"] == .null })
        try await rig.world.must("plan", "--check")
    }

    @Test func aDiskThatHasGrownForItIsGivenBackAsItWas() async throws {
        let rig = try await UpgradeWorld()
        try rig.breakNew()
        try await rig.begin("disk: 9GiB")
        let text = try await rig.world.mustFail("up", code: 1)
        try await expectReturned(rig, text)
        // The file still wants it larger; nothing grows a file system in this guest while it runs.
        try await rig.world.must("stop", "web")
        try await rig.world.must("up")
        #expect(try await rig.world.isMarked("web"))
        #expect(try await rig.digest() == rig.oldDigest)
        try await rig.world.must("plan", "--check")
    }

    @Test func unitsThatFailOnlyNowCount() async throws {
        let rig = try await UpgradeWorld("", "boot=0.01 agent units=a.service")
        let units = "units=a.service,web.service"
        try rig.world.behave("boot=0.01 agent \(units)", with: rig.newDigest)
        try await rig.begin()
        let text = try await rig.world.mustFail("upgrade", "web", code: 1)
        try await expectReturned(rig, text)
        #expect(text.contains("units failed that had not before: web.service"))
    }

    @Test func aFreshDigestIsTriedAgainByItself() async throws {
        let rig = try await UpgradeWorld()
        try rig.breakNew()
        try await rig.begin()
        try await rig.world.mustFail("up", code: 1)
        let images = "app: {from: core, packages: [one, three]}"
        let third = try await rig.world.makeImage("app", images)
        try rig.world.declare("web: {image: app}", images: images)
        try await rig.world.must("up")
        #expect(try await rig.digest() == third)
        // The failed generation is none to return to.
        try await rig.world.must("rollback", "web")
        #expect(try await rig.world.list()["web"]?["generation"] == 1)
    }

    @Test func aStoppedVMIsTriedByItsNextStart() async throws {
        let rig = try await UpgradeWorld()
        try rig.breakNew()
        try await rig.begin()
        try await rig.world.must("stop", "web")
        let said = try await rig.world.must("upgrade", "web").text
        #expect(said.contains("its first start decides"))
        try await rig.world.expectState("web", "stopped")
        #expect(try await rig.world.must("status", "web").text.contains("the next start tries it"))
        let text = try await rig.world.mustFail("start", "web", code: 1)
        try await expectReturned(rig, text)
    }

    @Test func whatWaitsForARestartIsTriedByIt() async throws {
        let keys = "restartIfChanged: false"
        let rig = try await UpgradeWorld(keys)
        try rig.breakNew()
        try await rig.begin(keys)
        try await rig.world.must("up")
        #expect(try await rig.world.list()["web"]?["imageState"] == "pending")
        // A further change does not make it forget.
        try rig.declareNew(keys + ", memory: 256MiB")
        try await rig.world.must("up")
        let text = try await rig.world.mustFail("restart", "web", code: 1)
        try await expectReturned(rig, text)
    }

    @Test func aBuildThatFailsLeavesEverythingRunning() async throws {
        let rig = try await UpgradeWorld()
        try await rig.begin()
        let pid = try await rig.world.list()["web"]?["pid"]
        let broken = "app: {from: core, files: {/x: {source: /nowhere}}}"
        try rig.world.declare("web: {image: app}", images: broken)
        try await rig.world.mustFail("upgrade", "web", code: 1)
        #expect(try await rig.world.list()["web"]?["pid"] == pid)
        #expect(try await rig.snapshots().isEmpty)
    }

    @Test func withoutASnapshotNothingIsTried() async throws {
        let rig = try await UpgradeWorld()
        try await rig.begin()
        // Without qemu-img a disk can be used, and not kept.
        rig.world.onlyEnvironment = [
            "PATH=/nowhere", "HOME=\(rig.world.folder)", "MARTLET_ROOT=\(rig.world.layout.root)",
            "MARTLET_RUN=\(rig.world.layout.run)", "MARTLET_QEMU=\(rig.world.folder)/hypervisor",
        ]
        let text = try await rig.world.mustFail("upgrade", "web", code: 1)
        #expect(text.contains("nothing was upgraded"), "\(text)")
        #expect(try await rig.digest() == rig.oldDigest)
        try await rig.world.expectState("web", "running")
    }

    @Test func goingBackThatFailsSaysWhatIsWhere() async throws {
        let rig = try await UpgradeWorld()
        try await rig.begin()
        // Neither image comes up any more.
        try rig.world.behave("init-error=0.01")
        let text = try await rig.world.mustFail("upgrade", "web", code: 1)
        #expect(text.contains("did not come up either"), "\(text)")
        #expect(text.contains("generation 1, which is the current one again"), "\(text)")
        #expect(try await rig.world.isMarked("web"))
        try rig.world.behave("boot=0.01 agent")
        try await rig.world.must("start", "web")
        #expect(try await rig.digest() == rig.oldDigest)
    }
}

@Suite(.timeLimit(.minutes(20))) struct RollbackTests {
    @Test func aRollbackReturnsConfigurationAndImageAndHoldsThem() async throws {
        let rig = try await UpgradeWorld()
        try await rig.begin()
        try rig.declareNew("memory: 256MiB, disk: 9GiB")
        try await rig.world.must("up")
        try await rig.world.must("rollback", "web")
        var vm = try await rig.world.list()["web"]
        #expect(vm?["imageDigest"]?.string == rig.oldDigest && vm?["imageState"] == "outdated")
        #expect(vm?["memoryBytes"] == .integer(512 << 20) && vm?["state"] == "running")
        #expect(try await rig.world.isMarked("web"))
        #expect(try await rig.snapshots().count == 2)
        // The file still wins for what is no image.
        let plan = try await rig.world.must("plan")
        #expect(plan.text.contains("memory") && !plan.text.contains("rebuild"))
        #expect(plan.errorText.contains("a rollback holds its image"))
        try await rig.world.must("up")
        vm = try await rig.world.list()["web"]
        #expect(vm?["memoryBytes"] == .integer(256 << 20))
        #expect(vm?["imageDigest"]?.string == rig.oldDigest)
        try await rig.world.must("plan", "--check")
        let pinned = try await rig.generations().filter { $0["pinned"] == true }
        #expect(pinned.count == 1 && pinned.first?["current"] == true)
        try await rig.world.must("upgrade", "web")
        #expect(try await rig.digest() == rig.newDigest)
        try await rig.world.must("plan", "--check")
    }

    @Test func generationsSayWhatChanged() async throws {
        let rig = try await UpgradeWorld()
        try await rig.begin()
        try await rig.world.must("up")
        try rig.declareNew("memory: 256MiB")
        try await rig.world.must("up")
        let fields = try await rig.generations().map { generation in
            generation["changes"]?.elements.compactMap { $0["field"]?.string } ?? []
        }
        #expect(fields == [[], ["image"], ["memory"]])
        #expect(try await rig.generations().map { $0["running"] } == [false, false, true])
        let table = try await rig.world.must("generations", "web").text
        #expect(table.contains("current, running"))
        try await rig.world.must("rollback", "web", "1")
        #expect(try await rig.generations().map { $0["current"] } == [true, false, false])
        let text = try await rig.world.mustFail("rollback", "web", "7", code: 66)
        #expect(text.contains("it has 1, 2, 3"))
        try await rig.world.mustFail("rollback", "web", code: 66)
    }

    @Test func anImageThatIsGoneIsNoneToReturnTo() async throws {
        let rig = try await UpgradeWorld()
        try await rig.begin()
        try await rig.world.must("up")
        // What generations need is not pruned.
        try await rig.world.must("prune")
        let folder = "\(rig.world.layout.root)/images/\(rig.oldDigest)"
        #expect(Files.exists(folder))
        try Files.remove(folder)
        let pid = try await rig.world.list()["web"]?["pid"]
        let text = try await rig.world.mustFail("rollback", "web", code: 66)
        #expect(text.contains("is gone, so nothing was changed"))
        #expect(try await rig.world.list()["web"]?["pid"] == pid)
    }

    @Test func onlyOneRunChangesAVM() async throws {
        let keys = "boot: {deadline: 10m}"
        let rig = try await UpgradeWorld(keys)
        // It boots when it is told to.
        try rig.world.behave("agent", with: rig.newDigest)
        try await rig.begin(keys)
        let upgrade = rig.world.program(["upgrade", "web"])
        async let first = upgrade.capture()
        try await rig.world.until("it is at it") {
            let vm = try await rig.world.list()["web"]
            return vm?["reason"] == "it is being upgraded" && vm?["pid"] != .null
                && vm?["imageDigest"]?.string == rig.newDigest
        }
        for words in [
            ["upgrade", "web"], ["up"], ["snapshot", "create", "web"], ["rollback", "web"],
            ["backup", "create", "web"],
        ] {
            let output = try await rig.world.program(words).capture()
            #expect(output.exit == .code(75), "\(words) \(output.text)\(output.errorText)")
        }
        let console = try UnixSocket.connect(rig.world.layout.vm("web").consoleSocket)
        try console.write("boot\n".utf8)
        let output = try await first
        #expect(output.exit == .code(0), "\(output.text)\(output.errorText)")
        #expect(try await rig.digest() == rig.newDigest)
        #expect(try await rig.world.isMarked("web"))
        try await rig.world.must("plan", "--check")
        try rig.world.expectNothingLeftOver()
    }
}

/// Killed at its first step, its second, and so on; the next `up` has to make everything good.
@Suite(.timeLimit(.minutes(30))) struct KilledUpgradeTests {
    @Test func aKilledUpgradeIsFinished() async throws {
        let rig = try await UpgradeWorld()
        try await rig.begin()
        // There and back: each round is an upgrade to the other image.
        for step in 1... {
            let target = step % 2 == 1 ? rig.newDigest : rig.oldDigest
            step % 2 == 1 ? try rig.declareNew() : try rig.declareOld()
            let exit = try await rig.world.program(["upgrade", "web"], killAt: step).capture().exit
            #expect(exit == .code(0) || exit == .signal(SIGKILL))
            try await rig.world.expectTruth("step \(step)")
            try await rig.world.must("up")
            #expect(try await rig.digest() == target, "step \(step)")
            #expect(try await rig.world.isMarked("web"), "step \(step)")
            try await rig.world.must("plan", "--check")
            try rig.world.expectNothingLeftOver("step \(step)")
            if exit == .code(0) { return #expect(step > 12) }
        }
    }

    @Test func aKilledReturnIsFinished() async throws {
        let rig = try await UpgradeWorld()
        try rig.breakNew()
        try await rig.begin()
        for step in 1... {
            let exit = try await rig.world.program(["upgrade", "web"], killAt: step).capture().exit
            #expect(exit == .code(1) || exit == .signal(SIGKILL))
            try await rig.world.expectTruth("step \(step)")
            // The first one may have to report the failure; then there is nothing to do.
            _ = try await rig.world.martlet("up")
            try await rig.world.must("up")
            let vm = try await rig.world.list()["web"]
            #expect(vm?["state"] == "running", "step \(step)")
            #expect(vm?["imageDigest"]?.string == rig.oldDigest, "step \(step)")
            #expect(try await rig.world.isMarked("web"), "step \(step)")
            try await rig.world.must("plan", "--check")
            try rig.world.expectNothingLeftOver("step \(step)")
            if exit == .code(1) { return #expect(step > 20) }
        }
    }
}
