// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Testing

@Suite(.serialized, .timeLimit(.minutes(20))) struct FleetTests {
    @Test func twoFleetsUnderOneRootNeverTouchEachOther() async throws {
        let world = try await World()
        try world.declare("web: {}", fleet: "alpha", file: "alpha.yaml")
        try world.declare("db: {}", fleet: "beta", file: "beta.yaml")
        try await world.must("up", "-f", "alpha.yaml")
        try await world.must("up", "-f", "beta.yaml")
        #expect(try world.isRunning("web") && world.isRunning("db"))
        try await world.must("plan", "--check", "-f", "alpha.yaml")
        #expect(try await world.list("-f", "alpha.yaml").keys.sorted() == ["web"])
        #expect(try await world.list("-f", "beta.yaml").keys.sorted() == ["db"])

        // An override of one is none of the other's business.
        let passwd = world.program(["passwd", "web", "-f", "alpha.yaml"])
        #expect(try await passwd.capture(input: Array("secret\n".utf8)).exit == .code(0))
        try await world.must("plan", "--check", "-f", "beta.yaml")

        try await world.must("down", "-f", "beta.yaml")
        #expect(try world.isRunning("web") && !world.isRunning("db"))
        for words in [["stop", "web"], ["destroy", "--yes", "web"], ["purge", "--yes", "web"]] {
            let output = try await world.program(words + ["-f", "beta.yaml"]).capture()
            #expect(output.exit == .code(66))
            #expect(output.errorText.contains("belongs to the fleet 'alpha'"))
        }
        try await world.must("purge", "--yes", "db", "-f", "beta.yaml")
        try await world.must("up", "-f", "alpha.yaml")
        #expect(try world.isRunning("web"))
        #expect(!Files.exists(world.layout.vm("db").path))

        try world.declare("web: {memory: 1GiB}, db: {}", fleet: "beta", file: "beta.yaml")
        let plan = try await world.must("plan", "-f", "beta.yaml").text
        #expect(plan.contains("it belongs to the fleet 'alpha' under the same ROOT"))
        try await world.mustFail("up", "-f", "beta.yaml", code: 1)
        #expect(try world.isRunning("db"))
        #expect(try await world.list("-f", "alpha.yaml")["web"]?["generation"] == 2)
    }

    /// The users of VMs have to pass its folders, and nobody says `umask` of a service.
    @Test func vmsStartWhateverTheUmask() async throws {
        let world = try await World()
        try world.declare("web: {}", fleet: "alpha")
        world.wrapper = ["/bin/sh", "-c", "umask 077; exec \"$@\"", "sh"]
        try await world.must("up")
        #expect(try world.isRunning("web"))
    }

    @Test func whatWaitsForARestartIsNotReportedAsThere() async throws {
        let world = try await World()
        try world.declare("web: {memory: 256MiB, restartIfChanged: false}")
        try await world.must("up")
        // One part is live, the other waits.
        try world.declare("web: {memory: 384MiB, stop: {grace: 7s}, restartIfChanged: false}")
        try await world.must("up")
        try await world.must("plan", "--check")
        let vm = try await world.list()["web"]
        #expect(vm?["generation"] == 1 && vm?["memoryBytes"] == .integer(256 << 20))
        let launch = try Files.readText(world.layout.vm("web").launch)
        #expect(launch.contains("\"stopGrace\" : 7"))
        try world.declare("web: {memory: 384MiB, stop: {grace: 7s}}")
        try await world.must("up")
        #expect(try await world.list()["web"]?["memoryBytes"] == .integer(384 << 20))
    }

    @Test func whatIsNotAvailableYetIsRefusedByNameAndTheRestIsDone() async throws {
        let world = try await World()
        try world.declare("web: {tpm: true, warm: true}, other: {}")
        let plan = try await world.must("plan", "--json")
        let changes = try JSONValue(parsing: plan.standardOutput)["changes"]?.elements ?? []
        let refusals = changes.filter { $0["action"] == "refuse" }
        #expect(refusals.compactMap { $0["field"]?.string }.sorted() == ["tpm", "warm"])
        #expect(refusals.allSatisfy { $0["vm"] == "web" })
        let text = try await world.mustFail("up", code: 1)
        #expect(text.contains("not available yet") && text.contains("web: failed"))
        #expect(try await world.state("other") == "running")
        #expect(try await world.state("web") == "absent")
        let up = try await world.martlet("up", "--json")
        #expect(up.exit == .code(1))
        let results = try JSONValue(parsing: up.standardOutput)["results"]?.elements
        #expect(results?.first?["vm"] == "web" && results?.first?["ok"] == false)
    }

    @Test func aGuestThatDoesNotComeUpIsAFailureWithItsReason() async throws {
        let world = try await World("refuse=no_such_device")
        try world.declare("web: {}")
        let text = try await world.mustFail("up", code: 1)
        #expect(text.contains("no such device"))
        let vm = try await world.list()["web"]
        #expect(vm?["state"] == "failed")
        #expect(vm?["reason"]?.string?.contains("no such device") == true)
        try await world.expectTruth()
        try world.behave("boot=0.01 agent")
        try await world.must("up")
        try await world.expectTruth()
    }
}
