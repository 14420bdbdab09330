// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Testing

/// A file below ROOT or RUN that is not what martlet wrote.
struct Damage: Sendable {
    let name: String
    let path: @Sendable (VMLayout) -> String
    var content = "garbage"
    /// Whether it is kept in ROOT/quarantine.
    var isQuarantined = false

    static let all = [
        Damage(name: "vm.json", path: \.record, isQuarantined: true),
        Damage(name: "an empty vm.json", path: \.record, content: "", isQuarantined: true),
        Damage(
            name: "vm.json of another VM", path: \.record,
            content: #"{"version": 1, "name": "b", "fleet": "test", "createdAt": 0}"#,
            isQuarantined: true),
        Damage(name: "the generation", path: \.newest, isQuarantined: true),
        Damage(name: "an empty generation", path: \.newest, content: "", isQuarantined: true),
        Damage(name: "current", path: \.current, isQuarantined: true),
        Damage(name: "launch.json", path: \.launch),
        Damage(name: "run.json", path: \.runRecord),
        Damage(name: "exit.json", path: \.exitRecord),
    ]

    func apply(_ world: World) throws {
        let path = path(world.layout.vm("web"))
        try Files.makeFolder(Files.parent(path))
        try Files.write(path, content)
    }
}

extension VMLayout {
    fileprivate var newest: String {
        generation((try? Files.readLink(current)).flatMap { Int($0.dropLast(5)) } ?? 0)
    }
}

@Suite(.serialized, .timeLimit(.minutes(20))) struct DamageTests {
    @Test(arguments: [false, true])
    func damageCostsNoDataAndNoOtherVM(whileRunning: Bool) async throws {
        let world = try await World()
        try world.declare("web: {}, other: {}")
        try await world.must("up")
        try await world.mark("web")
        let other = try await world.list()["other"]
        for (number, damage) in Damage.all.enumerated() {
            if !whileRunning { try await world.must("stop", "web") }
            try damage.apply(world)
            try await world.expectTruth("\(damage.name) is damaged")
            // A live change, so that what runs has to be told of it.
            try world.declare("web: {stop: {grace: \(number + 5)s}}, other: {}")
            let up = try await world.must("up")
            try await world.must("plan", "--check")
            try world.expectNothingLeftOver(damage.name)
            #expect(try await world.isMarked("web"))
            let quarantine = world.layout.quarantine
            let kept = try Files.list(quarantine)
            #expect(!kept.isEmpty == damage.isQuarantined, "\(damage.name)")
            for name in kept {
                #expect(try Files.readText("\(quarantine)/\(name)") == damage.content)
                #expect(up.errorText.contains("it is now \(quarantine)/\(name)"))
            }
            try Files.remove(quarantine)
        }
        #expect(try await world.list()["other"] == other)
    }

    @Test func aLinkToNowhereIsMadeAgain() async throws {
        let world = try await World()
        try world.declare("web: {}")
        try await world.must("up")
        try await world.mark("web")
        for target in ["7.json", "elsewhere", "/etc/passwd"] {
            try Files.link(target, at: world.layout.vm("web").current)
            try await world.expectTruth(target)
            try await world.must("up")
            try await world.must("plan", "--check")
            #expect(try await world.isMarked("web"))
        }
        #expect(Files.exists("/etc/passwd"))
    }

    @Test(arguments: ["vm.json", "generations/1.json"])
    func aVMFromANewerVersionIsLeftAlone(_ file: String) async throws {
        let world = try await World()
        try world.declare("web: {}, other: {}")
        try await world.must("up", "web")
        try await world.must("stop", "web")
        try await world.mark("web")
        let path = "\(world.layout.vm("web").path)/\(file)"
        let newer = #"{"version": 99, "name": "web", "fleet": {"id": 1}}"#
        try Files.write(path, newer)
        let text = try await world.mustFail("up", code: 1)
        #expect(text.contains("\(path) was written by a newer martlet"))
        #expect(try await world.list()["other"]?["state"] == "running")
        let web = try await world.list()["web"]
        #expect(web?["reason"]?.string?.contains("newer martlet") == true)
        for verb in ["start", "destroy", "recreate", "purge"] {
            let yes = verb == "start" ? [] : ["--yes"]
            let output = try await world.program([verb, "web"] + yes).capture()
            #expect(output.exit == .code(1), "\(verb)")
            #expect(output.errorText.contains("newer martlet"), "\(output.errorText)")
        }
        #expect(try Files.readText(path) == newer)
        #expect(try await world.isMarked("web"))
        // What can be stopped is, and the one that cannot be touched is named.
        let down = try await world.martlet("down")
        #expect(down.exit == .code(file == "vm.json" ? 0 : 1))
        #expect(try !world.isRunning("other"))
        #expect(try Files.list(world.layout.quarantine) == [])
    }

    @Test func foreignFilesAreLeftAloneAndNamed() async throws {
        let world = try await World()
        try world.declare("web: {}")
        let foreign = ["vms/README", "vms/Old Stuff/notes", "vms/.hidden", "vms/empty/notes"]
        for path in foreign {
            try Files.makeFolder(Files.parent("\(world.layout.root)/\(path)"))
            try Files.write("\(world.layout.root)/\(path)", path)
        }
        let up = try await world.must("up")
        #expect(up.errorText.contains("\(world.layout.vms)/README is no VM of martlet's"))
        #expect(up.errorText.contains("\(world.layout.vms)/Old Stuff is no VM"))
        try world.declare("")
        try await world.must("up")
        for path in foreign {
            #expect(try Files.readText("\(world.layout.root)/\(path)") == path)
        }
        #expect(world.processes.isEmpty)
    }

    @Test func whatAKilledRunWasWritingIsRemoved() async throws {
        let world = try await World()
        try world.declare("web: {}")
        try await world.must("up", "--no-start")
        let files = world.layout.vm("web")
        for path in [
            files.record, files.generation(2), files.current, "\(files.identity)/uuid",
            "\(files.dataVolume).raw",
        ] {
            try Files.write("\(path).new.123", "half")
        }
        try await world.must("up")
        #expect(try world.unfinished() == [])
    }
}
