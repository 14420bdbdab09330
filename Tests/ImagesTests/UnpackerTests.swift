// SPDX-License-Identifier: Apache-2.0
import Archives
import Linux
import Support
import Testing

@testable import Images

/// Archives as services are shipped in, and archives that were made to do harm.
@Suite struct UnpackerTests {
    private let folder: TemporaryFolder
    private var file: String { folder.path + "/archive" }
    private var target: String { folder.path + "/tree" }

    init() throws {
        folder = try TemporaryFolder()
        try Files.makeFolder(target)
    }

    private func unpack(_ bytes: [UInt8]? = nil, _ rules: Unpacker.Rules = .init()) throws {
        if let bytes { try Files.write(file, bytes) }
        try Unpacker.unpack(file, into: target, rules: rules)
    }

    /// What is said of an archive that is refused.
    private func refusal(
        _ bytes: [UInt8], _ rules: Unpacker.Rules = .init()
    ) throws -> String {
        let error = #expect(throws: ArchiveEntries.Failure.self) { try unpack(bytes, rules) }
        return try #require(error).text
    }

    private func shell(_ script: String) async throws {
        let output = try await Program("/bin/sh", ["-euc", "cd \"$0\"; " + script, folder.path])
            .capture()
        try #require(output.exit.isSuccess, "\(output.errorText)")
    }

    @Test(arguments: ["gzip", "xz", "zstd", "bzip2"])
    func topFolderIsStripped(packer: String) async throws {
        try await shell(
            """
            mkdir -p src/Sonarr/Sonarr.Update src/Sonarr/UI; cd src
            echo program >Sonarr/Sonarr; chmod 4775 Sonarr/Sonarr; echo x >Sonarr/UI/é.js
            echo old >Sonarr/Sonarr.Update/x; ln -s Sonarr Sonarr/link; ln Sonarr/Sonarr Sonarr/twin
            tar -cf - --owner=1001 Sonarr | \(packer) >../archive
            """)
        try unpack(nil, .init(strip: 1, remove: ["Sonarr.Update"]))
        #expect(
            try await listing(target) == [
                "Sonarr 755 program", "UI/ 755", "UI/é.js 644 x", "link -> Sonarr",
                "twin 755 program",
            ])
    }

    @Test func tarCountsADotAsAPart() async throws {
        try await shell(
            "mkdir -p AdGuardHome; echo x >AdGuardHome/AdGuardHome; tar -czf archive ./AdGuardHome")
        try unpack(nil, .init(strip: 2))
        #expect(try await listing(target) == ["AdGuardHome 644 x"])
    }

    @Test func zipWithoutATopFolder() async throws {
        try await shell(
            """
            python3 -c '
            import zipfile
            with zipfile.ZipFile("archive", "w", zipfile.ZIP_DEFLATED) as z:
                z.writestr("bazarr.py", "print()" * 99)
                z.writestr("libs/a/b.py", "x")
            '
            """)
        try unpack()
        let all = try await listing(target)
        #expect(
            all.map { $0.prefix { $0 != " " } } == ["bazarr.py", "libs/", "libs/a/", "libs/a/b.py"])
        // A flipped byte of what is packed.
        var bytes = try Files.read(file)
        bytes[50] ^= 1
        #expect(try !refusal(bytes).isEmpty)
    }

    @Test(arguments: [
        ("../evil", "leads out of the archive: '../evil'"), ("/etc/evil", "begins at the root"),
        ("a/../../evil", "leads out of the archive"),
    ])
    func pathsThatLeadOut(name: String, reason: String) throws {
        var tar = MadeUpTar()
        tar.add(name, content: "x")
        let text = try refusal(tar.whole)
        #expect(text.contains("the entry '\(name)' \(reason)"), "\(text)")
        #expect(try Files.list(folder.path).sorted() == ["archive", "tree"])
        #expect(try Files.list(target) == [])
    }

    @Test func linksAreNotFollowed() async throws {
        var tar = MadeUpTar()
        tar.add("out", "2", link: folder.path)
        tar.add("out/evil", content: "x")
        #expect(try refusal(tar.whole).contains("'out/evil' leads through a symbolic link"))
        tar = MadeUpTar()
        tar.add("up", "2", link: "..")
        tar.add("up/tree/x", content: "x")
        #expect(try refusal(tar.whole).contains("'up/tree/x' leads through a symbolic link"))
        // A file in the place of a link replaces the link, and not what it points to.
        try Files.write(folder.path + "/victim", "whole")
        tar = MadeUpTar()
        tar.add("victim", "2", link: folder.path + "/victim")
        tar.add("victim", content: "changed")
        try unpack(tar.whole)
        #expect(try Files.readText(folder.path + "/victim") == "whole")
        #expect(try Files.readText(target + "/victim") == "changed")
    }

    @Test(arguments: [
        ("../archive", "leads out"), ("/etc/passwd", "begins at the root"),
        ("missing", "is a hard link to something that is not in the archive"),
        ("dir/victim", "leads through a symbolic link"),
    ])
    func hardLinksStayInside(to: String, reason: String) throws {
        try Files.write(folder.path + "/victim", "whole")
        var tar = MadeUpTar()
        tar.add("dir", "2", link: "..")
        tar.add("hard", "1", link: to)
        let text = try refusal(tar.whole)
        #expect(text.contains("the entry 'hard' \(reason)"), "\(text)")
    }

    @Test func specialFilesAreRefused() throws {
        for type: Character in ["3", "4", "6"] {
            var tar = MadeUpTar()
            tar.add("dev/node", type)
            #expect(
                try refusal(tar.whole)
                    == "the entry 'dev/node' is a device, a pipe or a socket")
        }
    }

    @Test func whatIsCutOffIsRefused() async throws {
        var tar = MadeUpTar()
        tar.add("a", content: String(repeating: "x", count: 5000))
        let text = try refusal(Array(tar.bytes.prefix(3000)))
        #expect(text.contains("(in 'a')"), "\(text)")
        try Files.write(folder.path + "/whole", tar.whole)
        for packer in ["gzip", "xz", "zstd"] {
            try await shell("\(packer) -c whole >archive")
            let packed = try Files.read(file)
            #expect(try !refusal(packed.dropLast(12)).isEmpty)
        }
        #expect(try refusal(Array("<html>not found</html>".utf8)) != "")
        #expect(try !refusal([]).isEmpty)
    }

    @Test func bombsHaveABound() async throws {
        try await shell("head -c 20000000 /dev/zero >zeros; tar -cf - zeros | zstd >archive")
        #expect(try Files.status(file).size < 1 << 20)
        let error = #expect(throws: ArchiveEntries.Failure.self) {
            try Unpacker.unpack(file, into: target, rules: .init(), limit: 8 << 20)
        }
        let text = try #require(error).text
        #expect(text.contains("the entry 'zeros' makes it more than 8 MiB"), "\(text)")
        #expect(try Files.status(target + "/zeros").size <= 8 << 20)
        try await shell("head -c 20000000 /dev/zero | zstd >archive")
        #expect(throws: ArchiveEntries.Failure.self) {
            try Unpacker.unpackFile(file, to: folder.path + "/out", limit: 8 << 20)
        }
        // One that says that it is huge and is not.
        var tar = MadeUpTar()
        tar.add("huge", content: "x", size: 8_000_000_000)
        #expect(try !refusal(tar.whole).isEmpty)
        #expect(Unpacker.limit(packed: 200 << 20) == 20000 << 20)
        #expect(Unpacker.limit(packed: .max) <= 64 << 30)
    }

    @Test func mistakesOfTheRecipe() throws {
        var tar = MadeUpTar()
        tar.add("top/", "5")
        tar.add("top/a", content: "x")
        #expect(
            try refusal(tar.whole, .init(strip: 2)) == "nothing of it is left with 'strip: 2'")
        #expect(
            try refusal(tar.whole, .init(strip: 1, remove: ["b"]))
                == "'remove' names 'b', which is not in it")
    }

    @Test(arguments: ["gzip", "xz", "zstd"])
    func packedBinaries(packer: String) async throws {
        try await shell("printf program | \(packer) >archive")
        try Unpacker.unpackFile(file, to: folder.path + "/out")
        #expect(try Files.readText(folder.path + "/out") == "program")
    }
}
