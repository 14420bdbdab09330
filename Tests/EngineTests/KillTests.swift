// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Testing

/// A command that is killed at its first step, its second, and so on: each time `list` tells the
/// truth, and the same command again converges, loses nothing and leaves nothing.
struct Scenario: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let command: [String]
    /// Fewer steps than this, and the test would prove less than it says.
    let steps: Int
    /// Whether the data of `web` lasts.
    var keepsData = true
    /// Whether the fleet is as declared afterwards.
    var converges = true
    /// Makes the state in which the command is run; called again before each run.
    let before: @Sendable (World) async throws -> Void
    let after: @Sendable (World) async throws -> Void

    /// Only root serves folders to others.
    static let all = always + (geteuid() == 0 ? [firstShare] : [])

    private static let firstShare = Scenario(
        testDescription: "the first up with a share that is made", command: ["up"], steps: 7,
        keepsData: false,
        before: { world in
            let share = "{source: ./made/deep, mount: /d, create: {mode: \"0750\", owner: nobody}}"
            try world.declare("web: {shares: [\(share)]}")
            if Files.exists(world.layout.vm("web").path) {
                try await world.must("purge", "web", "--yes")
            }
            try Files.remove("\(world.folder)/made")
        },
        after: { world in
            try await world.expectState("web", "running")
            let made = try Files.status("\(world.folder)/made/deep")
            #expect(made.mode == 0o750)
            #expect(made.owner == Account("nobody")?.user)
            let names = try Files.list("\(world.folder)/made")
            #expect(names == ["deep"])
        })

    private static let always = [
        Scenario(
            testDescription: "the first up", command: ["up"], steps: 6, keepsData: false,
            before: { world in
                try world.declare("web: {memory: 256MiB}")
                if Files.exists(world.layout.vm("web").path) {
                    try await world.must("purge", "web", "--yes")
                }
            },
            after: { world in
                try await world.expectState("web", "running")
            }),
        Scenario(
            testDescription: "up after a change that restarts", command: ["up"], steps: 6,
            before: { world in
                try world.declare("web: {memory: 256MiB}")
                try await world.must("up")
                try world.declare("web: {memory: 384MiB}")
            },
            after: { world in
                let memory = try await world.list()["web"]?["memoryBytes"]
                #expect(memory == .integer(384 << 20))
            }),
        Scenario(
            testDescription: "up after a live change", command: ["up"], steps: 3,
            before: { world in
                try world.declare("web: {stop: {grace: 10s}}")
                try await world.must("up")
                try world.declare("web: {stop: {grace: 20s}}")
            },
            after: { world in
                let launch = try Files.readText(world.layout.vm("web").launch)
                #expect(launch.contains("\"stopGrace\" : 20"))
                let current = try world.current("web")
                let generation = try await world.list()["web"]?["generation"]
                #expect(generation == .integer(Int64(current)))
            }),
        Scenario(
            testDescription: "up that grows disks", command: ["up"], steps: 6, keepsData: false,
            before: { world in
                // What the guest prints of each file system: 262144 blocks of 8192 bytes.
                try world.behave("boot=0.01 agent out=MjYyMTQ0IDgxOTIK")
                if Files.exists(world.layout.vm("web").path) {
                    try await world.must("purge", "web", "--yes")
                }
                try world.declare(
                    "web: {disk: 1GiB, volumes: [{name: v, size: 16MiB, mount: /srv/v}]}")
                try await world.must("up")
                try world.declare(
                    "web: {disk: 2GiB, volumes: [{name: v, size: 32MiB, mount: /srv/v}]}")
            },
            after: { world in
                let current = try world.current("web")
                let generation = try await world.list()["web"]?["generation"]
                #expect(generation == .integer(Int64(current)))
                try await world.expectState("web", "running")
            }),
        Scenario(
            testDescription: "up that stops an undeclared VM", command: ["up"], steps: 2,
            before: { world in
                try world.declare("web: {}, other: {}")
                try await world.must("up")
                try world.declare("other: {}")
            },
            after: { world in
                try await world.expectState("other", "running")
                #expect(!Files.exists(world.layout.vm("web").run))
            }),
        Scenario(
            testDescription: "up after an override", command: ["up"], steps: 6,
            before: { world in
                try world.declare("web: {}")
                try await world.must("up")
                let passwd = world.program(["passwd", "web"])
                let output = try await passwd.capture(input: Array("secret\n".utf8))
                #expect(output.exit == .code(0))
            },
            after: { world in
                let override = try Files.readText(world.layout.override("web"))
                #expect(override.contains("rootPasswordHash: \"$"))
                let generation = world.layout.vm("web").generation(try world.current("web"))
                let record = try Files.readText(generation)
                #expect(record.contains("\"$"))
            }),
        Scenario(
            testDescription: "stop", command: ["stop", "web"], steps: 1, converges: false,
            before: { world in
                try world.declare("web: {}")
                try await world.must("up")
            },
            after: { world in
                try await world.expectState("web", "stopped")
                #expect(!Files.exists(world.layout.vm("web").run))
            }),
        Scenario(
            testDescription: "recreate", command: ["recreate", "web", "--yes"], steps: 4,
            keepsData: false, converges: false,
            before: { world in
                try world.declare("web: {}")
                try await world.must("up")
                try await world.mark("web")
                try Files.write(
                    "\(world.folder)/identity",
                    try Files.read("\(world.layout.vm("web").identity)/machine-id"))
            },
            after: { world in
                let isMarked = try await world.isMarked("web")
                #expect(!isMarked)
                let identity = try Files.read("\(world.layout.vm("web").identity)/machine-id")
                let before = try Files.read("\(world.folder)/identity")
                #expect(identity == before)
                try await world.must("up")
                try await world.expectState("web", "running")
            }),
        Scenario(
            testDescription: "destroy", command: ["destroy", "web", "--yes"], steps: 7,
            keepsData: false, converges: false,
            before: { world in
                try world.declare("web: {}")
                try await world.must("up")
            },
            after: { world in
                let files = world.layout.vm("web")
                try await world.expectState("web", "absent")
                let left = try Files.list(files.path)
                #expect(left == ["change.lock", "identity"])
                #expect(!Files.exists(files.run))
            }),
    ]
}

@Suite(.timeLimit(.minutes(20))) struct KillTests {
    @Test(arguments: Scenario.all) func killedAtEveryStep(_ scenario: Scenario) async throws {
        let world = try await World()
        var step = 0
        var wasKilled = true
        while wasKilled {
            step += 1
            try await scenario.before(world)
            if scenario.keepsData, step == 1 { try await world.mark("web") }
            let first = try await world.program(scenario.command, killAt: step).capture()
            wasKilled = first.exit == .signal(SIGKILL)
            #expect(wasKilled || first.exit == .code(0), "\(step): \(first.errorText)")
            try await world.expectTruth("\(scenario.testDescription), killed at step \(step)")

            let second = try await world.program(scenario.command).capture()
            #expect(second.exit == .code(0), "after a kill at \(step): \(second.errorText)")
            try world.expectNothingLeftOver("after a kill at \(step)")
            if scenario.converges {
                let check = try await world.martlet("plan", "--check")
                #expect(check.exit == .code(0), "\(check.text)\(check.errorText)")
            }
            if scenario.keepsData { #expect(try await world.isMarked("web")) }
            try await scenario.after(world)
        }
        #expect(step > scenario.steps)
    }

    @Test func aKilledSupervisorIsSeenAndReplaced() async throws {
        let world = try await World()
        try world.declare("web: {}")
        try await world.must("up")
        try await world.mark("web")
        let hypervisor = try #require(try await world.list()["web"]?["pid"]?.integer)
        let supervisor = try #require(world.processes.first { $0 != hypervisor })
        kill(supervisor, SIGKILL)
        try await world.until("both are gone") { world.processes.isEmpty }
        try await world.expectTruth()
        let vm = try await world.list()["web"]
        #expect(vm?["state"] == "failed" && vm?["reason"] == "the supervisor was killed")
        #expect(try await world.martlet("plan", "--check").exit == .code(2))
        try await world.must("up")
        #expect(try await world.state("web") == "running")
        #expect(try await world.isMarked("web"))
    }

    @Test func aKilledHypervisorIsRestartedBySupervisor() async throws {
        let world = try await World()
        try world.declare("web: {}")
        try await world.must("up")
        let first = try #require(try await world.list()["web"]?["pid"]?.integer)
        kill(Int32(first), SIGKILL)
        try await world.until("it is seen") {
            let vm = try #require(try await world.list()["web"])
            // Until its supervisor starts it again, there is no process, and `list` says so.
            #expect((vm["pid"] == .null) == (vm["state"] == "starting") || vm["restarts"] == 1)
            return vm["pid"] != .integer(first)
        }
        try await world.must("up")
        try await world.until("it runs again") { try await world.state("web") == "running" }
        #expect(try await world.list()["web"]?["restarts"] == 1)
        try await world.expectTruth()
    }

    @Test func twoUpsAtOnceEndWell() async throws {
        let world = try await World("boot=0.3 agent")
        try world.declare("web: {}, other: {}")
        let up = world.program(["up"])
        async let one = up.capture()
        async let two = up.capture()
        for output in try await [one, two] {
            #expect([.code(0), .code(75)].contains(output.exit), "\(output.errorText)")
        }
        try await world.must("up")
        try await world.expectTruth()
        #expect(world.processes.count == 4)
    }
}

extension World {
    /// The number of the generation that the next start uses.
    func current(_ name: String) throws -> Int {
        try #require(Int(try Files.readLink(layout.vm(name).current).dropLast(5)))
    }
}
