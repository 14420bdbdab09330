// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Supervisor
import Testing

@testable import Images

/// Images with a flipped byte, as somebody meets them who starts VMs.
@Suite(.timeLimit(.minutes(20))) struct ImageIntegrityTests {
    private func ready(_ behaviour: String = "boot=0.01 agent", checked: Bool = true) async throws
        -> (World, BootFiles)
    {
        let world = try await World(behaviour, image: false)
        try await world.makeImage(checked: checked)
        try world.declare("web: {memory: 256MiB}")
        try await world.must("up")
        let store = ImageStore(root: world.layout.root)
        return (world, store.bootFiles(try #require(try store.resolve("core"))))
    }

    /// Flips a bit of the first byte, in place: links to the file see it, too.
    private func flip(_ path: String) throws {
        let file = try Descriptor.open(path, O_RDWR)
        var byte: UInt8 = 0
        try #require(pread(file.raw, &byte, 1, 0) == 1)
        byte ^= 1
        try #require(pwrite(file.raw, &byte, 1, 0) == 1)
    }

    private func expectRefusal(_ text: String, _ path: String) throws {
        let wanted = path.contains("/layers/") ? Files.name(path).prefix(64) : ""
        #expect(
            text.contains("\(path) is damaged: its SHA-256 is \(try SHA256.file(path))"), "\(text)")
        #expect(text.contains(" instead of \(wanted)"), "\(text)")
        #expect(
            text.contains("'martlet up web' or 'martlet build core' builds it again"), "\(text)")
    }

    @Test(arguments: ["vmlinux", "initramfs"])
    func aDamagedBootFileRefusesTheStart(name: String) async throws {
        let (world, boot) = try await ready()
        try await world.must("stop", "web")
        let path = name == "vmlinux" ? boot.kernel : boot.initramfs
        try flip(path)
        try expectRefusal(try await world.mustFail("start", "web", code: 1), path)
        #expect(Files.exists(path), "it is still there for whoever wants to look at it")
        try await world.expectTruth()
        #expect(try !world.isRunning("web"))
        try flip(path)
        try await world.must("start", "web")
    }

    /// What makes the initramfs is here: nothing has to be built.
    @Test(.enabled(if: geteuid() == 0, "only root builds"), arguments: ["build", "up"])
    func aDamagedInitramfsIsMadeAnew(verb: String) async throws {
        let (world, boot) = try await ready()
        try await world.must("stop", "web")
        try flip(boot.initramfs)
        let output = try await world.must(verb, verb == "up" ? "web" : "core")
        if verb == "up" {
            let said = output.text + output.errorText
            #expect(said.contains("\(boot.initramfs) is damaged"), "\(said)")
        } else {
            try await world.must("start", "web")
        }
        try await world.expectState("web", "running")
        #expect(try Files.list("\(world.layout.root)/quarantine").count == 1)
    }

    /// Where nothing can be built, the VM is refused with the reason for that, and not started.
    @Test func whatCannotBeBuiltAgainIsNotStarted() async throws {
        let (world, boot) = try await ready()
        try await world.must("stop", "web")
        try flip(boot.kernel)
        world.onlyEnvironment = world.program([]).environment?.map {
            $0.hasPrefix("PATH=") ? "PATH=\(world.folder)" : $0
        }
        let said = try await world.mustFail("up", "web", code: 69)
        #expect(said.contains("\(boot.kernel) is damaged"), "\(said)")
        #expect(said.contains("mmdebstrap"), "\(said)")
        #expect(try !world.isRunning("web"))
        #expect(Files.exists(boot.kernel))
    }

    /// Layers without a hash tree are read at each start.
    @Test func aLayerThatNoGuestChecksIsReadBeforeTheStart() async throws {
        let (world, boot) = try await ready(checked: false)
        let listed = try await world.must("images").text
        #expect(listed.contains("at start"), "\(listed)")
        try await world.must("stop", "web")
        try flip(boot.layers[0])
        try expectRefusal(try await world.mustFail("start", "web", code: 1), boot.layers[0])
        try flip(boot.layers[0])
        try await world.must("start", "web")
    }

    /// The guest finds it, the supervisor says so, and the next start names the file.
    @Test func aLayerThatEndsItsGuestIsNamedByTheNextStart() async throws {
        let panic = "panic=0.3 because=dm-verity_device_corrupted"
        let (world, boot) = try await ready("boot=0.01 agent \(panic);boot=0.01 agent")
        try await world.until("it failed") { try await world.state("web") == "failed" }
        let reason = try #require(try await world.list()["web"]?["reason"]?.string)
        #expect(reason.hasPrefix("a layer of its image is damaged"), "\(reason)")
        #expect(try await world.list()["web"]?["restarts"]?.integer ?? 0 == 0)
        // Whoever looks finds the image whole: it was the host's memory, or it is mended by now.
        try flip(boot.layers[1])
        try expectRefusal(try await world.mustFail("start", "web", code: 1), boot.layers[1])
        try await world.expectState("web", "failed")
        try flip(boot.layers[1])
        try world.behave("boot=0.01 agent")
        try await world.must("start", "web")
        let listed = try await world.must("images").text
        #expect(listed.contains("at read"), "\(listed)")
    }

    /// A guest that reboots is started by its supervisor, which looks as well.
    @Test func aRebootDoesNotStartFromADamagedKernel() async throws {
        let (world, boot) = try await ready("boot=0.01 agent reboot=2;boot=0.01 agent")
        try flip(boot.kernel)
        try await world.until("it failed") { try await world.state("web") == "failed" }
        let reason = try #require(try await world.list()["web"]?["reason"]?.string)
        #expect(reason.hasPrefix("\(boot.kernel) is damaged: its SHA-256 is "), "\(reason)")
    }
}
