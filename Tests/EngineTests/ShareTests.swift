// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import FoundationEssentials
import Glibc
import Linux
import Supervisor
import Testing

/// Shares with the real program, a daemon that serves nothing and a hypervisor without a guest.
@Suite(
    .enabled(if: geteuid() == 0, "only root serves folders to others"),
    .timeLimit(.minutes(20)))
struct ShareTests {
    private let world: World

    init() async throws {
        world = try await World()
        for name in ["rw", "ro"] { try Files.makeFolder("\(world.folder)/src/\(name)") }
    }

    private static let two =
        "web: {shares: [{source: ./src/rw, mount: /rw}, {source: ./src/ro, mount: /ro, "
        + "readOnly: true}]}"

    private var run: String { world.layout.vm("web").run }
    private var log: String {
        (try? Files.readText(world.layout.vm("web").sharesLog)) ?? ""
    }

    private func processes(_ word: String) -> [Int32] {
        ((try? Files.list("/proc")) ?? []).compactMap { Int32($0) }.filter { pid in
            (try? Files.readText("/proc/\(pid)/cmdline"))?.contains(word) == true
        }
    }
    private var keepers: [Int32] { processes("\(run)/shares.json") }
    private var daemons: [Int32] { processes("source=\(run)/shares/") }

    private func up() async throws {
        try world.declare(ShareTests.two)
        try await world.must("up")
        try await served()
    }

    /// Both daemons have a connection.
    private func served() async throws {
        try await world.until("both are served") {
            keepers.count == 1 && daemons.count == 2
        }
    }

    private func expectNothing() throws {
        #expect(keepers == [])
        #expect(daemons == [])
        #expect(!Files.exists(run))
    }

    @Test func whatIsReadOnlyIsMountedSoForTheDaemonAlone() async throws {
        try await up()
        try await world.until("both daemons have tried to write") {
            log.contains("wrote in \(run)/shares/0")
                && log.contains("Read-only file system in \(run)/shares/1")
        }
        #expect(Files.exists("\(world.folder)/src/rw/probe"))
        #expect(!Files.exists("\(world.folder)/src/ro/probe"))
        // The mounts are seen by nobody else, and the sockets are the VM's own.
        #expect(!(try Files.readText("/proc/self/mounts")).contains(world.folder))
        let user = try Files.readText("\(world.layout.vm("web").identity)/uid")
        let socket = try Files.status("\(run)/shares/0.sock")
        #expect("\(socket.owner)\n" == user)
        #expect(socket.mode == 0o600)
        #expect(try Files.status("\(run)/shares").mode == 0o711)
        let status = try await world.must("status", "web").text
        #expect(status.contains("\(world.folder)/src/ro at /ro, read-only"))

        try await world.must("stop", "web")
        try expectNothing()
        #expect(try Files.list("\(world.folder)/src/rw") == ["probe"])
    }

    /// What is mounted below a source when the VM starts is as read-only as the rest, and what is
    /// mounted later is not there; a mount elsewhere can go while the VM runs.
    @Test func mountsOfTheHostAreNeitherWritableNorHeld() async throws {
        try world.serveShares(
            command: """
                folder=$(echo "$@" | sed -n 's/.*source=\\([^,]*\\).*/\\1/p')
                touch $folder/below/x && echo "wrote below" >&2
                echo "looked below" >&2
                exec \(world.folder)/SuperviseTool virtiofsd "$@"
                """)
        try world.declare("web: {shares: [{source: ./src/ro, mount: /ro, readOnly: true}]}")
        let script = """
            set -e
            mount --make-rshared /
            mkdir src/ro/below src/ro/later elsewhere
            mount -t tmpfs tmpfs src/ro/below
            mount -t tmpfs tmpfs elsewhere
            ./martlet up >&2
            sleep 1
            mount -t tmpfs tmpfs src/ro/later
            keeper=$(pgrep -f "[_]_shares.*\(run)/shares.json")
            daemon=$(pgrep -P $keeper)
            umount elsewhere
            grep -c \(world.folder)/elsewhere /proc/$daemon/mountinfo || true
            grep -c \(run)/shares/0/below /proc/$daemon/mountinfo || true
            grep -c \(run)/shares/0/later /proc/$daemon/mountinfo || true
            ./martlet down >&2
            """
        var program = Program("/usr/bin/unshare", ["--mount", "/bin/sh", "-c", script])
        program.environment = world.program([]).environment
        program.folder = world.folder
        let output = try await program.capture()
        #expect(output.exit == .code(0), "\(output.errorText)")
        #expect(output.text == "0\n1\n0\n")
        #expect(log.contains("looked below") && !log.contains("wrote below"), "\(log)")
    }

    @Test func aKilledDaemonRestartsTheVM() async throws {
        try await up()
        let victim = try #require(daemons.first)
        kill(victim, SIGKILL)
        try await world.until("it is started again") {
            try await world.list()["web"]?["restarts"] == 1
        }
        try await served()
        #expect(!daemons.contains(victim))
        try await world.until("it runs") { try await world.state("web") == "running" }
        let events = try Files.readText(world.layout.vm("web").events)
        #expect(events.contains("the daemon of the share 'r"), "\(events)")
        #expect(events.contains("' ended: signal 9"), "\(events)")
        try await world.must("down")
        try expectNothing()
    }

    @Test func aKilledKeeperEndsTheVMAndUpBringsItBack() async throws {
        try await up()
        kill(try #require(keepers.first), SIGKILL)
        try await world.until("it has failed") { try await world.state("web") == "failed" }
        let reason = try await world.list()["web"]?["reason"]?.string
        #expect(
            reason == "its shares are not served any more: what serves its shares was killed")
        try await world.until("nothing runs") {
            world.processes.isEmpty && daemons.isEmpty
        }
        try await world.must("up")
        try await served()
        try world.expectNothingLeftOver()
        try await world.must("down")
        try expectNothing()
    }

    @Test func theKeeperEndsWithTheSupervisor() async throws {
        try await up()
        let (keeper, served) = (keepers, daemons)
        let hypervisor = try #require(try await world.list()["web"]?["pid"]?.integer)
        let supervisor = try #require(
            world.processes.first { $0 != hypervisor && !keeper.contains($0) })
        kill(supervisor, SIGKILL)
        try await world.until("all are gone") {
            world.processes.isEmpty && keepers.isEmpty && daemons.isEmpty
        }
        try await world.must("up")
        try await self.served()
        #expect(Set(served).isDisjoint(with: daemons))
        try world.expectNothingLeftOver()
    }

    @Test func aKilledHypervisorGetsNewDaemons() async throws {
        try await up()
        let before = daemons
        kill(Int32(try #require(try await world.list()["web"]?["pid"]?.integer)), SIGKILL)
        try await world.until("it runs again") {
            let vm = try await world.list()["web"]
            return vm?["restarts"] == 1 && vm?["state"] == "running"
        }
        try await served()
        #expect(Set(before).isDisjoint(with: daemons))
        // Two looks, more than a second apart: the ends of the old daemons are not held against it.
        try await Task.sleep(for: .milliseconds(1500))
        #expect(try await world.list()["web"]?["restarts"] == 1)
    }

    @Test func aDaemonThatCannotServeIsSaid() async throws {
        try world.serveShares(command: "echo 'no such luck' >&2; exit 3")
        try world.declare(ShareTests.two)
        // Its hypervisor does not need the share to come up.
        let up = try await world.martlet("up")
        try await world.until("it has failed: \(up.text)\(up.errorText)") {
            try await world.state("web") == "failed"
        }
        let reason = try await world.list()["web"]?["reason"]?.string ?? ""
        #expect(reason.contains("cannot serve \(world.folder)/src/r"), "\(reason)")
        #expect(reason.hasSuffix("exit code 3: no such luck"), "\(reason)")
        #expect(keepers == [])
        try world.serveShares()
        try await world.must("up")
        try await served()
    }

    /// What is wrong is said before the VM that runs is touched.
    @Test func whatCannotBeSharedIsRefusedBeforeAnythingChanges() async throws {
        let folder = world.folder
        try await up()
        let pid = try await world.list()["web"]?["pid"]
        try Files.write("\(folder)/src/file", "")
        for (name, target) in [("etc", "/etc"), ("own", world.layout.root), ("gone", "/no/where")] {
            try Files.link(target, at: "\(folder)/src/\(name)")
        }
        try Files.link("own", at: "\(folder)/src/twice")
        let refused: [(share: String, code: Int32, text: String)] = [
            ("source: ./src/missing", 78, "is not there: make it, or add 'create: {}'"),
            ("source: ./src/gone, create: {}", 78, "is not there"),
            ("source: ./src/file", 78, "is no directory"),
            ("source: ./src/etc", 1, "src/etc, which leads to /etc: sharing all of /etc would"),
            ("source: ./src/twice/new, create: {}", 1, "lies in \(world.layout.root)"),
            ("source: ./root/vms", 1, "lies in \(world.layout.root)"),
            ("source: ./run", 1, "it lies in \(world.layout.run)"),
            ("source: .", 1, "it holds \(world.layout.root)"),
            ("source: ./src/rw, ids: map", 78, "use 'ids: host', or the virtiofsd of Debian 13"),
            ("source: ./new, create: {owner: nosuchuser}", 78, "the user 'nosuchuser', whom"),
        ]
        for (share, code, text) in refused {
            try world.declare("web: {memory: 1GiB, shares: [{\(share), mount: /x}]}")
            let said = try await world.mustFail("up", code: code)
            #expect(said.contains(text), "\(share): \(said)")
            #expect(try await world.list()["web"]?["pid"] == pid, "\(share)")
            #expect(daemons.count == 2)
        }
        #expect(!Files.exists("\(folder)/new"))
        try Files.remove("\(folder)/virtiofsd")
        try world.declare(ShareTests.two.replacing("/rw}", with: "/rw2}"))
        let said = try await world.mustFail("up", code: 69)
        #expect(said.contains("install the package virtiofsd"), "\(said)")
        #expect(try await world.list()["web"]?["pid"] == pid)
    }

    @Test func aChangeOfSharesRestarts() async throws {
        try await up()
        try world.declare("web: {shares: [{source: ./src/rw, mount: /rw}]}")
        let plan = try await world.must("plan").text
        #expect(plan.contains("restart"), "\(plan)")
        try await world.must("up")
        try await world.until("one is served") { daemons.count == 1 && keepers.count == 1 }
        try world.declare("web: {}")
        try await world.must("up")
        #expect(keepers == [] && daemons == [])
        try world.expectNothingLeftOver()
    }

    @Test func theOwnersOfTheGuestAreOthersOnTheHost() async throws {
        try world.serveShares(version: "virtiofsd 1.13.2")
        try world.declare(
            "web: {shares: [{source: ./made/a, mount: /a, ids: map, create: {}}, "
                + "{source: ./made/b, mount: /b, ids: squash, create: {}}, "
                + "{source: ./made/c, mount: /c, ids: squash, create: {owner: nobody}}]}")
        try await world.must("up")
        let identity = world.layout.vm("web").identity
        let base = try Files.readText(identity + "/ids").filter(\.isNumber)
        let user = try Files.readText(identity + "/uid").filter(\.isNumber)
        func owner(_ name: String) throws -> String {
            String(try Files.status("\(world.folder)/made/\(name)").owner)
        }
        #expect(try owner("a") == base)
        #expect(try owner("b") == user)
        #expect(try owner("c") == Account("nobody").map { String($0.user) })
        #expect(processes("--translate-uid=map:0:\(base):65536").count == 1)
        // Files of one user are served by that user, who is 0 in a user namespace of the daemon's.
        let ofOne = processes("--translate-gid=squash-guest:0:0:")
        #expect(ofOne.count == 2)
        for pid in ofOne { #expect(try String(Files.status("/proc/\(pid)").owner) == user) }
        // The range stays the VM's, whatever happens to its disks.
        try await world.must("destroy", "web", "--yes")
        try await world.must("up")
        #expect(try Files.readText(identity + "/ids").filter(\.isNumber) == base)
    }

    /// Its unit mounts what it serves, and the service manager would follow a link.
    @Test func aKeeperInAUnitServesTheFolderThatWasMeant() async throws {
        try world.serveShares(version: "virtiofsd 1.13.2")
        let source = "\(world.folder)/src/rw"
        var share = SharedFolder(
            tag: "rw", source: source, readOnly: false, owners: .host,
            identity: try SharedFolder.Identity(
                of: Descriptor.open(source, O_RDONLY | O_DIRECTORY)),
            socket: "\(world.folder)/0.sock", mountPoint: source)
        #expect(try await unitKeeper(share) == "ready")
        share.mountPoint = "\(world.folder)/src/ro"
        #expect(
            try await unitKeeper(share)
                == "failed \(source) cannot be shared: \(source) leads to another folder now: "
                + "Too many levels of symbolic links")
    }

    /// What was prepared for a unit is served by a process once there are no units: it is told so,
    /// and does not wait for the unit's socket.
    @Test func unitsThatWereRemovedAreNotWaitedFor() async throws {
        try world.declare(ShareTests.two)
        try await world.must("up", "--no-start")
        try await world.must("prepare", "web")
        let record = world.layout.vm("web").sharesRecord
        var keeping = try ShareKeeping.read(record)
        #expect(keeping.channel == nil)
        let places = keeping.shares.map(\.mountPoint)
        keeping.channel = "\(run)/shares/keeper.sock"
        for index in keeping.shares.indices {
            keeping.shares[index].mountPoint = "/var/share/\(index)"
        }
        try Files.write(record, String(decoding: JSONEncoder().encode(keeping), as: UTF8.self))

        let manager = try FakeManager(world)
        // The step of a unit whose VM somebody has prepared: it only hands over.
        guard let request = try FileLock.attempt("\(world.layout.run)/web.start") else {
            return _ = Issue.record("somebody else asks for its unit")
        }
        try await manager.prepare("web")
        _ = consume request
        try await served()
        keeping = try ShareKeeping.read(record)
        #expect(keeping.channel == nil)
        #expect(keeping.shares.map(\.mountPoint) == places)
        // What keeps the channel open is the manager's, and the keeper ends with it.
        manager.forget()
        try await world.until("the keeper has ended") { keepers.isEmpty && daemons.isEmpty }
    }

    /// Whoever may put a link where a source was, does not choose what is shared.
    @Test func aSourceThatWasReplacedIsNotServed() async throws {
        try world.declare(ShareTests.two)
        try await world.must("up", "--no-start")
        try await world.must("prepare", "web")
        for swap in ["link", "folder"] {
            try Files.remove("\(world.folder)/src/rw")
            if swap == "link" {
                try Files.link("/etc", at: "\(world.folder)/src/rw")
            } else {
                try Files.makeFolder("\(world.folder)/src/other")
                try Files.makeFolder("\(world.folder)/src/rw")
            }
            let keeper = Program(
                "\(world.folder)/martlet",
                ["__shares", "--", "web", "test", world.layout.vm("web").sharesRecord])
            let (ours, theirs) = try UnixSocket.pair()
            let channel = Descriptor(owning: ours)
            var program = keeper
            program.descriptors = [3: theirs]
            let child = try program.spawn()
            close(theirs)
            let said = String(decoding: try channel.read(4096), as: UTF8.self)
            #expect(said.contains("leads to another folder now"), "\(swap): \(said)")
            #expect(try child.reap() == .code(1))
        }
        #expect(daemons == [])
    }

    /// Starts a keeper as a unit does, and returns the first line that it says.
    private func unitKeeper(_ share: SharedFolder) async throws -> String {
        var keeping = ShareKeeping(
            vm: "web", daemon: FileDaemon(path: "\(world.folder)/virtiofsd", kind: .rust),
            lock: "\(world.folder)/shares.lock", user: geteuid(), shares: [share])
        let channel = "\(world.folder)/keeper.sock"
        keeping.channel = channel
        let record = "\(world.folder)/shares.json"
        try Files.write(
            record, String(decoding: JSONEncoder().encode(keeping), as: UTF8.self))
        let listener = try UnixSocket.listen(channel)
        let child = try Program(
            "\(world.folder)/martlet", ["__shares", "--", "web", "unit", record]
        ).spawn()
        let client = try UnixSocket.accept(listener.raw)
        let line = String(decoding: try client.read(4096), as: UTF8.self)
        child.signal(SIGTERM)
        _ = try child.reap()
        return String(line.prefix { $0 != "\n" })
    }
}
