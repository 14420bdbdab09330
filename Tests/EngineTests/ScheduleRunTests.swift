// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Testing

/// Schedules by a clock of the test's own, and the verb over a world.
@Suite(.timeLimit(.minutes(20))) struct ScheduleRunTests {
    private static let day: Int64 = 86400
    private let start = Clock.now()
    private let keys = "snapshots: {schedule: daily, keep: {daily: 2}}"

    /// A stopped VM with a disk.
    private func world() async throws -> (World, Engine) {
        let world = try await World()
        try world.declare("web: {\(keys), autostart: false}")
        try await world.must("up")
        return (world, Engine(layout: world.layout))
    }

    private func run(_ engine: Engine, at now: Int64) async throws -> [Bool] {
        try await engine.runDue { now }.map(\.ok)
    }

    @Test func whatIsMissedIsMadeUpOnce() async throws {
        let (world, engine) = try await world()
        defer { withExtendedLifetime(world) {} }
        // Declared: not at once, but at the next planned time.
        #expect(try await run(engine, at: start) == [])
        #expect(try await run(engine, at: start + 60) == [])
        #expect(try engine.snapshots("web").isEmpty)
        // The host was off for five days.
        let later = start + 5 * Self.day
        #expect(try await run(engine, at: later) == [true])
        #expect(try await run(engine, at: later + 1) == [])
        let made = try engine.snapshots("web")
        #expect(made.map(\.reason) == [.schedule])
        let planned = try #require(try engine.plannedWork(["web"]).first)
        #expect(planned.last == later && planned.isDone == true)
        let next = try #require(planned.next)
        #expect(next > later && next <= later + Self.day)
    }

    @Test func whatFailsIsTriedAgainAnHourLater() async throws {
        let (world, engine) = try await world()
        _ = try await run(engine, at: start)
        let inTheWay = world.layout.vm("web").snapshots
        try Files.write(inTheWay, "in the way")
        let due = start + 2 * Self.day
        #expect(try await run(engine, at: due) == [false])
        #expect(try await run(engine, at: due + 3599) == [])
        let status = try await world.must("status", "web").text
        #expect(status.contains("failed: "), "\(status)")
        try Files.remove(inTheWay)
        #expect(try await run(engine, at: due + 3600) == [true])
    }

    @Test func whatIsChangedByAnotherRunWaits() async throws {
        let (world, engine) = try await world()
        _ = try await run(engine, at: start)
        let due = start + 2 * Self.day
        do {
            guard let lock = try FileLock.attempt(world.layout.vm("web").changeLock) else {
                Issue.record("somebody is at it")
                return
            }
            #expect(try await run(engine, at: due) == [])
            _ = consume lock
        }
        #expect(try await run(engine, at: due + 60) == [true])
    }

    @Test func anotherScheduleBeginsAnew() async throws {
        let (world, engine) = try await world()
        _ = try await run(engine, at: start)
        try world.declare("web: {snapshots: {schedule: weekly}, autostart: false}")
        // Nothing stops for it.
        let plan = try await world.must("plan").text
        #expect(plan.contains("live") && !plan.contains("restart"), "\(plan)")
        try await world.must("up")
        let noted = start + 9 * Self.day
        #expect(try await run(engine, at: noted) == [])
        #expect(try await run(engine, at: noted + 7 * Self.day) == [true])
        try world.declare("web: {autostart: false}")
        try await world.must("up")
        #expect(try engine.plannedWork().isEmpty)
        #expect(try await run(engine, at: noted + 100 * Self.day) == [])
    }

    @Test func olderOnesGoAsTheRetentionSays() async throws {
        let (world, engine) = try await world()
        try await world.must("snapshot", "create", "web", "mine")
        _ = try await run(engine, at: start)
        for round in 1...3 {
            #expect(try await run(engine, at: start + Int64(round) * Self.day) == [true])
        }
        // All were made today, of which the newest stays; what was made by hand does, too.
        let left = try engine.snapshots("web")
        #expect(left.map(\.reason).filter { $0 == .schedule }.count == 1)
        #expect(left.contains { $0.name == "mine" })
    }

    /// Lets eight days go by for what is planned.
    private func letDaysGoBy(_ world: World) throws {
        let path = "\(world.layout.root)/schedule.json"
        let aged = try Files.readText(path).replacing(#/"(since|last)" : (\d+)/#) { match in
            "\"\(match.1)\" : \((Int64(match.2) ?? 0) - 8 * Self.day)"
        }
        try Files.write(path, aged)
    }

    @Test func backupsAreMadeAndProvedWhileTheVMRuns() async throws {
        let world = try await World("qemu boot=0.05 agent freeze")
        try world.declare(
            "web: {memory: 256MiB, disk: 64MiB, "
                + "backups: {schedule: daily, keep: {daily: 1}, verify: weekly}}")
        try await world.must("up")
        try await world.agent("web")
        try await world.must("schedule", "run")
        let pid = try await world.list()["web"]?["pid"]
        for round in 1...3 {
            try letDaysGoBy(world)
            let run = try await world.must("schedule", "run", "--json")
            let results = try JSONValue(parsing: run.standardOutput)["results"]?.elements ?? []
            #expect(results.map { $0["action"] } == ["backup", "verify"], "\(run.text)")
            let newest = try #require(try await world.backups("web").last)
            #expect(newest["verifiedAt"]?.string != nil, "round \(round)")
            #expect(newest["consistency"] == "frozen")
            // Its chain stays whole.
            try await world.must("backup", "verify", "web")
        }
        #expect(try await world.list()["web"]?["pid"] == pid)
        let status = try await world.must("status", "web").text
        #expect(status.contains("daily; last 20"), "\(status)")
        #expect(status.contains("weekly; last 20"), "\(status)")
        try world.expectNothingLeftOver()
    }

    @Test func aDamagedRecordIsPutAside() async throws {
        let (world, engine) = try await world()
        try Files.write("\(world.layout.root)/schedule.json", "{")
        #expect(try await run(engine, at: start) == [])
        #expect(try Files.list(world.layout.quarantine).count == 1)
        #expect(try await run(engine, at: start + Self.day) == [true])
    }

    @Test func theVerbsShowAndRun() async throws {
        let (world, engine) = try await world()
        let missing = try await world.martlet("doctor").text
        #expect(missing.contains("nobody has run them"), "\(missing)")
        let first = try await world.must("schedule", "run", "--json")
        #expect(try JSONValue(parsing: first.standardOutput)["results"]?.elements == [])
        let run = try await world.martlet("doctor").text
        #expect(run.contains("run, last"), "\(run)")
        let list = try await world.must("schedule", "list", "--json")
        let row = try #require(try JSONValue(parsing: list.standardOutput).elements.first)
        #expect(row["vm"] == "web" && row["work"] == "snapshot" && row["schedule"] == "daily")
        #expect(row["last"] == .null && row["ok"] == .null && row["next"]?.string != nil)
        #expect(try await self.run(engine, at: start + Self.day) == [true])
        let table = try await world.must("schedule", "list").text
        #expect(table.contains("snapshot '"), "\(table)")
        #expect(try await world.must("status", "web").text.contains("daily; last 20"))
        // Only one at a time.
        guard let lock = try FileLock.attempt("\(world.layout.root)/schedule.lock") else {
            Issue.record("somebody is at it")
            return
        }
        try await world.mustFail("schedule", "run", code: 75)
        _ = consume lock
    }

    @Test func theLoopStaysAndEndsWithASignal() async throws {
        let (world, _) = try await world()
        var program = world.program(["schedule", "run", "--loop"])
        program.descriptors = [2: 2]
        let child = try program.spawn()
        try await world.until("it has run") {
            Files.exists("\(world.layout.run)/schedule.tick")
        }
        child.signal(SIGTERM)
        #expect(try await child.wait() == .code(128 + SIGTERM))
    }

    @Test func aKilledRunIsNotRepeatedAtOnce() async throws {
        let (world, engine) = try await world()
        _ = try await run(engine, at: start)
        let path = "\(world.layout.root)/schedule.json"
        let noted = try Files.readText(path)
        let early = noted.replacing("\(start)", with: "\(start - 5 * Self.day)")
        try #require(early != noted)
        try Files.write(path, early)
        let killed = try await world.program(["schedule", "run"], killAt: 1).capture()
        #expect(killed.exit == .signal(SIGKILL))
        let again = try await world.must("schedule", "run", "--json")
        #expect(try JSONValue(parsing: again.standardOutput)["results"]?.elements == [])
        #expect(try await world.must("schedule", "list").text.contains("it was interrupted"))
        #expect(try await run(engine, at: Clock.now() + 3600) == [true])
    }
}
