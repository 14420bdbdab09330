// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// What a service is given stays with it: over another image, the way back, and a backup into which
/// a VM that was purged is put again.
@Suite(
    "RealServiceDrill",
    .enabled(
        if: environment("MARTLET_TESTS") == "full" && getuid() == 0,
        "needs MARTLET_TESTS=full and root"),
    .serialized, .timeLimit(.minutes(120)))
struct DrillServiceGuestTests {
    /// How one service is told to keep a word, and whether it shows it.
    private struct Keeper {
        let keep: (String) async throws -> Void
        let shows: (String) async throws -> Bool
    }

    @Test func qbittorrent() async throws {
        let first = try repositoryFile("catalogue/qbittorrent.yaml")
        let page = "http: \"http://:8080/\""
        try await drill("qbittorrent", 8080, page, "", first, Self.marked(first)) { guest in
            let torrents = Torrents(guest: guest)
            func enter() async throws {
                let said = try await torrents.logIn(try await guest.secret("web-password"))
                try #require(said.contains("\r\n\r\nOk."), "\(said)")
            }
            return Keeper(
                keep: { word in
                    try await enter()
                    #expect(try await torrents.add(word).contains("\r\n\r\nOk."))
                },
                shows: { word in
                    try await enter()
                    return try await torrents.list().contains("\"name\":\"\(word)\"")
                })
        }
    }

    @Test func matrixSynapse() async throws {
        let first = try repositoryFile("catalogue/matrix-synapse.yaml")
        let keys = "memory: 1GiB\n    with: { serverName: chat.example.org }"
        let health = "http: \"http://:8008/health\""
        try await drill("matrix-synapse", 8008, health, keys, first, Self.marked(first)) { guest in
            let chat = Chat(guest: guest)
            return Keeper(
                keep: { try await chat.makeAccount($0, "a-password-of-\($0)") },
                shows: { word in
                    try await chat.logIn(word, "a-password-of-\(word)")
                        .contains("@\(word):chat.example.org")
                })
        }
    }

    /// Another version of its program, from another archive.
    @Test func archive() async throws {
        let made = try MadeUpService()
        defer { made.server.stop() }
        let first = made.entry("1.0", SHA256.hex(try await made.pack("1.0")))
        let second = made.entry("2.0", SHA256.hex(try await made.pack("2.0")))
        try await drill("shelf", 8080, MadeUpService.health, "", first, second) { guest in
            func ask(_ more: String) async throws -> String {
                try await guest.page("/api?apikey=\(try await guest.secret("api-key"))\(more)")
            }
            return Keeper(
                keep: { word in
                    let said = try await ask("&add=\(word)")
                    #expect(said.contains(" 200 OK"), "\(said)")
                },
                shows: { word in try await ask("").contains("\n\(word)\n") })
        }
    }

    /// The entry with an image that differs.
    private static func marked(_ entry: String) -> String {
        entry.replacing("\n  files:\n", with: "\n  files:\n    /etc/drill: two\n")
    }

    private func drill(
        _ id: String, _ forward: Int, _ health: String, _ keys: String, _ first: String,
        _ second: String, _ keeper: (ServiceGuest) throws -> Keeper
    ) async throws {
        try #require(first != second)
        let sealer = try await Sealer()
        let backups =
            "backups: { encrypt: [\(sealer.recipient)], identity: \(sealer.identity) }\n    \(keys)"
        try await ServiceGuest.with(id, forward: forward, health: health, backups) { guest in
            let service = try keeper(guest)
            func expectWords(_ words: String..., at point: String) async throws {
                for word in words {
                    var isThere = false
                    // The page is there some time before what it shows is.
                    for _ in 0..<15 where !isThere {
                        isThere = try await service.shows(word)
                        if !isThere { try await Task.sleep(for: .seconds(2)) }
                    }
                    #expect(isThere, "\(id) \(point): \(word)")
                }
            }
            func image() async throws -> JSONValue? {
                try await guest.martlet.listed()["imageDigest"]
            }

            try guest.write(entry: first)
            try await guest.up()
            let old = try await image()
            try await service.keep("one")
            try await expectWords("one", at: "at first")

            try guest.write(entry: second)
            let upgrade = try await guest.must("up")
            #expect(upgrade.contains("upgraded from"), "\(upgrade)")
            try await guest.isHealthy()
            #expect(try await image() != old)
            try await expectWords("one", at: "upgraded")
            try await service.keep("two")

            try await guest.must("rollback", "guest")
            try await guest.isHealthy()
            #expect(try await image() == old)
            try await expectWords("one", "two", at: "rolled back")
            try await service.keep("three")
            try await expectWords("three", at: "rolled back")

            // Its secrets go with it, and come back with it.
            let made = try await guest.must("backup", "create", "guest")
            try await guest.must("kill", "guest")
            try await guest.must("purge", "guest", "--yes")
            #expect(!Files.exists(guest.martlet.root + "/vms/guest"), "\(made)")
            try await guest.must("backup", "restore", "guest")
            try await guest.must("start", "guest")
            try await guest.isHealthy()
            try await expectWords("one", "two", "three", at: "restored")
        }
    }
}

/// A file of the repository.
private func repositoryFile(_ path: String) throws -> String {
    try Files.readText(Files.parent(Files.parent(Files.parent(#filePath))) + "/" + path)
}
