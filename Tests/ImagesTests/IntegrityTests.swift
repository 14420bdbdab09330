// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Images

/// What makes a flipped byte of an image noticed.
@Suite struct IntegrityTests {
    private let check = ImageManifest.Layer.Check(
        rootHash: String(repeating: "ab", count: 32), contentBytes: 8192)

    private func image(_ check: ImageManifest.Layer.Check?) -> ImageManifest {
        let digest = String(repeating: "c", count: 64)
        return ImageManifest(
            name: "core",
            layers: [
                .init(digest: String(repeating: "1", count: 64), bytes: 12288, check: check),
                .init(digest: String(repeating: "2", count: 64), bytes: 12288, check: check),
            ], kernel: digest, initramfs: digest, commandLine: "quiet", packages: [:],
            createdAt: 1)
    }

    // MARK: The manifest

    @Test func theManifestHoldsTheRootHashes() throws {
        let image = image(check)
        #expect(image.json["format"]?.integer == 2)
        #expect(try ImageManifest(image.json, path: "/m") == image)
        #expect(image.isCheckedAtRead)
        let root = String(repeating: "ab", count: 32)
        #expect(image.verityList == "8192 \(root)\n8192 \(root)\n")
        var other = image
        other.layers[1].check = .init(
            rootHash: String(repeating: "ac", count: 32), contentBytes: 8192)
        #expect(other.digest != image.digest)
        other.layers[1].check = nil
        #expect(other.digest != image.digest && !other.isCheckedAtRead && other.verityList == nil)
    }

    /// VMs, snapshots and archives refer to images of before by this digest.
    @Test func anImageOfBeforeKeepsItsDigest() throws {
        let image = image(nil)
        #expect(image.json["format"]?.integer == 1)
        let text =
            "martlet-image 1\n\(image.kernel)\n\(image.initramfs)\nquiet\n"
            + "\(image.layers[0].digest)\n\(image.layers[1].digest)"
        #expect(image.digest == SHA256.hex(text.utf8))
        #expect(try ImageManifest(image.json, path: "/m") == image)
    }

    @Test(arguments: [
        (#""rootHash": "xyz", "contentBytes": 8192"#), (#""rootHash": "ROOT", "contentBytes": 0"#),
        (#""rootHash": "ROOT", "contentBytes": 8191"#),
        (#""rootHash": "ROOT", "contentBytes": 12288"#), (#""rootHash": "ROOT""#),
        (#""rootHash": 7, "contentBytes": 8192"#),
    ])
    func aTreeThatCannotBeIsRefused(text: String) throws {
        let digest = String(repeating: "1", count: 64)
        let text = text.replacing("ROOT", with: check.rootHash)
        let json = try JSONValue(
            parsing: #"{"digest": "\#(digest)", "bytes": 12288, \#(text)}"#)
        #expect(ImageManifest.Layer(json) == nil)
    }

    @Test func oneBlockNeedsNoTree() throws {
        func layer(_ bytes: Int64) throws -> ImageManifest.Layer? {
            let digest = String(repeating: "1", count: 64)
            let text =
                #"{"digest": "\#(digest)", "bytes": \#(bytes), "rootHash": "#
                + #""\#(check.rootHash)", "contentBytes": \#(bytes)}"#
            return .init(try JSONValue(parsing: text))
        }
        #expect(try layer(4096)?.check?.contentBytes == 4096)
        #expect(try layer(8192) == nil)
    }

    @Test func theScriptsWordIsRead() throws {
        #expect(try Builder.check("8192 \(check.rootHash)\n") == check)
        #expect(throws: ImageError.self) { try Builder.check("8192 \n") }
    }

    // MARK: The hash tree

    /// Packs a folder as a build does.
    private func pack(_ folder: String, _ name: String) async throws -> (
        file: String, words: String
    ) {
        let work = "\(folder)/\(name)"
        // The folder of a build holds more than the file: a name that is taken would end it.
        try Files.makeFolder("\(work)/tree")
        let steps = LayerSteps.delta(.init(image: "a", packages: []))
        let script = try #require(steps.last?.script).replacing(
            "$WORK/upper", with: "\(folder)/tree")
        var program = Program("/bin/sh", ["-euc", script])
        program.environment = [
            "WORK=\(work)", "UUID=11111111-2222-3333-4444-555555555555",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        ]
        let output = try await program.capture()
        try #require(output.exit.isSuccess, "\(output.errorText)")
        return ("\(work)/layer.erofs", try Files.readText("\(work)/verity"))
    }

    private func verifies(_ file: String, _ check: ImageManifest.Layer.Check) async throws -> Bool {
        let program = try #require(findProgram("veritysetup"))
        let output = try await Program(
            program,
            [
                "verify", "--no-superblock", "--hash=sha256", "--salt=-",
                "--data-block-size=4096", "--hash-block-size=4096",
                "--data-blocks=\(check.contentBytes / 4096)",
                "--hash-offset=\(check.contentBytes)", file, file, check.rootHash,
            ]
        ).capture()
        return output.exit.isSuccess
    }

    /// The same content gives the same bytes, and no byte can change without being noticed.
    @Test func everyByteOfALayerIsBelowItsRootHash() async throws {
        var template = Array("/tmp/martlet-tree.XXXXXX".utf8CString)
        let folder = String(cString: try #require(mkdtemp(&template)))
        defer { try? Files.remove(folder) }
        try Files.makeFolder("\(folder)/tree/etc")
        // More than 128 blocks, so that the tree has more than one level.
        var random = SystemRandomNumberGenerator()
        let bytes = (0..<700_000).map { _ in UInt8.random(in: 0...255, using: &random) }
        try Files.write("\(folder)/tree/etc/data", bytes)
        let (file, words) = try await pack(folder, "one")
        let again = try await pack(folder, "two")
        #expect(words == again.words)
        #expect(try SHA256.file(file) == SHA256.file(again.file))
        let check = try Builder.check(words)
        let size = try Files.status(file).size
        #expect(check.contentBytes < size && check.contentBytes % 4096 == 0)
        #expect(try await verifies(file, check))
        let places = [
            0, 1024, check.contentBytes / 2, check.contentBytes - 1, check.contentBytes,
            size - 4096,
        ]
        for place in places {
            try flip(file, at: place)
            #expect(try await !verifies(file, check), "byte \(place)")
            try flip(file, at: place)
        }
        #expect(try await verifies(file, check))
    }

    /// A recipe that adds nothing to the layer below, as of a service that is a built-in image.
    @Test func aLayerWithoutContentIsChecked() async throws {
        let folder = try TemporaryFolder()
        try Files.makeFolder("\(folder.path)/tree")
        let (file, words) = try await pack(folder.path, "one")
        let check = try Builder.check(words)
        let size = try Files.status(file).size
        #expect(size == 4096 && check.contentBytes == 4096)
        let layer = ImageManifest.Layer(
            digest: try SHA256.file(file), bytes: size, check: check)
        #expect(ImageManifest.Layer(.object(layer.members)) == layer)
        #expect(try await verifies(file, check))
        try flip(file, at: 1100)
        #expect(try await !verifies(file, check))
    }

    private func flip(_ path: String, at place: Int64) throws {
        let file = try Descriptor.open(path, O_RDWR)
        var byte: UInt8 = 0
        #expect(pread(file.raw, &byte, 1, off_t(place)) == 1)
        byte ^= 0x10
        #expect(pwrite(file.raw, &byte, 1, off_t(place)) == 1)
    }

    // MARK: On the host

    @Test func eachDamagedFileIsNamed() async throws {
        let world = try World()
        let image = try await world.add("core", layers: ["base", "core"])
        #expect(try await world.store.damage(of: image, withLayers: true) == [])
        let boot = world.store.bootFiles(image)
        try Files.write(boot.initramfs, "initramfS")
        try Files.write(boot.layers[1], "corf")
        let found = try await world.store.damage(of: image, withLayers: true)
        #expect(
            found == [
                .init(
                    path: boot.initramfs, wanted: image.initramfs,
                    found: SHA256.hex("initramfS".utf8)),
                .init(
                    path: boot.layers[1], wanted: image.layers[1].digest,
                    found: SHA256.hex("corf".utf8)),
            ])
        #expect(try await world.store.damage(of: image, withLayers: false) == [found[0]])
        try Files.remove(boot.kernel)
        let missing = try await world.store.damage(of: image, withLayers: false)
        #expect(missing.first?.path == boot.kernel)
        #expect(missing.first?.description.contains("No such file") == true)
    }

    /// What is damaged is replaced when there is something to replace it with, and kept.
    @Test func aPartThatComesAnewTakesTheDamagedOnesPlace() async throws {
        let world = try World()
        let image = try await world.add("core", layers: ["base", "core"])
        let boot = world.store.bootFiles(image)
        try Files.write(boot.layers[1], "corf")
        try Files.write("\(world.store.folder(image.digest))/vmlinux", "kernem")
        try Files.write(world.store.part(image.kernel, .vmlinux), "kernem")
        // Without being told to verify, a build takes what is there.
        try await world.add("core", layers: ["base", "core"])
        #expect(
            try await world.store.damage(of: image, withLayers: true).map(\.path) == [boot.kernel])
        #expect(try Files.readText(boot.layers[1]) == "core")
        try world.store.add(image, initramfs: Array("initramfs".utf8), verify: true)
        #expect(try await world.store.damage(of: image, withLayers: true) == [])
        let kept = try Files.list("\(world.root)/quarantine").sorted()
        #expect(
            kept
                == [
                    "\(image.digest).1", "\(image.kernel).vmlinux.1",
                    "\(image.layers[1].digest).erofs.1",
                ].sorted())
        #expect(
            try Files.readText("\(world.root)/quarantine/\(image.layers[1].digest).erofs.1")
                == "corf")
        // Nothing is set aside a second time.
        try world.store.add(image, initramfs: Array("initramfs".utf8), verify: true)
        #expect(try Files.list("\(world.root)/quarantine").count == 3)
    }

    @Test func anImportMendsWhatIsDamaged() async throws {
        let world = try World()
        let image = try await world.add("core", layers: ["base"])
        let file = "\(world.root)/core.tar.zst"
        try await world.store.export("core", to: file)
        let boot = world.store.bootFiles(image)
        try Files.write(boot.kernel, "kernem")
        try Files.write(world.store.part(image.kernel, .vmlinux), "kernem")
        try Files.write(boot.layers[0], "basf")
        try await world.store.import(file)
        #expect(try await world.store.damage(of: image, withLayers: true) == [])
        #expect(try Files.list("\(world.root)/quarantine").count == 3)
    }

    @Test func aTravellingImageKeepsItsRootHashes() async throws {
        let world = try World()
        var image = try await world.add("core", layers: ["base", "core"])
        let bytes = [UInt8](repeating: 7, count: 12288)
        for index in image.layers.indices {
            try Files.write("\(world.root)/part", bytes + [UInt8(index)])
            let (digest, size) = try await world.store.take("\(world.root)/part", .erofs)
            image.layers[index] = .init(digest: digest, bytes: size, check: check)
        }
        try world.store.add(image, initramfs: Array("initramfs".utf8))
        let file = "\(world.root)/core.tar.zst"
        try await world.store.export("core", to: file)
        let there = try World()
        #expect(try await there.store.import(file) == image)
        #expect(try there.store.resolve("core") == image)
    }
}
