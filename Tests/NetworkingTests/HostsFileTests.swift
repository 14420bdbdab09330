// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Support
import Testing

@testable import Networking

@Suite(.timeLimit(.minutes(20))) struct HostsFileTests {
    private final class World: Sendable {
        let folder: TemporaryFolder
        var path: String { folder.path + "/hosts" }
        var hosts: HostsFile { HostsFile(path, lock: folder.path + "/lock") }

        init(_ text: String) throws {
            folder = try TemporaryFolder()
            try Files.write(path, text, mode: 0o644)
        }

        var text: String { get throws { try Files.readText(path) } }
    }

    private static let note =
        "# martlet maintains this block; what is changed here by hand is lost.\n"
    private static let empty = "# BEGIN martlet\n\(note)# END martlet\n"
    private static let web: [HostsFile.Entry] = [("10.1.0.2", ["web", "web.net1.internal"])]
    private static let webSection = "# owner one\n10.1.0.2\tweb web.net1.internal\n"

    private static func block(_ sections: String) -> String {
        "# BEGIN martlet\n\(note)\(sections)# END martlet\n"
    }

    @Test(arguments: [
        ("", empty), ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n" + empty),
        ("127.0.0.1 localhost", "127.0.0.1 localhost\n" + empty), (empty, empty),
        ("# BEGIN martlet\r\n# END martlet", "# BEGIN martlet\r\n# END martlet"),
    ])
    func setUpAddsTheBlockOnce(before: String, after: String) throws {
        let world = try World(before)
        #expect(try world.hosts.isSetUp == before.contains("BEGIN"))
        try world.hosts.setUp()
        try world.hosts.setUp()
        #expect(try world.text == after)
        #expect(try world.hosts.isSetUp)
    }

    @Test func aMissingFileIsMadeByNothingButSetUp() throws {
        let world = try World("")
        try Files.remove(world.path)
        #expect(try !world.hosts.isSetUp)
        #expect(try !world.hosts.update(owner: "one", entries: Self.web))
        #expect(!Files.exists(world.path))
        try world.hosts.setUp()
        #expect(try world.text == Self.empty)
        #expect(try Files.status(world.path).mode == 0o644)
    }

    @Test func withoutTheBlockNothingIsWritten() throws {
        let world = try World("127.0.0.1 localhost")
        // Its lock could not even be made.
        let hosts = HostsFile(world.path, lock: world.folder.path + "/nowhere/lock")
        #expect(try !hosts.update(owner: "one", entries: Self.web))
        #expect(try !hosts.remove(owner: "one"))
        #expect(try world.text == "127.0.0.1 localhost")
    }

    @Test func eachOwnerHasASectionOfItsOwn() throws {
        let world = try World("a\n" + Self.empty + "z\n")
        #expect(try world.hosts.update(owner: "one", entries: Self.web))
        #expect(
            try world.hosts.update(
                owner: "two", entries: [("10.2.0.2", ["db"]), ("fd00::2", ["db", "DB_2"])]))
        let two = "# owner two\n10.2.0.2\tdb\nfd00::2\tdb DB_2\n"
        #expect(try world.text == "a\n" + Self.block(Self.webSection + two) + "z\n")
        #expect(try world.hosts.update(owner: "one", entries: [("10.1.0.9", ["new"])]))
        let one = "# owner one\n10.1.0.9\tnew\n"
        #expect(try world.text == "a\n" + Self.block(one + two) + "z\n")
        #expect(try world.hosts.remove(owner: "one"))
        #expect(try world.text == "a\n" + Self.block(two) + "z\n")
        #expect(try !world.hosts.remove(owner: "one"))
        #expect(try world.hosts.remove(owner: "two"))
        #expect(try world.text == "a\n" + Self.empty + "z\n")
    }

    @Test func nothingIsWrittenWhenNothingChanges() throws {
        let world = try World(Self.block(Self.webSection))
        let before = try inode(world.path)
        #expect(try !world.hosts.update(owner: "one", entries: Self.web))
        #expect(try inode(world.path) == before)
        #expect(try world.hosts.update(owner: "one", entries: [("10.1.0.3", ["web"])]))
        #expect(try inode(world.path) != before)
    }

    /// What no `String` would give back as it was.
    @Test func whatLiesOutsideStaysByteForByte() throws {
        let world = try World("")
        let before: [UInt8] = [0xFF, 0xFE, 13, 10, 10, 13, 0, 9, 10]
        let after: [UInt8] = [10, 0x65, 0xCC, 0x81, 13, 10, 0xC3]
        try Files.write(world.path, before + Array(Self.empty.utf8) + after)
        #expect(try world.hosts.update(owner: "one", entries: Self.web))
        let block = Array(Self.block(Self.webSection).utf8)
        #expect(try Files.read(world.path) == before + block + after)
        #expect(try world.hosts.remove(owner: "one"))
        #expect(try Files.read(world.path) == before + Array(Self.empty.utf8) + after)
    }

    @Test(arguments: [
        ("a\n# BEGIN martlet\nb\n", 2, "does not end"),
        ("# BEGIN martlet\n# BEGIN martlet\n# END martlet\n", 1, "does not end"),
        ("a\nb\n# END martlet\n", 3, "does not begin"),
        ("# BEGIN martlet\n# END martlet\n# BEGIN martlet\n# END martlet\n", 3, "second"),
        ("# BEGIN martlet\n# END martlet\n  # END martlet \n", 3, "does not begin"),
    ])
    func aDamagedBlockIsAnErrorWithItsLine(text: String, line: Int, reason: String) throws {
        let world = try World(text)
        let attempts: [() throws -> Void] = [
            { try world.hosts.setUp() },
            { try world.hosts.update(owner: "one", entries: Self.web) },
            { try world.hosts.remove(owner: "one") },
        ]
        for attempt in attempts {
            #expect {
                try attempt()
            } throws: {
                let text = "\($0)"
                return text.hasPrefix("\(world.path):\(line): ") && text.contains(reason)
            }
        }
        #expect(try world.text == text)
    }

    @Test(arguments: [
        ("one", "10.1.0.2", "web\n6.6.6.6 bank"), ("one", "10.1.0.2", "web db"),
        ("one", "10.1.0.2", "web#"), ("one", "10.1.0.2", ""), ("one", "10.1.0.2 x", "web"),
        ("one", "", "web"), ("one\nx", "10.1.0.2", "web"), ("", "10.1.0.2", "web"),
        ("one two", "10.1.0.2", "web"),
    ])
    func whatIsNoEntryIsRefused(owner: String, address: String, name: String) throws {
        let world = try World(Self.empty)
        #expect(throws: HostsFileError.self) {
            try world.hosts.update(owner: owner, entries: [(address, [name])])
        }
        #expect(throws: HostsFileError.self) {
            try world.hosts.update(owner: owner, entries: [(address, [])])
        }
        #expect(try world.text == Self.empty)
    }

    @Test(.enabled(if: getuid() == 0, "needs root")) func modeAndOwnerStay() throws {
        let world = try World(Self.empty)
        try Files.setOwner(world.path, user: 12_345, group: 23_456)
        try Files.setMode(world.path, 0o664)
        #expect(try world.hosts.update(owner: "one", entries: Self.web))
        var info = stat()
        #expect(stat(world.path, &info) == 0)
        #expect(info.st_uid == 12_345 && info.st_gid == 23_456 && info.st_mode & 0o7777 == 0o664)
        #expect(try Files.list(world.folder.path) == ["hosts", "lock"])
    }

    @Test func aLinkIsFollowedAndStays() throws {
        let world = try World(Self.empty)
        let link = world.folder.path + "/link"
        try Files.link("hosts", at: link)
        let hosts = HostsFile(link, lock: world.folder.path + "/lock")
        #expect(try hosts.update(owner: "one", entries: Self.web))
        #expect(try Files.readLink(link) == "hosts")
        #expect(try world.text == Self.block(Self.webSection))
    }

    /// As `ip netns exec` does it: a rename over a mount is EBUSY.
    @Test(.enabled(if: getuid() == 0, "needs root"))
    func aFileThatIsAMountIsWrittenInPlace() async throws {
        let world = try World("the host's own\n")
        let mounted = world.folder.path + "/mounted"
        try Files.write(mounted, Self.empty + "tail\n", mode: 0o644)
        try await inNewMounts {
            let mount = try #require(findProgram("mount"))
            let exit = try Program(mount, ["--bind", mounted, world.path]).spawn().waitBlocking()
            try #require(exit == .code(0))
            #expect(try world.hosts.update(owner: "one", entries: Self.web))
            #expect(try world.text == Self.block(Self.webSection) + "tail\n")
            // Shorter than before: the end of the old text must not remain.
            #expect(try world.hosts.remove(owner: "one"))
        }
        #expect(try Files.readText(mounted) == Self.empty + "tail\n")
        #expect(try world.text == "the host's own\n")
        #expect(try Files.list(world.folder.path) == ["hosts", "lock", "mounted"])
    }

    @Test func writersAtTheSameTimeLoseNothing() async throws {
        let world = try World(Self.empty)
        try await withThrowingTaskGroup { group in
            for number in 1...8 {
                group.addTask {
                    try await blocking {
                        for round in 1...10 {
                            try world.hosts.update(
                                owner: "fleet\(number)",
                                entries: [("10.0.\(number).\(round)", ["vm\(number)"])])
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        let text = try world.text
        for number in 1...8 {
            #expect(text.contains("# owner fleet\(number)\n10.0.\(number).10\tvm\(number)\n"))
        }
    }

    private func inode(_ path: String) throws -> UInt64 {
        var info = stat()
        try check("stat") { stat(path, &info) }
        return UInt64(info.st_ino)
    }
}
