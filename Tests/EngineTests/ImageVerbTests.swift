// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Testing

@testable import Images

/// `image export` and `image import`, as typed.
@Suite(.serialized, .timeLimit(.minutes(20))) struct ImageVerbTests {
    @Test func anImageTravels() async throws {
        let world = try await World()
        let file = "\(world.folder)/core.tar.zst"
        let said = try await world.must("image", "export", "core", file)
        #expect(said.text.contains("core: written to \(file)"))
        let other = try await World(image: false)
        let json = try await other.must("image", "import", file, "--json")
        let row = try #require(try JSONValue(parsing: json.standardOutput).elements.first)
        #expect(row["name"] == "core" && row["usedBy"] == [])
        #expect(row["digest"]?.string?.hasPrefix("sha256:") == true)
        let listed = try JSONValue(parsing: try await other.must("images", "--json").standardOutput)
        #expect(listed.elements == [row])
        // It stands for the image that would be built otherwise.
        try other.declare("web: {}")
        let plan = try JSONValue(parsing: try await other.must("plan", "--json").standardOutput)
        #expect(!plan.text(pretty: false).contains("to be built"))
        #expect(try await other.list()["web"]?["imageState"] == .null)
        try await other.must("up")
        #expect(try await other.list()["web"]?["imageState"] == "current")
        try await other.must("plan", "--check")
    }

    @Test func whatIsThereIsNotReplacedUnasked() async throws {
        let world = try await World()
        let file = "\(world.folder)/mine"
        try Files.write(file, "mine")
        let text = try await world.mustFail("image", "export", "core", file, code: 64)
        #expect(text.contains("'image export core' would lose the file \(file) (4 B)"))
        #expect(try Files.readText(file) == "mine")
        try await world.mustFail("image", "export", "nope", file, "--yes", code: 66)
        #expect(try Files.readText(file) == "mine")
        let json = try await world.must("image", "export", "core", file, "--yes", "--json")
        let document = try JSONValue(parsing: json.standardOutput)
        #expect(document["name"] == "core" && document["file"] == .string(file))
        #expect(document["bytes"] == .integer(try Files.status(file).size))
        let folder = try await world.mustFail(
            "image", "export", "core", world.folder, "--yes", code: 1)
        #expect(folder.contains("is not a file"))
    }

    @Test func refusalsSayWhy() async throws {
        let world = try await World()
        let file = "\(world.folder)/core.tar.zst"
        let missing = try await world.mustFail("image", "import", file, code: 66)
        #expect(missing.contains("there is no file \(file)"))
        let unknown = try await world.mustFail("image", "export", "dev", file, code: 66)
        #expect(unknown.contains("no image 'dev' is here"))
        try await world.must("image", "export", "core", file)
        try await world.mustFail("image", "import", file, "--as", "../x", code: 64)
        try Files.write(file, try Files.read(file).dropLast(9))
        let other = try await World(image: false)
        let damaged = try await other.mustFail("image", "import", file, code: 1)
        #expect(damaged.contains("\(file) is damaged"))
        #expect(try Files.list("\(other.layout.root)/tmp") == ["lock"])
        #expect(!Files.exists("\(other.layout.root)/layers"))
    }

    /// The image of that name is of an earlier recipe, and must not be started for the new one.
    @Test(.enabled(if: geteuid() == 0, "only root builds images"))
    func aChangedInlineRecipeIsBuilt() async throws {
        let world = try await World()
        let store = ImageStore(root: world.layout.root)
        let core = try #require(try store.resolve("core"))
        try store.setName("vm.web", core.digest)
        try world.declare("web: { image: { from: core, packages: [jq] } }")
        try await world.usePath(of: [])
        let up = try await world.martlet("up")
        #expect(up.exit != .code(0))
        #expect("\(up.text)\(up.errorText)".contains("mmdebstrap"), "\(up.errorText)")
    }

    @Test(.enabled(if: geteuid() == 0, "only root mounts"))
    func noSpaceIsSaid() async throws {
        let world = try await World()
        let file = "\(world.folder)/core.tar.zst"
        try await world.must("image", "export", "core", file)
        let script = """
            mkdir small && mount -t tmpfs -o size=4k tmpfs small || exit 100
            ./martlet image export core small/core.tar.zst; first=$?
            test -z "$(ls -A small)" || exit 101
            mkdir root2 && mount -t tmpfs -o size=64k,mode=755 tmpfs root2 || exit 102
            head -c 60k /dev/urandom >root2/filler
            MARTLET_ROOT=$PWD/root2 ./martlet image import \(file); second=$?
            find root2 -name 'build.*' -o -name '*.erofs' | grep . && exit 103
            rm root2/filler
            mount -o remount,size=16m root2 || exit 104
            MARTLET_ROOT=$PWD/root2 ./martlet image import \(file) || exit 105
            exit $first$second
            """
        var program = Program("/usr/bin/unshare", ["--mount", "/bin/sh", "-c", script])
        program.environment = world.program([]).environment
        program.folder = world.folder
        let output = try await program.capture()
        #expect(output.exit == .code(11), "\(output.text)\(output.errorText)")
        let said = output.errorText.lowercased().ranges(of: "no space left on")
        #expect(said.count == 2, "\(output.errorText)")
    }

    @Test(.enabled(if: geteuid() == 0, "only root can become somebody else"))
    func startsImportedImagesWithoutRoot() async throws {
        let world = try await World()
        let file = "\(world.folder)/core.tar.zst"
        try await world.must("image", "export", "core", file)
        let other = try await World(image: false)
        let fleet = """
            fleet: test
            images: {tools: {from: core, packages: [jq]}}
            vms: {web: {}, site: {image: tools}}
            """
        try Files.write("\(other.folder)/fleet.yaml", fleet, mode: 0o644)
        try Files.setOwner(other.folder, user: 65534, group: 65534)
        func martlet(_ words: String...) async throws -> Output {
            var program = Program(
                "/usr/bin/setpriv",
                ["--reuid=65534", "--regid=65534", "--clear-groups", "./martlet"] + words)
            program.environment = other.program([]).environment
            program.folder = other.folder
            return try await program.capture()
        }
        let build = try await martlet("up", "web")
        #expect(build.exit == .code(77))
        #expect(build.errorText.contains("only root can build it"), "\(build.errorText)")
        #expect(build.errorText.contains("martlet image import"), "\(build.errorText)")
        #expect(try await martlet("image", "import", file).exit == .code(0))
        let up = try await martlet("up", "web")
        #expect(up.exit == .code(0), "\(up.text)\(up.errorText)")
        // Nobody can tell whether it fits the recipe, so it counts only where none can be built.
        #expect(try await martlet("image", "import", file, "--as", "tools").exit == .code(0))
        let all = try await martlet("up")
        #expect(all.exit == .code(0), "\(all.text)\(all.errorText)")
        #expect(try await martlet("plan", "--check").exit == .code(0))
        #expect(try await martlet("down").exit == .code(0))
    }
}
