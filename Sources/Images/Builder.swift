// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Glibc
import Linux

/// What a build does right now.
package struct BuildProgress: Sendable, Equatable {
    package let image: String
    /// Such as `installing 4 packages`.
    package let step: String
}

/// Builds images into a store, layer by layer, and only those that are not there yet.
package struct Builder: Sendable {
    package let store: ImageStore
    /// A mirror's address instead of mmdebstrap's own choice.
    package let mirror: String?

    package init(store: ImageStore, mirror: String? = environment("MARTLET_APT_SOURCE")) {
        self.store = store
        self.mirror = mirror
    }

    /// The kernel's command line of every image.
    ///
    /// `lsm=`: without `bpf`, for which systemd loads a program at every start (0.9 s without KVM),
    /// and without `apparmor`, for which no image brings profiles. `panic=-1`: with QEMU's
    /// `-no-reboot` a kernel that panics is a VM that ends, and not one that hangs. The kernel need
    /// not test its ciphers at every start. `rcu_expedited` is undone when the start is over.
    package static let commandLine =
        "console=ttyS0 quiet loglevel=3 panic=-1 net.ifnames=0 lsm=landlock,lockdown,yama "
        + "systemd.show_status=0 cryptomgr.notests rcupdate.rcu_expedited=1"

    /// The image of that name as its recipes want it, when all its layers are there; else nil.
    package func current(
        _ name: String, recipes: [ImageRecipe]
    ) throws -> ImageManifest? {
        var records: [LayerRecord] = []
        for layer in try LayerRecipe.chain(for: name, recipes: recipes) {
            let key = layer.key(above: records.last?.layer.digest, mirror: mirror)
            guard let record = cached(key) else { return nil }
            records.append(record)
        }
        guard let image = try assemble(name, records)?.image else { return nil }
        return try store.resolve(image.digest)
    }

    /// Builds what is missing of these images and returns them by name.
    ///
    /// With `refresh`, every layer is built anew from the newest packages; one that comes out the
    /// same keeps its digest, and then nothing changes for its VMs. With `verify`, all that is there
    /// is read, and what is damaged counts as missing.
    package func ensure(
        _ names: [String], recipes: [ImageRecipe], refresh: Bool = false, verify: Bool = false,
        progress: @escaping @Sendable (BuildProgress) -> Void = { _ in }
    ) async throws -> [String: ImageManifest] {
        var result: [String: ImageManifest] = [:]
        var fresh: Set<String> = []
        for name in names {
            var records: [LayerRecord] = []
            for layer in try LayerRecipe.chain(for: name, recipes: recipes) {
                let parents = records.map(\.layer)
                let key = layer.key(above: parents.last?.digest, mirror: mirror)
                // One run refreshes a layer once, however many images stand on it.
                let reuse = !refresh || !fresh.insert(key).inserted
                records.append(
                    try await ensure(
                        layer, key, on: parents, for: name, reuse: reuse, verify: verify,
                        progress: progress))
            }
            guard let (image, initramfs) = try assemble(name, records) else {
                throw ImageError.unknownImage(name)
            }
            try store.add(image, initramfs: initramfs, verify: verify)
            result[name] = try store.resolve(image.digest)
        }
        return result
    }

    private func cached(_ key: String) -> LayerRecord? {
        guard let record = LayerRecord(path: store.recipeFile(key)),
            let status = try? Files.status(store.part(record.layer.digest, .erofs)),
            status.size == record.layer.bytes
        else { return nil }
        if let boot = record.boot {
            guard Files.exists(store.part(boot.kernel, .vmlinux)),
                Files.exists(store.part(boot.modules, .modules))
            else { return nil }
        }
        return record
    }

    /// What is damaged of a layer's parts: of the modules, which go into an initramfs whose digest
    /// would fit to them, or of all.
    private func damage(of record: LayerRecord, all: Bool) async throws -> [ImageDamage] {
        var parts: [(String, String)] = []
        if all { parts = [(store.part(record.layer.digest, .erofs), record.layer.digest)] }
        if let boot = record.boot {
            parts.append((store.part(boot.modules, .modules), boot.modules))
            if all { parts.append((store.part(boot.kernel, .vmlinux), boot.kernel)) }
        }
        let chosen = parts
        return try await blocking { chosen.compactMap { ImageStore.damage(of: $0, digest: $1) } }
    }

    private func ensure(
        _ layer: LayerRecipe, _ key: String, on parents: [ImageManifest.Layer],
        for image: String, reuse: Bool, verify: Bool,
        progress: @escaping @Sendable (BuildProgress) -> Void
    ) async throws -> LayerRecord {
        var reuse = reuse
        if reuse, let record = cached(key) {
            let damage = try await damage(of: record, all: verify)
            if damage.isEmpty { return record }
            for part in damage { progress(BuildProgress(image: layer.image, step: "\(part)")) }
            reuse = false
        }
        guard getuid() == 0 else { throw ImageError.notRoot(image: image) }
        // Two builds of one layer: the second waits, and finds it built.
        let locks = "\(store.root)/cache/locks"
        try Files.makeFolder(locks)
        var announced = false
        while true {
            if let lock = try FileLock.attempt("\(locks)/\(key)") {
                defer { withExtendedLifetime(lock) {} }
                if reuse || announced, let record = cached(key) { return record }
                // apt locks the folder of downloads, and does not wait for another apt.
                let downloads = try await turn("\(locks)/downloads", layer.image, progress)
                defer { withExtendedLifetime(downloads) {} }
                return try await build(layer, key, on: parents, progress: progress)
            }
            if !announced {
                progress(BuildProgress(image: layer.image, step: "waiting for another build"))
            }
            announced = true
            try await Task.sleep(for: .milliseconds(100))
        }
    }

    /// Waits for a lock; which layer holds it makes no difference.
    private func turn(
        _ path: String, _ image: String, _ progress: @Sendable (BuildProgress) -> Void
    ) async throws -> FileLock {
        if let lock = try FileLock.attempt(path) { return lock }
        progress(BuildProgress(image: image, step: "waiting for another build"))
        while true {
            try await Task.sleep(for: .milliseconds(100))
            if let lock = try FileLock.attempt(path) { return lock }
        }
    }

    // MARK: One layer

    private func build(
        _ layer: LayerRecipe, _ key: String, on parents: [ImageManifest.Layer],
        progress: @escaping @Sendable (BuildProgress) -> Void
    ) async throws -> LayerRecord {
        try Files.makeFolder(store.debs)
        try WorkFolder.sweep(store.root)
        let work = try WorkFolder.make(store.root)
        do {
            let ports = try await prepareSources(layer, in: work.path, progress: progress)
            try await run(layer, key, on: parents, in: work.path, progress: progress)
            let boot = parents.isEmpty ? try await takeKernel(from: work.path) : nil
            let packed = try await store.take("\(work.path)/layer.erofs", .erofs)
            var packages: [String: String] = [:]
            for line in try Files.readText("\(work.path)/packages").split(separator: "\n") {
                let words = line.split(separator: " ")
                if words.count == 2 { packages[String(words[0])] = String(words[1]) }
            }
            let record = LayerRecord(
                layer: .init(
                    digest: packed.digest, bytes: packed.bytes,
                    check: try Builder.check(try Files.readText("\(work.path)/verity"))),
                packages: packages, boot: boot,
                sources: layer.sources.map(\.cacheName), ports: ports)
            try Files.makeFolder("\(store.root)/cache/recipes")
            try Files.write(store.recipeFile(key), record.json.text(pretty: true) + "\n")
            try work.remove()
            return record
        } catch {
            let reason = explain(error, layer.image, work.path)
            try? work.remove()
            throw reason
        }
    }

    /// What the script says of the hash tree; pure.
    static func check(_ text: String) throws(ImageError) -> ImageManifest.Layer.Check {
        let words = text.split(whereSeparator: \.isWhitespace).map(String.init)
        guard words.count == 2, let bytes = Int64(words[0]), isDigest(words[1]) else {
            throw .failed(
                image: "layer", step: "packing the layer",
                output: "veritysetup named no root hash: \(text)")
        }
        return .init(rootHash: words[1], contentBytes: bytes)
    }

    /// The programs that a build runs, and the Debian packages that they come with.
    static let tools = [
        ("mmdebstrap", "mmdebstrap"), ("mkfs.erofs", "erofs-utils"), ("unshare", "util-linux"),
        ("setfattr", "attr"), ("dpkg-deb", "dpkg"), ("chroot", "coreutils"),
        ("veritysetup", "cryptsetup-bin"),
    ]

    private func run(
        _ layer: LayerRecipe, _ key: String, on parents: [ImageManifest.Layer], in work: String,
        progress: @escaping @Sendable (BuildProgress) -> Void
    ) async throws {
        for (name, package) in Builder.tools { _ = try tool(name, package: package) }
        try Files.makeFolder("\(work)/files")
        for (index, file) in layer.files.enumerated() {
            try Files.write("\(work)/files/\(index)", file.content)
        }
        let script = LayerSteps.render(layer.steps(hasParent: !parents.isEmpty))
        try Files.write("\(work)/script", script)
        var program = Program(
            try tool("unshare", package: "util-linux"),
            [
                "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
                "--mount-proc", "--ipc", "/bin/sh", "\(work)/script",
            ])
        let uuid = Array(key.prefix(32))
        let groups = [uuid[0..<8], uuid[8..<12], uuid[12..<16], uuid[16..<20], uuid[20..<32]]
        program.environment = [
            "PATH=\(environment("PATH") ?? "/usr/bin:/bin"):/usr/sbin:/sbin", "WORK=\(work)",
            "DEBS=\(store.debs)", "WHEELS=\(store.sources)", "SOURCE=\(mirror ?? "")",
            "PARENTS=" + parents.map { store.part($0.digest, .erofs) }.joined(separator: ":"),
            "UUID=" + groups.map { String($0) }.joined(separator: "-"),
        ]
        // A proxy is how packages come in on many hosts.
        for name in ["http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "PIP_INDEX_URL"] {
            if let value = environment(name) { program.environment?.append("\(name)=\(value)") }
        }
        let lifeline = try Pipe().split()
        defer {
            close(lifeline.writer)
            close(lifeline.reader)
        }
        program.descriptors[3] = lifeline.reader
        let image = layer.image
        let result = try await program.capture {
            progress(BuildProgress(image: image, step: $0))
        }
        guard result.exit.isSuccess else {
            let steps = result.errorText.split(separator: "\n")
            throw ImageError.failed(
                image: image, step: steps.last.map(String.init) ?? "starting the build",
                output: "\(result.exit)")
        }
    }

    /// Makes of a failed script what a person can act on.
    private func explain(_ error: any Error, _ image: String, _ work: String) -> any Error {
        if let error = error as? SystemError, error.isNoSpace {
            return ImageError.noSpace(path: store.root)
        }
        guard case ImageError.failed(_, let step, let exit) = error else { return error }
        // Not every program says why a write failed. The work folder still takes its space.
        if let free = try? Files.freeSpace(store.root), free < 32 << 20 {
            return ImageError.noSpace(path: store.root)
        }
        let log = (try? Files.readText("\(work)/log")) ?? ""
        return Builder.diagnose(log: log, image: image, step: step, exit: exit, root: store.root)
    }

    /// Reads the log of a failed script; pure.
    static func diagnose(
        log: String, image: String, step: String, exit: String, root: String
    ) -> ImageError {
        if log.contains("No space left on device") { return .noSpace(path: root) }
        for line in log.split(separator: "\n") {
            for phrase in ["Unable to locate package ", "has no installation candidate"] {
                guard line.contains(phrase) else { continue }
                let words = line.replacing("'", with: "").split(separator: " ")
                let name = phrase.hasPrefix("Unable") ? words.last : words.dropFirst(2).first
                if let name { return .unknownPackage(String(name), image: image) }
            }
        }
        let lines = log.split(separator: "\n").filter { !$0.hasPrefix("== ") }
        let tail = lines.suffix(5).joined(separator: " | ")
        return .failed(image: image, step: step, output: tail.isEmpty ? exit : "\(exit): \(tail)")
    }

    // MARK: Kernel and initramfs

    private func takeKernel(from work: String) async throws -> LayerRecord.Boot {
        let words = try Files.readText("\(work)/kernel/package").split(
            whereSeparator: \.isWhitespace)
        guard words.count == 4,
            let version = try Files.list("\(work)/tree/usr/lib/modules").first
        else { throw ImageError.badKernel("it brings no modules") }
        let packed = try Files.read("\(work)/kernel/files/boot/vmlinuz-\(version)")
        let payload = try Kernel.payload(of: packed)
        let program = try tool(payload.program, package: payload.package)
        try Files.write("\(work)/payload", packed[payload.range])
        let input = try Descriptor.open("\(work)/payload", O_RDONLY)
        let output = try Descriptor.open("\(work)/vmlinux", O_WRONLY | O_CREAT, mode: 0o444)
        var unpack = Program(program, payload.arguments)
        unpack.descriptors = [0: input.raw, 1: output.raw]
        let exit = try await unpack.spawn().wait()
        let magic = try Descriptor.open("\(work)/vmlinux", O_RDONLY).read(4)
        guard exit.isSuccess, magic == [0x7f, 0x45, 0x4c, 0x46] else {
            throw ImageError.badKernel("\(payload.program) could not unpack it (\(exit))")
        }
        let kernel = try await store.take("\(work)/vmlinux", .vmlinux)

        let folder = "\(work)/tree/usr/lib/modules/\(version)"
        let modules = Kernel.initialModules(
            dependencies: try Files.readText("\(folder)/modules.dep"))
        var archive = CPIO()
        archive.folder("modules")
        for path in modules.paths {
            archive.file(
                "modules/\(Files.name(path))", mode: 0o644, try Files.read("\(folder)/\(path)"))
        }
        archive.file("modules/list", mode: 0o644, Array(modules.list.utf8))
        try Files.write("\(work)/modules", archive.finish())
        let archived = try await store.take("\(work)/modules", .modules)
        return LayerRecord.Boot(
            kernel: kernel.digest, modules: archived.digest, package: String(words[1]),
            version: String(words[3]))
    }

    /// Puts layers together to an image; nil when the lowest brings no kernel.
    private func assemble(
        _ name: String, _ records: [LayerRecord]
    ) throws(ImageError) -> (image: ImageManifest, initramfs: [UInt8])? {
        guard let boot = records.first?.boot, let top = records.last else { return nil }
        var packages = top.packages
        packages[boot.package] = boot.version
        var image = ImageManifest(
            name: name, layers: records.map(\.layer), kernel: boot.kernel, initramfs: "",
            commandLine: Builder.commandLine, packages: packages, createdAt: Clock.now())
        image.ports = records.flatMap(\.ports)
        var archive = CPIO()
        archive.file("init", mode: 0o755, GuestPrograms.initProgram)
        if let list = image.verityList { archive.file("verity", mode: 0o644, Array(list.utf8)) }
        let modules = try system { () throws(SystemError) in
            try Files.read(store.part(boot.modules, .modules))
        }
        let initramfs = archive.finish() + modules
        image.initramfs = SHA256.large(initramfs)
        return (image, initramfs)
    }
}
