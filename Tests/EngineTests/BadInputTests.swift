// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Testing

@Suite(.serialized, .timeLimit(.minutes(20))) struct BadInputTests {
    static let mistakes: [(yaml: String, place: String, text: String)] = [
        ("vms: {web: {", "fleet.yaml:2:1", "the file ends too early"),
        ("vms: {web: {memroy: 1GiB}}", "fleet.yaml:1:13", "did you mean 'memory'?"),
        (
            "vms: {a: {ports: ['2201:22']}, b: {ports: ['2201:22']}}", "fleet.yaml:1:",
            "2201"
        ),
        (
            """
            vms:
              a: {interfaces: [{network: user, mac: '02:00:00:00:00:01'}]}
              b: {interfaces: [{network: user, mac: '02:00:00:00:00:01'}]}
            """, "fleet.yaml:3:", "02:00:00:00:00:01"
        ),
        ("vms: {web: {image: cor}}", "fleet.yaml:1:20", "core"),
    ]

    @Test(arguments: mistakes) func aMistakeInTheFileStopsEverythingAndChangesNothing(
        _ mistake: (yaml: String, place: String, text: String)
    ) async throws {
        let world = try await World(image: false)
        try Files.write("\(world.folder)/fleet.yaml", mistake.yaml)
        for verb in ["validate", "plan", "up", "down"] {
            let text = try await world.mustFail(verb, code: 65)
            #expect(text.contains(mistake.place) && text.contains(mistake.text), "\(text)")
        }
        let json = try await world.martlet("up", "--json")
        #expect(json.exit == .code(65) && json.errorText == "")
        let error = try JSONValue(parsing: json.standardOutput)["error"]
        #expect(error?["code"] == 65)
        let messages = error?["diagnostics"]?.elements.compactMap { $0["message"]?.string } ?? []
        #expect(messages.contains { $0.contains(mistake.text) })
        #expect(!Files.exists(world.layout.root))
    }

    @Test(arguments: [
        ([], "openssh-client"), (["ssh-keygen"], "qemu-utils"),
        (["ssh-keygen", "qemu-img"], "qemu-system-x86"),
    ]) func aMissingToolNamesItsPackage(_ tools: [String], _ package: String) async throws {
        let world = try await World()
        try world.declare("web: {}")
        try await world.usePath(of: tools)
        let text = try await world.mustFail("up", code: 69)
        #expect(text.contains("apt-get install \(package)\n"), "\(text)")
        #expect(try world.unfinished() == [])
        world.onlyEnvironment = nil
        try await world.must("up")
    }

    @Test(.enabled(if: geteuid() == 0, "only root builds images"))
    func aBuildNeedsItsTools() async throws {
        let world = try await World(image: false)
        try world.declare("web: {}")
        try await world.usePath(of: [])
        let json = try await world.martlet("build", "core", "--json")
        #expect(json.exit == .code(69))
        let error = try JSONValue(parsing: json.standardOutput)["error"]
        #expect(error?["hint"] == "Install it: apt-get install mmdebstrap")
    }

    @Test func anImageThatIsGoneIsNamed() async throws {
        let world = try await World()
        try world.declare("web: {}")
        try await world.must("up")
        try await world.must("stop")
        try await world.mark("web")
        try Files.remove("\(world.layout.root)/images")
        let text = try await world.mustFail("start", "web", code: 66)
        #expect(text.contains("the image") && text.contains("'martlet up web' builds it again"))
        // Its layers are there, so nothing is built or downloaded.
        try await world.must("up")
        #expect(try await world.isMarked("web"))
    }

    /// From a disk that holds no record to one that holds no data volume.
    @Test(.enabled(if: geteuid() == 0, "only root mounts"), arguments: [8, 24, 48, 128])
    func noSpaceIsSaidAndLosesNothing(_ kibibytes: Int) async throws {
        let world = try await World()
        try world.declare("web: {}")
        try Files.makeFolder(world.layout.vms)
        let script = """
            mount -t tmpfs -o size=\(kibibytes)k,mode=755 tmpfs \(world.layout.vms) || exit 100
            ./martlet up; first=$?
            find . -name '*.new*' | grep . && exit 101
            ./martlet list --json | grep -q '"state": "\\(absent\\|stopped\\)"' || exit 102
            mount -o remount,size=64m \(world.layout.vms) || exit 103
            ./martlet up || exit 104
            ./martlet plan --check && ./martlet down || exit 105
            exit $first
            """
        var program = Program(
            "/usr/bin/unshare", ["--mount", "/bin/sh", "-c", script])
        program.environment = world.program([]).environment
        program.folder = world.folder
        let output = try await program.capture()
        #expect(output.exit == .code(1), "\(output.text)\(output.errorText)")
        #expect(output.errorText.lowercased().contains("no space left on"), "\(output.errorText)")
    }

    @Test(.enabled(if: geteuid() == 0, "only root can become somebody else"))
    func anotherUsersRootIsRefused() async throws {
        let world = try await World()
        try world.declare("web: {}")
        try Files.setMode("\(world.folder)/fleet.yaml", 0o644)
        try await world.must("up")
        for verb in ["list", "plan", "up", "stop"] {
            var program = Program(
                "/usr/bin/setpriv",
                ["--reuid=65534", "--regid=65534", "--clear-groups", "./martlet", verb])
            program.environment = world.program([]).environment
            program.folder = world.folder
            let output = try await program.capture()
            #expect(output.exit == .code(77), "\(verb): \(output.text)\(output.errorText)")
            #expect(output.errorText.contains("belongs to another user (0)"))
        }
        #expect(try world.isRunning("web"))
    }

    @Test(.enabled(if: geteuid() == 0, "without root, VMs have no user of their own"))
    func aFolderThatTheVMCannotPassIsNamed() async throws {
        let world = try await World(below: "/closed")
        try world.declare("web: {}")
        let closed = "\(world.folder)/closed"
        try Files.setMode(closed, 0o700)
        let text = try await world.mustFail("up", code: 78)
        #expect(text.contains("cannot pass the folder \(closed): 'chmod o+x \(closed)'"))
        try Files.setMode(closed, 0o711)
        try await world.must("up")
    }

    @Test func aRelativeRootIsRefused() async throws {
        let world = try await World(image: false)
        try world.declare("web: {}")
        world.onlyEnvironment = ["MARTLET_ROOT=root"]
        let text = try await world.mustFail("list", code: 64)
        #expect(text.contains("MARTLET_ROOT must be an absolute path, and is 'root'"))
    }

    @Test func pathsMayBeLongerThanASocketsAddress() async throws {
        let world = try await World(below: "/" + String(repeating: "long", count: 40))
        try world.declare("web: {}")
        try await world.must("up")
        try await world.expectTruth()
        #expect(try await world.must("stop").text.contains("shut down by its agent"))
        #expect(try await world.must("logs", "web", "--boot").text.contains("booted"))
    }
}

extension World {
    /// Lets `martlet` find only these programs, and those of /usr/sbin; QEMU must be looked for.
    func usePath(of tools: [String]) async throws {
        try Files.makeFolder("\(folder)/tools")
        for tool in tools {
            try Files.link(try #require(findProgram(tool)), at: "\(folder)/tools/\(tool)")
        }
        var words = try #require(program([]).environment)
        words.removeAll { $0.hasPrefix("PATH=") || $0.hasPrefix("MARTLET_QEMU=") }
        onlyEnvironment = words + ["PATH=\(folder)/tools"]
    }
}
