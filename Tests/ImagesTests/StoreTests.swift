// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Testing

@testable import Images

/// A store in a folder of its own, with made-up parts.
struct World: ~Copyable {
    let root: String
    let store: ImageStore

    init() throws {
        var template = Array("/tmp/martlet-images.XXXXXX".utf8CString)
        root = String(cString: try #require(mkdtemp(&template)))
        store = ImageStore(root: root)
    }

    deinit { try? Files.remove(root) }

    /// Adds an image of these layers' contents.
    @discardableResult
    func add(
        _ name: String, layers: [String], packages: [String: String] = [:]
    ) async throws -> ImageManifest {
        func part(_ content: String, _ kind: ImageStore.Part) async throws -> (String, Int64) {
            let path = "\(root)/part"
            try Files.write(path, content)
            let taken = try await store.take(path, kind)
            return (taken.digest, taken.bytes)
        }
        var list: [ImageManifest.Layer] = []
        for content in layers {
            let (digest, bytes) = try await part(content, .erofs)
            list.append(.init(digest: digest, bytes: bytes))
        }
        let image = ImageManifest(
            name: name, layers: list, kernel: try await part("kernel", .vmlinux).0,
            initramfs: SHA256.hex("initramfs".utf8), commandLine: "quiet", packages: packages,
            createdAt: 1)
        try store.add(image, initramfs: Array("initramfs".utf8))
        return image
    }
}

@Suite struct StoreTests {
    @Test func resolvesNamesAndDigests() async throws {
        let world = try World()
        let image = try await world.add("core", layers: ["base", "core"], packages: ["a": "1"])
        #expect(try world.store.resolve("core") == image)
        #expect(try world.store.resolve(image.digest) == image)
        #expect(try world.store.resolve("sha256:" + image.digest) == image)
        #expect(try world.store.resolve("other") == nil)
        #expect(try world.store.resolve("../core") == nil)
        let boot = world.store.bootFiles(image)
        #expect(boot.commandLine == "quiet martlet.layers=2")
        #expect(try boot.layers.map { try Files.readText($0) } == ["base", "core"])
        #expect(try Files.readText(boot.kernel) == "kernel")
        #expect(try Files.readText(boot.initramfs) == "initramfs")
    }

    @Test func digestIsOfTheContentAlone() async throws {
        let world = try World()
        var image = try await world.add("a", layers: ["x"])
        let digest = image.digest
        image.createdAt = 2
        image.name = "b"
        #expect(image.digest == digest)
        image.commandLine = "debug"
        #expect(image.digest != digest)
    }

    @Test func comparesPackages() async throws {
        let world = try World()
        let old = try await world.add("a", layers: ["x"], packages: ["a": "1", "b": "1", "c": "1"])
        let new = try await world.add("b", layers: ["y"], packages: ["a": "1", "b": "2", "d": "1"])
        #expect(
            old.changes(to: new) == [
                .init(package: "b", from: "1", to: "2"), .init(package: "c", from: "1", to: nil),
                .init(package: "d", from: nil, to: "1"),
            ])
    }

    @Test func removesOnlyWhatIsNotUsed() async throws {
        let world = try World()
        let core = try await world.add("core", layers: ["base"])
        let tools = try await world.add("tools", layers: ["base", "tools"])
        await #expect(throws: ImageError.inUse(image: "tools", by: ["web"])) {
            try await world.store.remove("tools", inUse: [tools.digest: ["web"]])
        }
        try await world.store.remove("tools", inUse: [core.digest: ["db"]])
        #expect(try world.store.resolve("tools") == nil)
        #expect(try world.store.resolve("core") == core)
        #expect(!Files.exists(world.store.part(tools.layers[1].digest, .erofs)))
        await #expect(throws: ImageError.missing("tools")) {
            try await world.store.remove("tools", inUse: [:])
        }
    }

    @Test func prunesWhatNobodyNames() async throws {
        let world = try World()
        let old = try await world.add("core", layers: ["old"])
        let running = try await world.add("core", layers: ["running"])
        let new = try await world.add("core", layers: ["new"], packages: ["a": "1:2"])
        try Files.makeFolder(world.store.debs)
        try Files.write("\(world.store.debs)/a_1%3a2_all.deb", "kept")
        try Files.write("\(world.store.debs)/a_1%3a1_all.deb", "outdated")
        let work = try WorkFolder.make(world.root)
        #expect(try world.store.prune(inUse: [running.digest]) == 0, "a build is running")
        #expect(try world.store.resolve(old.digest) == old)
        try work.remove()
        _ = consume work
        #expect(try world.store.prune(inUse: [running.digest]) > 0)
        #expect(try world.store.resolve(old.digest) == nil)
        #expect(try world.store.resolve(running.digest) == running)
        #expect(try world.store.resolve("core") == new)
        #expect(try Files.list(world.store.debs) == ["a_1%3a2_all.deb"])
    }

    @Test func prunesImagesThatAKilledRunWasMakingOrTakingAway() async throws {
        let world = try World()
        let image = try await world.add("core", layers: ["base"])
        let images = "\(world.root)/images"
        let ended = try Program("/bin/true").spawn()
        _ = try await ended.wait()
        for name in [".new.\(image.digest).\(ended.pid)", ".gone.\(image.digest).\(ended.pid)"] {
            try Files.makeFolder("\(images)/\(name)")
        }
        try Files.makeFolder("\(images)/.new.\(image.digest).\(getpid())")
        #expect(try world.store.list().problems == [])
        _ = try world.store.prune(inUse: [])
        let left = [".new.\(image.digest).\(getpid())", image.digest, "names"]
        #expect(try Files.list(images) == left.sorted())
    }

    /// Whoever looks meanwhile sees the image or no image, and nothing to put into quarantine.
    @Test func removingIsNotTakenForDamage() async throws {
        let world = try World()
        let store = world.store
        let look = Task {
            var problems: [String] = []
            // On a thread of its own: this loop would keep one of the few that tasks share.
            while !Task.isCancelled { problems += try await blocking { try store.list().problems } }
            return problems
        }
        for number in 0..<50 {
            try await world.add("core", layers: ["base \(number)"])
            try await store.remove("core", inUse: [:])
        }
        look.cancel()
        #expect(try await look.value == [])
    }

    @Test func sweepsKilledBuilds() async throws {
        let world = try World()
        let killed = "\(world.root)/tmp/build.1.1"
        try Files.makeFolder(killed)
        try Files.write("\(killed)/lock", "")
        let work = try WorkFolder.make(world.root)
        try WorkFolder.sweep(world.root)
        #expect(!Files.exists(killed))
        #expect(Files.exists(work.path))
        #expect(try WorkFolder.active(world.root) == 1)
    }

    @Test func quarantinesWhatIsDamaged() async throws {
        let world = try World()
        let good = try await world.add("good", layers: ["good"])
        let bad = try await world.add("bad", layers: ["bad"])
        let cut = try await world.add("cut", layers: ["cut"])
        let newer = try await world.add("newer", layers: ["newer"])
        func manifest(_ image: ImageManifest) -> String {
            "\(world.store.folder(image.digest))/manifest.json"
        }
        try Files.write(manifest(bad), "{")
        try Files.write(world.store.part(cut.layers[0].digest, .erofs), "c")
        try Files.write(manifest(newer), "{\"format\": 99}")
        let (images, problems) = try world.store.list()
        #expect(images == [good])
        #expect(problems.count == 3)
        #expect(Files.exists("\(world.root)/quarantine/\(bad.digest).1/manifest.json"))
        #expect(Files.exists("\(world.root)/quarantine/\(cut.digest).1/manifest.json"))
        #expect(Files.exists(manifest(newer)), "a newer martlet will read it")
        #expect(problems.contains { $0.contains("made by a newer martlet") })
        #expect(try world.store.list().problems.count == 1)
    }
}
