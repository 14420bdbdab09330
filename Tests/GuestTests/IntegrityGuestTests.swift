// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// A real guest whose image has a flipped byte, in a block that its start does not read.
@Suite(
    .enabled(if: environment("MARTLET_TESTS") == "full", "needs MARTLET_TESTS=full"),
    .enabled(if: getuid() == 0, "building images needs root"), .serialized,
    .timeLimit(.minutes(20)))
struct IntegrityGuestTests {
    /// Of the lowest layer, and large enough for blocks of its own.
    private static let file = "/usr/share/common-licenses/GPL-3"

    @Test func whatWasChangedIsGivenToNobody() async throws {
        let port = try freePort()
        let martlet = try await BootedGuest.make(port)
        // Copies: other tests use the same image.
        for shared in ["layers", "images", "cache", "tmp"] {
            try Files.remove("\(martlet.root)/\(shared)")
        }
        let cp = try #require(findProgram("cp"))
        for shared in ["layers", "images"] {
            let copied = try await Program(
                cp, ["-a", "\(imageCache)/\(shared)", "\(martlet.root)/\(shared)"]
            ).capture()
            try #require(copied.exit.isSuccess, "\(copied.errorText)")
        }
        try Files.makeFolder("\(martlet.root)/cache")
        try Files.link("\(imageCache)/cache/recipes", at: "\(martlet.root)/cache/recipes")
        try BootedGuest.write(
            BootedGuest.fleet(port: port, "disk: 1GiB\n    restart: always"), for: martlet)
        let result: Result<Void, any Error>
        do {
            try await story(martlet)
            result = .success(())
        } catch {
            result = .failure(error)
        }
        _ = try await martlet("kill", "guest")
        try result.get()
    }

    private func story(_ martlet: Martlet) async throws {
        let up = try await martlet("up", "--no-start")
        try #require(up.exit == .code(0), "\(up.text)\(up.errorText)")
        let images = try JSONValue(parsing: try await martlet("images", "--json").text)
        let core = try #require(images.elements.first { $0["name"]?.string == "core" })
        #expect(core["checked"]?.string == "at read")
        let digest = try #require(core["layers"]?.elements.first?.string).dropFirst(7)
        let layer = "\(martlet.root)/layers/\(digest).erofs"
        let place = try await place(of: Self.file, in: layer)
        try flip(layer, at: place)

        // Nothing of it is read by a start, so that it is found later or never.
        let start = try await martlet("start", "guest")
        try #require(start.exit == .code(0), "\(start.text)\(start.errorText)\(martlet.traces())")
        let other = try await martlet.inGuest("sha256sum </usr/share/common-licenses/GPL-2")
        let read = try await martlet("exec", "guest", "--", "cat", Self.file)
        #expect(read.exit != .code(0))
        // The first block is the changed one: nothing of the file comes through.
        #expect(!read.text.contains("GNU"), "\(read.text.prefix(200))")
        try await martlet.untilFailed()
        let console = try Files.readText(martlet.root + "/vms/guest/logs/console.log")
        #expect(console.contains("dm-verity device corrupted"), "\(martlet.traces())")
        let listed = try await martlet.listed()
        #expect(listed["state"]?.string == "failed", "\(listed)")
        let reason = listed["reason"]?.string ?? ""
        #expect(reason.hasPrefix("a layer of its image is damaged"), "\(listed)")

        let refused = try await martlet("start", "guest")
        #expect(refused.exit == .code(1))
        #expect(refused.errorText.contains("\(layer) is damaged"), "\(refused.errorText)")

        try flip(layer, at: place)
        let again = try await martlet("start", "guest")
        try #require(again.exit == .code(0), "\(again.errorText)\(martlet.traces())")
        let whole = try await martlet("exec", "guest", "--", "cat", Self.file)
        #expect(whole.text.contains("GNU GENERAL PUBLIC LICENSE"))
        let same = try await martlet.inGuest("sha256sum </usr/share/common-licenses/GPL-2")
        #expect(same == other)
    }

    /// Where in a layer the first block of a file is.
    private func place(of file: String, in layer: String) async throws -> Int64 {
        let dump = try #require(findProgram("dump.erofs"))
        let output = try await Program(dump, ["-e", "--path=\(file)", layer]).capture()
        // "   0:        0..   12345 |   12345 :    4096..   8192 |    4096"
        let line = output.text.split(separator: "\n").first { $0.contains("..") }
        let physical = try #require(line?.split(separator: ":").last, "\(output.text)")
        let start = physical.split(separator: ".").first.map { $0.filter(\.isNumber) }
        return try #require(start.flatMap { Int64($0) }, "\(output.text)") + 100
    }

    private func flip(_ path: String, at place: Int64) throws {
        let file = try Descriptor.open(path, O_RDWR)
        var byte: UInt8 = 0
        try #require(pread(file.raw, &byte, 1, off_t(place)) == 1)
        byte ^= 0x04
        try #require(pwrite(file.raw, &byte, 1, off_t(place)) == 1)
    }
}
