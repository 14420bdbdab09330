// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Synchronization
import Testing

@testable import Images

/// Builds real images; the store is kept between runs, so that only the first one takes long.
@Suite(.enabled(if: getuid() == 0, "building images needs root"), .serialized)
struct RealBuildTests {
    private static let store = ImageStore(root: imageCache)
    private let builder = Builder(store: Self.store)

    /// What a build reported, by image.
    private final class Steps: Sendable {
        let all = Mutex<[BuildProgress]>([])
        var images: Set<String> { Set(all.withLock { $0 }.map(\.image)) }
        func add(_ progress: BuildProgress) { all.withLock { $0.append(progress) } }
    }

    private func tools(_ run: String = "true", package: String = "tree") -> ImageRecipe {
        var recipe = ImageRecipe(name: "test-tools")
        recipe.from = "core"
        recipe.packages = [package]
        recipe.files = ["/etc/motd": ImageFile(text: "Welcome\n")]
        recipe.run = [run]
        return recipe
    }

    @Test(.timeLimit(.minutes(20))) func coreIsComplete() async throws {
        let image = try #require(try await builder.ensure(["core"], recipes: [])["core"])
        #expect(image.layers.count == 2)
        #expect(image.packages["openssh-server"] != nil)
        #expect(image.packages.keys.contains { $0.hasPrefix("linux-image-6.1") })
        let files = Self.store.bootFiles(image)
        for file in files.layers + [files.kernel, files.initramfs] { #expect(Files.exists(file)) }
        #expect(files.commandLine.hasSuffix("martlet.layers=2"))
        #expect(try builder.current("core", recipes: [])?.digest == image.digest)
        #expect(image.isCheckedAtRead)
        #expect(try await Self.store.damage(of: image, withLayers: true) == [])
        let initramfs = try Files.read(files.initramfs)
        #expect(String(decoding: initramfs, as: UTF8.self).contains(try #require(image.verityList)))
    }

    /// A changed package builds one layer; the same recipe gives the same bytes again; two builds
    /// at once build it once.
    @Test(.timeLimit(.minutes(20))) func onlyTheChangedLayerIsBuilt() async throws {
        let core = try #require(try await builder.ensure(["core"], recipes: [])["core"])
        // A script that no earlier run had, so that the layer is not there yet.
        let recipe = tools("test \(Clock.monotonic()) -gt 0; date +%s%N >/var/log/noise")
        #expect(try builder.current("test-tools", recipes: [recipe]) == nil)
        let steps = Steps()
        async let first = builder.ensure(["test-tools"], recipes: [recipe], progress: steps.add)
        async let second = builder.ensure(["test-tools"], recipes: [recipe], progress: steps.add)
        let results = try await (first["test-tools"], second["test-tools"])
        let image = try #require(results.0)
        #expect(results.1?.digest == image.digest)
        #expect(steps.images == ["test-tools"])
        let packed = steps.all.withLock { $0 }.filter { $0.step == "packing the layer" }
        #expect(packed.count == 1)
        #expect(image.layers.prefix(2) == core.layers[...])
        #expect(core.changes(to: image).map(\.package).contains("tree"))

        let chain = try LayerRecipe.chain(for: "test-tools", recipes: [recipe])
        let key = try #require(chain.last).key(above: core.layers[1].digest, mirror: builder.mirror)
        try Files.remove(Self.store.recipeFile(key))
        let again = try await builder.ensure(["test-tools"], recipes: [recipe], progress: steps.add)
        #expect(again["test-tools"]?.digest == image.digest)
        #expect(
            steps.all.withLock { $0 }.filter { $0.step == "packing the layer" }.count == 2)

        // A flipped byte is found when all is read, and the layer is built once more.
        let layer = try #require(Self.store.bootFiles(image).layers.last)
        let file = try Descriptor.open(layer, O_RDWR)
        try check("pwrite") { pwrite(file.raw, [0xa5, 0x5a], 2, 2000) }
        let quarantined = "\(Self.store.root)/quarantine/\(Files.name(layer)).1"
        try Files.remove(quarantined)
        let mended = try await builder.ensure(
            ["test-tools"], recipes: [recipe], verify: true, progress: steps.add)
        #expect(mended["test-tools"]?.digest == image.digest)
        #expect(try await Self.store.damage(of: image, withLayers: true) == [])
        #expect(steps.all.withLock { $0 }.contains { $0.step.hasPrefix("\(layer) is damaged") })
        #expect(Files.exists(quarantined))
        try Files.remove(quarantined)

        try await Self.store.remove("test-tools", inUse: [core.digest: ["test"]])
        #expect(try WorkFolder.active(Self.store.root) == 0)
    }

    /// An archive with a top folder, a bare program and a Debian package come into a layer, and
    /// once more from the cache alone.
    @Test(.timeLimit(.minutes(20))) func sourcesComeIn() async throws {
        let made = try MadeUpSources()
        let server = try WebServer(made.files)
        let noise = "\(Clock.monotonic())"
        func recipe(_ address: (String) -> String) throws -> ImageRecipe {
            let text = """
                images:
                  test-sources:
                    sources:
                      - { archive: '\(address("app.tar.xz"))', sha256: \(made.pin("app.tar.xz")),
                          to: /opt/app, strip: 1, remove: [App.Update] }
                      - { binary: '\(address("forge"))', sha256: \(made.pin("forge")), to: /usr/local/bin/forge }
                      - { deb: '\(address("greeter.deb"))', sha256: \(made.pin("greeter.deb")) }
                    run: ["test -x /opt/app/App; /usr/local/bin/forge \(noise)"]
                vms: {}
                """
            let file = FleetFile.parse(text)
            let fleet = try #require(file.fleet, "\(file.diagnostics)")
            return try #require(fleet.images.first)
        }
        let first = try recipe { server.url($0) }
        let steps = Steps()
        let built = try await builder.ensure(
            ["test-sources"], recipes: [first], progress: steps.add)
        let image = try #require(built["test-sources"])
        #expect(image.packages["greeter"] == "1.0")
        let layer = try #require(Self.store.bootFiles(image).layers.last)
        let script =
            "mount -t erofs -o loop,ro \(layer) /mnt && cd /mnt && "
            + "stat -c '%A %u %n' opt/app/* usr/local/bin/forge usr/bin/greet"
        let look = try await Program(
            "/usr/bin/unshare", ["--mount", "/bin/sh", "-euc", script]
        ).capture()
        #expect(
            look.text.split(separator: "\n") == [
                "-rwxr-xr-x 0 opt/app/App", "-rwxr-xr-x 0 usr/local/bin/forge",
                "-rwxr-xr-x 0 usr/bin/greet",
            ], "\(look.errorText)")
        #expect(steps.all.withLock { $0 }.contains { $0.step == "fetching app.tar.xz" })

        // Neither a server nor the record: the cache is enough, and gives the same bytes.
        server.stop()
        let asked = server.requests.count
        let second = try recipe { "http://127.0.0.1:1/mirror/\($0)" }
        #expect(try builder.current("test-sources", recipes: [second])?.digest == image.digest)
        let chain = try LayerRecipe.chain(for: "test-sources", recipes: [second])
        let last = try #require(chain.last)
        let key = last.key(above: image.layers[1].digest, mirror: builder.mirror)
        try Files.remove(Self.store.recipeFile(key))
        let again = try await builder.ensure(["test-sources"], recipes: [second])
        #expect(again["test-sources"]?.digest == image.digest)
        #expect(server.requests.count == asked)

        let core = try #require(try Self.store.resolve("core"))
        try await Self.store.remove("test-sources", inUse: [core.digest: ["test"]])
        for name in made.files.keys {
            #expect(!Files.exists("\(Self.store.sources)/\(made.pin(name))"), "pruned: \(name)")
        }
    }

    @Test(
        .enabled(if: environment("MARTLET_TESTS") == "full", "needs python3 in an image"),
        .timeLimit(.minutes(20)))
    func pipFillsAnEnvironment() async throws {
        let made = try MadeUpSources()
        let wheel = "greeter-1.0-py3-none-any.whl"
        let server = try WebServer([
            "simple/greeter/": Array("<a href=\"../../\(wheel)\">\(wheel)</a>".utf8),
            wheel: try #require(made.files[wheel]),
        ])
        setenv("PIP_INDEX_URL", server.url("simple"), 1)
        defer { unsetenv("PIP_INDEX_URL") }
        func recipe(_ pin: String) -> ImageRecipe {
            var source = ImageSource()
            source.pip = ["greeter==1.0 --hash=sha256:\(pin)"]
            source.venv = "/opt/greeter"
            var recipe = ImageRecipe(name: "test-pip")
            recipe.sources = [source]
            recipe.run = [
                "test \"$(/opt/greeter/bin/python -c 'import greeter; print(greeter.word)')\" = hello",
                "test ! -e /opt/greeter/bin/pip; : \(Clock.monotonic())",
            ]
            return recipe
        }
        let wrong = String(repeating: "1f", count: 32)
        let error = await #expect(throws: ImageError.self) {
            try await builder.ensure(["test-pip"], recipes: [recipe(wrong)])
        }
        let text = "\(try #require(error))"
        #expect(text.contains("filling /opt/greeter by pip failed"), "\(text)")
        #expect(text.contains(wrong) && text.contains(made.pin(wheel)), "\(text)")
        let good = recipe(made.pin(wheel))
        let built = try await builder.ensure(["test-pip"], recipes: [good])
        let image = try #require(built["test-pip"])
        server.stop()
        let chain = try LayerRecipe.chain(for: "test-pip", recipes: [good])
        let last = try #require(chain.last)
        let key = last.key(above: image.layers[1].digest, mirror: builder.mirror)
        try Files.remove(Self.store.recipeFile(key))
        let again = try await builder.ensure(["test-pip"], recipes: [good])
        #expect(again["test-pip"]?.digest == image.digest)
        let core = try #require(try Self.store.resolve("core"))
        try await Self.store.remove("test-pip", inUse: [core.digest: ["test"]])
    }

    @Test(.timeLimit(.minutes(20))) func namesWhatFails() async throws {
        await #expect(throws: ImageError.unknownPackage("no-such-thing", image: "test-tools")) {
            try await builder.ensure(["test-tools"], recipes: [tools(package: "no-such-thing")])
        }
        // Two at once: each says what is wrong with it, and nothing about the other.
        try await withThrowingTaskGroup(of: Void.self) { group in
            for word in ["broken", "rotten"] {
                group.addTask {
                    let error = await #expect(throws: ImageError.self) {
                        try await builder.ensure(
                            ["test-tools"], recipes: [tools("echo \(word); exit 3")])
                    }
                    let text = try #require(error).description
                    #expect(
                        text.hasPrefix("image 'test-tools': running script 1 of 1 failed: ")
                            && text.hasSuffix(word), "\(text)")
                }
            }
            try await group.waitForAll()
        }
        #expect(try Files.list("\(Self.store.root)/tmp") == ["lock"], "nothing is left over")
    }
}
