// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Images

/// Images that travel as files, and files that only look like it.
@Suite struct TransferTests {
    @Test func carriesImages() async throws {
        let from = try World()
        let to = try World()
        let image = try await from.add("core", layers: ["base", "core"], packages: ["a": "1"])
        let file = "\(from.root)/a:b.tar.zst"
        try await from.store.export("core", to: file)
        #expect(!(try Files.list(from.root)).contains { $0.contains(".new.") })
        let taken = try await to.store.import(file, as: "carried")
        #expect(taken.digest == image.digest)
        let there = try #require(try to.store.resolve("carried"))
        #expect(there.packages == ["a": "1"])
        let boot = to.store.bootFiles(there)
        #expect(try boot.layers.map { try Files.readText($0) } == ["base", "core"])
        #expect(to.store.isImported("carried"))
        #expect(try Files.list("\(to.root)/tmp") == ["lock"])
        #expect(try await to.store.import(file).name == "core")
        // Built here since: the name no longer stands for the file.
        try to.store.setName("carried", image.digest)
        #expect(!to.store.isImported("carried"))
    }

    @Test func keepsAFileThatIsThere() async throws {
        let world = try World()
        try await world.add("core", layers: ["base"])
        let file = "\(world.root)/file"
        try Files.write(file, "mine")
        let error = await #expect(throws: SystemError.self) {
            try await world.store.export("core", to: file)
        }
        #expect(error?.isExisting == true)
        #expect(try Files.readText(file) == "mine")
        try await world.store.export("core", to: file, replacing: true)
        #expect(try await world.store.import(file).name == "core")
        #expect(!(try Files.list(world.root)).contains { $0.contains(".new.") })
        await #expect(throws: ImageError.missing("web")) {
            try await world.store.export("web", to: "\(world.root)/web")
        }
    }

    @Test func mendsAnImageThatIsDamagedHere() async throws {
        let world = try World()
        let image = try await world.add("core", layers: ["base"])
        let file = "\(world.root)/core.tar.zst"
        try await world.store.export("core", to: file)
        try Files.remove("\(world.store.folder(image.digest))/vmlinux")
        try await world.store.import(file)
        #expect(try world.store.resolve("core") == image)
        #expect(Files.exists("\(world.root)/quarantine/\(image.digest).1/manifest.json"))
    }

    /// An archive of an image, changed before tar packs it or after.
    private struct Forgery {
        let root: String
        let folder: String
        let layer: String
        var entries: [String]
        var options: [String] = []

        init(_ world: borrowing World) async throws {
            root = world.root
            let image = try await world.add("core", layers: ["base"])
            folder = "\(root)/in"
            layer = "\(image.layers[0].digest).erofs"
            entries = ["manifest.json", "vmlinux", "initramfs", layer]
            try Files.makeFolder(folder)
            let from = world.store.folder(image.digest)
            for name in entries.prefix(3) {
                try Files.write("\(folder)/\(name)", try Files.read("\(from)/\(name)"))
            }
            try Files.write("\(folder)/\(layer)", "base")
        }

        func pack() async throws -> String {
            let output = try await Program(
                try #require(findProgram("tar")),
                ["-cf", "\(root)/forged", "--zstd", "-P", "-C", folder] + options + entries
            ).capture()
            try #require(output.exit.isSuccess, "\(output.errorText)")
            return "\(root)/forged"
        }

        func manifest(_ from: String, _ to: String) throws {
            let path = "\(folder)/manifest.json"
            let text = try Files.readText(path)
            #expect(text.contains(from))
            try Files.write(path, text.replacing(from, with: to))
        }

        func replace(_ name: String, by make: (String) -> Int32) throws {
            try Files.remove("\(folder)/\(name)")
            try #require(make("\(folder)/\(name)") == 0)
        }
    }

    private typealias Change = @Sendable (inout Forgery) throws -> Void
    private static let forgeries: [(reason: String, change: Change)] = [
        ("'vmlinux' was changed", { try Files.write("\($0.folder)/vmlinux", "Kernel") }),
        ("has 5 bytes", { try Files.write("\($0.folder)/\($0.layer)", "basis") }),
        ("is missing", { $0.entries.removeLast() }),
        (
            "no part of its image",
            {
                $0.entries.append("vmlinux")
                $0.options = ["--hard-dereference"]
            }
        ),
        ("'/etc/hostname', which is no part", { $0.entries.append("/etc/hostname") }),
        ("not an exported image", { $0.entries.reverse() }),
        ("not JSON", { try Files.write("\($0.folder)/manifest.json", "{") }),
        ("does not fit to its content", { try $0.manifest("quiet", "debug") }),
        ("a part of it is missing", { try $0.manifest("\"bytes\": 4", "\"bytes\": -4") }),
        ("a part of it is missing", { try $0.manifest("quiet", "quiet\\n") }),
        (
            "something else than files",
            { try $0.replace("initramfs") { symlink("/etc/hostname", $0) } }
        ),
        (
            "something else than files",
            { forgery in
                let kernel = "\(forgery.folder)/vmlinux"
                try forgery.replace("initramfs") { link(kernel, $0) }
            }
        ),
        ("something else than files", { try $0.replace("initramfs") { mkfifo($0, 0o600) } }),
        (
            "something else than files",
            {
                try Files.remove("\($0.folder)/initramfs")
                try Files.makeSparse("\($0.folder)/initramfs", bytes: 1 << 40)
                $0.options = ["--sparse"]
            }
        ),
        (
            "something else than files",
            { $0.options = ["--format=ustar", "--transform=s,^vmlinux,\(long)/vmlinux,"] }
        ),
    ]
    private static let long = String(repeating: "long", count: 30)

    @Test(arguments: forgeries.indices) func refusesForgedFiles(_ index: Int) async throws {
        let world = try World()
        let target = try World()
        var forgery = try await Forgery(world)
        try TransferTests.forgeries[index].change(&forgery)
        let file = try await forgery.pack()
        let error = await #expect(throws: ImageError.self) { try await target.store.import(file) }
        let reason = TransferTests.forgeries[index].reason
        #expect("\(try #require(error))".contains(reason), "\(String(describing: error))")
        try expectNothing(in: target)
    }

    private func expectNothing(in world: borrowing World) throws {
        let left = try Files.list(world.root)
        #expect(left == [] || left == ["tmp"])
        let work = try Files.list("\(world.root)/tmp")
        #expect(work == [] || work == ["lock"])
    }

    @Test func refusesWhatIsCutOffOrChangedOnTheWay() async throws {
        let world = try World()
        let target = try World()
        // Long enough that a flipped bit hits content; what one bit does to a short frame varies.
        let noise = (0..<60_000).map { _ in Character(Unicode.Scalar(UInt8.random(in: 32...126))) }
        try await world.add("core", layers: [String(noise)])
        let file = "\(world.root)/file"
        try await world.store.export("core", to: file)
        let whole = try Files.read(file)
        for count in [0, 3, 4, 100, whole.count / 2, whole.count - 1] {
            try Files.write(file, whole.prefix(count))
            let error = await #expect(throws: ImageError.self, "\(count)") {
                try await target.store.import(file)
            }
            guard case .damaged? = error else {
                Issue.record("\(String(describing: error))")
                continue
            }
        }
        var flipped = whole
        flipped[whole.count / 2] ^= 1
        try Files.write(file, flipped)
        await #expect(throws: ImageError.self) { try await target.store.import(file) }
        try Files.write(file, whole + whole)
        await #expect(throws: ImageError.damaged(path: file, reason: "something follows its end")) {
            try await target.store.import(file)
        }
        try Files.remove(file)
        try #require(mkfifo(file, 0o600) == 0)
        await #expect(throws: ImageError.damaged(path: file, reason: "it is not a file")) {
            try await target.store.import(file)
        }
        try expectNothing(in: target)
    }

    /// A header as tar writes it, of a file of any size.
    private func header(_ name: String, _ size: Int64) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: TarHeader.length)
        header.replaceSubrange(0..<name.utf8.count, with: Array(name.utf8))
        header[124] = 0x80
        for byte in 0..<8 { header[135 - byte] = UInt8(truncatingIfNeeded: size >> (8 * byte)) }
        header.replaceSubrange(148..<156, with: Array("        ".utf8))
        let digits = String(header.reduce(0) { $0 + Int($1) }, radix: 8)
        let field = String(repeating: "0", count: 6 - digits.count) + digits
        header.replaceSubrange(148..<155, with: Array(field.utf8) + [0])
        return header
    }

    @Test func readsHeaders() throws {
        let good = header("vmlinux", 1 << 34)
        let parsed = try #require(TarHeader(good))
        #expect(parsed.name == "vmlinux" && parsed.size == 1 << 34)
        var bad = good
        bad[0] = 0
        #expect(TarHeader(bad) == nil, "the checksum is wrong")
        #expect(TarHeader(header("vmlinux", -1)) == nil)
        #expect(TarHeader([]) == nil)
        for _ in 0..<2000 {
            var noise = good
            for _ in 0..<4 { noise[Int.random(in: 0..<512)] = UInt8.random(in: 0...255) }
            if let header = TarHeader(noise) { #expect(header.size >= 0) }
        }
    }

    /// A few bytes that announce more than the disk holds.
    @Test func doesNotUnpackWhatCannotBeAnImage() async throws {
        let world = try World()
        let target = try World()
        let image = try await world.add("core", layers: ["base"])
        func refused(_ image: ImageManifest, _ next: [UInt8]) async throws -> ImageError? {
            let text = Array(image.json.text(pretty: true).utf8)
            let padding = [UInt8](repeating: 0, count: (512 - text.count % 512) % 512)
            let tar = header("manifest.json", Int64(text.count)) + text + padding + next
            let packed = try await Program(
                try #require(findProgram("zstd")), ["-q", "-c"]
            ).capture(input: tar)
            let file = "\(world.root)/forged"
            try Files.write(file, packed.standardOutput)
            return await #expect(throws: ImageError.self) { try await target.store.import(file) }
        }
        let size = ImageArchive.bootLimit + 1
        let error = try await refused(image, header("vmlinux", size))
        #expect("\(try #require(error))".contains("'vmlinux' has \(size) bytes"))
        var large = image
        large.layers = [.init(digest: image.layers[0].digest, bytes: 1 << 50)]
        guard case .noSpace? = try await refused(large, []) else {
            Issue.record("it would fill the disk")
            return
        }
        try expectNothing(in: target)
    }
}
