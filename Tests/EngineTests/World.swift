// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Testing

@testable import Images

/// A ROOT and RUN of its own with a built image, and a hypervisor without a guest: everything else
/// is the real program, run as a process.
final class World {
    let folder: String
    let layout: Layout
    /// The environment of every run, where it is not the usual.
    var onlyEnvironment: [String]?
    /// Further variables of every run.
    var variables: [String] = []
    /// A program and arguments that come before `martlet`, such as those that enter a namespace.
    var wrapper: [String] = []

    /// The folder of this test's executable holds the programs that were built with it.
    static let programs: String = {
        let path = realpath("/proc/self/exe", nil)
        defer { free(path) }
        return path.map { Files.parent(String(cString: $0)) } ?? ""
    }()

    /// `behaviour` is FAKE_VMM's; `below` is a path between the temporary folder and ROOT, where
    /// `prepare` may put something; `inMemory` puts RUN where it is on a host.
    init(
        _ behaviour: String = "boot=0.01 agent", below: String = "", image: Bool = true,
        inMemory: Bool = false,
        prepare: (String) async throws -> Void = { _ in }
    ) async throws {
        var template = Array("/tmp/martlet-world-XXXXXX".utf8CString)
        folder = try #require(mkdtemp(&template).map { String(cString: $0) })
        let run = inMemory ? "/dev/shm/\(Files.name(folder))" : "\(folder)\(below)/run"
        layout = Layout(root: "\(folder)\(below)/root", run: run)
        // Each VM runs as a user of its own, who must get here.
        try Files.setMode(folder, 0o755)
        // The checkout may lie where they cannot.
        for tool in ["SuperviseTool", "martlet"] {
            let copy = "cp -l \(World.programs)/\(tool) . 2>&- || cp \(World.programs)/\(tool) ."
            var program = Program("/bin/sh", ["-c", copy])
            program.folder = folder
            try #require(await program.capture().exit.isSuccess)
        }
        try behave(behaviour)
        try serveShares()
        try await prepare(folder)
        if image { try await makeImage() }
    }

    deinit {
        for process in processes { kill(process, SIGKILL) }
        removeControlGroups()
        try? Files.remove(folder)
        try? Files.remove(layout.run)
    }

    /// Decides how hypervisors behave that are started from now on.
    func behave(_ behaviour: String) throws {
        let script =
            "#!/bin/sh\nFAKE_VMM='\(behaviour)' exec \(folder)/SuperviseTool \"$@\"\n"
        try Files.write("\(folder)/hypervisor", script, mode: 0o755)
    }

    /// Decides how hypervisors behave that are started from now on with an image whose topmost layer
    /// has this digest; `first` is a shell command that they run before, such as one that writes
    /// to the disk.
    func behave(_ behaviour: String, with image: String, first: String = ":") throws {
        let store = ImageStore(root: layout.root)
        let layer = try #require(try store.resolve(image)?.layers.last?.digest)
        let usual = try Files.readText("\(folder)/hypervisor")
        let line =
            "case \"$*\" in *\(layer)*) \(first); FAKE_VMM='\(behaviour)' "
            + "exec \(folder)/SuperviseTool \"$@\";; esac\n"
        let rest = usual.replacing("#!/bin/sh\n", with: "")
        try Files.write("\(folder)/hypervisor", "#!/bin/sh\n" + line + rest, mode: 0o755)
    }

    /// Decides what serves shares: the first line of its version, and the command that serves.
    func serveShares(
        version: String = "virtiofsd version 7.2.22", command: String? = nil
    ) throws {
        let serve = command ?? "exec \(folder)/SuperviseTool virtiofsd \"$@\""
        let script =
            "#!/bin/sh\ncase $1 in --version) echo '\(version)'; exit;; esac\n\(serve)\n"
        try Files.write("\(folder)/virtiofsd", script, mode: 0o755)
    }

    /// Puts the layers of an image into the store, as if they had been built, and returns its digest.
    ///
    /// `images` are the fleet file's own, in YAML's flow form; with `checked`, the guest is said to
    /// check the layers as it reads them.
    @discardableResult
    func makeImage(
        _ name: String = "core", _ images: String = "", packages: [String: String] = [:],
        checked: Bool = false
    ) async throws -> String {
        let loaded = FleetFile.parse("fleet: test\nimages: {\(images)}\nvms: {}\n")
        let recipes = try #require(loaded.fleet, "\(loaded.diagnostics)").images
        let store = ImageStore(root: layout.root)
        for path in ["\(layout.root)/layers", "\(layout.root)/cache/recipes"] {
            try Files.makeFolder(path)
        }
        func take(_ text: String, _ kind: ImageStore.Part) async throws -> (String, Int64) {
            let path = "\(layout.root)/part"
            try Files.write(path, text)
            return try await store.take(path, kind)
        }
        let boot = LayerRecord.Boot(
            kernel: try await take("kernel", .vmlinux).0,
            modules: try await take("modules", .modules).0, package: "linux", version: "1")
        var below: String?
        for layer in try LayerRecipe.chain(for: name, recipes: recipes) {
            var text = "\(layer.image) \(layer.packages)"
            if checked { text += String(repeating: ".", count: 4096) }
            let (digest, bytes) = try await take(text, .erofs)
            let tree = ImageManifest.Layer.Check(rootHash: digest, contentBytes: 4096)
            let record = LayerRecord(
                layer: .init(digest: digest, bytes: bytes, check: checked ? tree : nil),
                packages: packages.merging(["systemd": "1"]) { given, _ in given },
                boot: below == nil ? boot : nil)
            let key = layer.key(above: below, mirror: nil)
            try Files.write(store.recipeFile(key), record.json.text(pretty: true))
            below = digest
        }
        let built = try await Builder(store: store, mirror: nil).ensure([name], recipes: recipes)
        return try #require(built[name]).digest
    }

    /// Those of VMs that a test left running: nobody else looks for them.
    private func removeControlGroups() {
        let owner = Derived.rootID(layout.root) + "-"
        for kind in ["cpu", "memory", "pids", "blkio", "unified"] {
            let folder = "/sys/fs/cgroup/\(kind)/martlet"
            for name in (try? Files.list(folder)) ?? [] where name.hasPrefix(owner) {
                for _ in 0..<50 where rmdir("\(folder)/\(name)") != 0 && errno == EBUSY {
                    usleep(10_000)
                }
            }
        }
    }

    // MARK: Running martlet

    /// A run of `martlet` in this world.
    func program(_ words: [String], killAt: Int? = nil) -> Program {
        let line = wrapper + ["\(folder)/martlet"] + words
        var program = Program(line[0], Array(line.dropFirst()))
        program.environment =
            onlyEnvironment
            ?? [
                "PATH=/usr/bin:/bin", "HOME=\(folder)", "LC_ALL=C.UTF-8",
                "MARTLET_ROOT=\(layout.root)", "MARTLET_RUN=\(layout.run)",
                "MARTLET_QEMU=\(folder)/hypervisor", "MARTLET_VIRTIOFSD=\(folder)/virtiofsd",
            ] + variables + (killAt.map { ["MARTLET_KILL_AT=\($0)"] } ?? [])
        program.folder = folder
        return program
    }

    func martlet(_ words: String..., killAt: Int? = nil) async throws -> Output {
        try await program(words, killAt: killAt).capture()
    }

    /// Runs what must succeed.
    @discardableResult
    func must(
        _ words: String..., input: String = "", location: SourceLocation = #_sourceLocation
    ) async throws -> Output {
        let output = try await program(words).capture(input: Array(input.utf8))
        #expect(
            output.exit == .code(0), "\(words): \(output.text)\(output.errorText)",
            sourceLocation: location)
        return output
    }

    /// Runs what must fail with this code, and returns what it said.
    @discardableResult
    func mustFail(
        _ words: String..., code: Int32, location: SourceLocation = #_sourceLocation
    ) async throws -> String {
        let output = try await program(words).capture()
        let text = output.text + output.errorText
        #expect(output.exit == .code(code), "\(words): \(text)", sourceLocation: location)
        return text
    }

    /// Writes the fleet file: VMs in YAML's flow form.
    func declare(
        _ vms: String, images: String = "", fleet: String = "test", file: String = "fleet.yaml"
    ) throws {
        let images = images.isEmpty ? "" : "images: {\(images)}\n"
        try Files.write("\(folder)/\(file)", "fleet: \(fleet)\n\(images)vms: {\(vms)}\n")
    }

    /// What `list --json` says of each VM.
    func list(_ words: String...) async throws -> [String: JSONValue] {
        let output = try await program(["list", "--json"] + words).capture()
        try #require(output.exit == .code(0), "\(output.text)\(output.errorText)")
        return try JSONValue(parsing: output.standardOutput).elements.reduce(into: [:]) {
            $0[$1["name"]?.string ?? ""] = $1
        }
    }

    func state(_ name: String) async throws -> String? {
        try await list()[name]?["state"]?.string
    }

    func expectState(
        _ name: String, _ expected: String, location: SourceLocation = #_sourceLocation
    ) async throws {
        let state = try await state(name)
        #expect(state == expected, sourceLocation: location)
    }

    // MARK: Looking for ourselves

    /// The processes that belong to this world: supervisors by their environment, hypervisors by
    /// the files in their arguments.
    var processes: [Int32] { Self.processes(of: layout) }

    static func processes(of layout: Layout) -> [Int32] {
        ((try? Files.list("/proc")) ?? []).compactMap { Int32($0) }.filter { pid in
            guard let words = try? Files.readText("/proc/\(pid)/cmdline"), !words.isEmpty else {
                return false
            }
            if words.contains("\(layout.root)/") { return true }
            let variables = (try? Files.readText("/proc/\(pid)/environ")) ?? ""
            return variables.contains("MARTLET_ROOT=\(layout.root)\0")
        }
    }

    func isRunning(_ name: String) throws -> Bool {
        try FileLock.isHeld(layout.vm(name).lock)
    }

    /// Files that a killed run left half done.
    func unfinished() throws -> [String] {
        func walk(_ folder: String) throws -> [String] {
            try Files.list(folder).flatMap { name in
                let path = "\(folder)/\(name)"
                return (name.contains(".new") ? [path] : [])
                    + (Files.isFolder(path, followLinks: false) ? try walk(path) : [])
            }
        }
        // What a build left stays until images are pruned: another one may be writing there.
        let images = layout.root + "/images/"
        return try walk(layout.root).filter { !$0.hasPrefix(images) } + walk(layout.run)
    }

    /// Checks that `list` says what locks and processes say.
    func expectTruth(
        _ hint: String = "", location: SourceLocation = #_sourceLocation
    ) async throws {
        let listed = try await list()
        var isAnyLive = false
        for name in try Files.list(layout.vms) {
            guard let vm = listed[name] else { continue }
            let state = vm["state"]?.string ?? ""
            let isLive = ["starting", "running", "stopping", "paused"].contains(state)
            isAnyLive = isAnyLive || isLive
            let isHeld = try isRunning(name)
            #expect(isLive == isHeld, "\(hint) \(vm)", sourceLocation: location)
            if let pid = vm["pid"]?.integer {
                #expect(processes.contains(Int32(pid)), "\(hint) \(vm)", sourceLocation: location)
            } else {
                #expect(state != "running", "\(hint) \(vm)", sourceLocation: location)
            }
        }
        #expect(processes.isEmpty == !isAnyLive, "\(hint)", sourceLocation: location)
    }

    /// Checks that there are two processes for each VM that runs, a third where it has shares, no half-done files, and no
    /// sockets or credentials of those that do not run.
    func expectNothingLeftOver(
        _ hint: String = "", location: SourceLocation = #_sourceLocation
    ) throws {
        var running = 0
        for name in try Files.list(layout.vms) {
            let isHeld = try isRunning(name)
            let hasShares = Files.exists(layout.vm(name).sharesRecord)
            running += isHeld ? hasShares ? 3 : 2 : 0
            let isThere = Files.exists(layout.vm(name).run)
            #expect(isThere == isHeld, "\(hint): \(name)", sourceLocation: location)
        }
        #expect(processes.count == running, "\(hint)", sourceLocation: location)
        let files = try unfinished()
        #expect(files == [], "\(hint)", sourceLocation: location)
    }

    /// Looks again and again until it is so.
    func until(
        _ what: String, location: SourceLocation = #_sourceLocation,
        _ isSo: () async throws -> Bool
    ) async throws {
        let end = Clock.monotonic() + 60_000_000_000
        while Clock.monotonic() < end {
            if try await isSo() { return }
            try await Task.sleep(for: .milliseconds(20))
        }
        Issue.record("in vain: \(what)", sourceLocation: location)
    }

    // MARK: Data

    /// Writes a pattern into a data volume, where no file system keeps anything.
    func mark(_ name: String) async throws {
        #expect(try await qemuIO(name, "write -P 0x5a 1M 64k").isSuccess)
    }

    /// A shell command that writes another pattern there.
    func unmarking(_ name: String) -> String {
        "/usr/bin/qemu-io -f qcow2 -c \"write -P 0x66 1M 64k\" \(layout.vm(name).dataVolume) "
            + ">/dev/null"
    }

    func isMarked(_ name: String) async throws -> Bool {
        try await qemuIO(name, "read -P 0x5a 1M 64k").isSuccess
    }

    private func qemuIO(_ name: String, _ command: String) async throws -> Exit {
        let disk = layout.vm(name).dataVolume
        let output = try await Program(
            "/usr/bin/qemu-io", ["-f", "qcow2", "-c", command, disk]
        ).capture()
        // Some versions report a pattern that differs in words alone.
        return output.text.contains("Pattern verification failed") ? .code(1) : output.exit
    }
}
