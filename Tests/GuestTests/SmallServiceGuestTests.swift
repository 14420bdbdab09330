// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// Services that cost little to build and to boot, for every run of the tests.
@Suite(
    "RealSmallService", .enabled(if: getuid() == 0, "building images needs root"),
    .serialized, .timeLimit(.minutes(20)))
struct SmallServiceGuestTests {
    /// The way of a service that is shipped as an archive, from a server of this host: what is not
    /// the file that was meant is refused, and what is runs in its sandbox.
    @Test func archive() async throws {
        let made = try MadeUpService()
        defer { made.server.stop() }
        let health = MadeUpService.health
        try await ServiceGuest.with("shelf", forward: 8080, health: health) { guest in
            try await refuses(guest, made)
            let bytes = try await made.pack("1.0")
            try guest.write(entry: made.entry("1.0", SHA256.hex(bytes)))
            try await guest.up()
            let key = try await guest.secret("api-key")
            let answer = try await guest.page("/api?add=first&apikey=\(key)")
            #expect(answer.contains(" 200 OK") && answer.contains("\r\n\r\nShelf 1.0\nfirst\n"))
            #expect(try await guest.page("/api?apikey=x\(key)").contains(" 401 "))
            let settings = try await guest.martlet.inGuest(
                "systemctl show shelf -P User -P ProtectSystem -P MemoryDenyWriteExecute; "
                    + "stat -c '%U %a %n' /opt/shelf/* /var/lib/shelf/words")
            #expect(
                settings == """
                    shelf
                    strict
                    yes
                    root 755 /opt/shelf/Shelf
                    root 644 /opt/shelf/version
                    shelf 600 /var/lib/shelf/words
                    """)
            #expect(try await guest.martlet("plan", "--check").exit == .code(0))
        }
    }

    /// Another file, one that is cut off, and one whose entry leads out of it.
    private func refuses(_ guest: ServiceGuest, _ made: MadeUpService) async throws {
        func refusal(_ bytes: [UInt8], _ digest: String? = nil) async throws -> String {
            made.serve("1.0", bytes)
            try guest.write(entry: made.entry("1.0", digest ?? SHA256.hex(bytes)))
            let up = try await guest.martlet("up")
            #expect(up.exit == .code(1), "\(up.text)\(up.errorText)")
            #expect(!Files.exists(guest.martlet.root + "/vms/guest"))
            return up.text + up.errorText
        }
        let good = try await made.pack("1.0")
        let cut = Array(good.dropLast(good.count / 2))
        let wanted = SHA256.hex(good)
        var said = try await refusal(cut, wanted)
        #expect(said.contains("its SHA-256 is \(SHA256.hex(cut)), and the recipe"), "\(said)")
        #expect(said.contains("says \(wanted); nothing of it is kept"), "\(said)")
        said = try await refusal(cut)
        #expect(said.contains("shelf-1.0.tar.gz cannot be used: "), "\(said)")
        let evil = try await made.pack(
            "1.0", options: "-P --transform='s,^Shelf/version,../../etc/evil,'")
        said = try await refusal(evil)
        #expect(said.contains("leads out of the archive: '../../etc/evil'"), "\(said)")
        let link = try await made.pack(
            "1.0", options: "--transform='s,^Shelf/version,Shelf/aaa/evil,'",
            script: "ln -s /etc Shelf/aaa")
        said = try await refusal(link)
        #expect(said.contains("leads through a symbolic link"), "\(said)")
    }

    @Test func qbittorrent() async throws {
        let page = "http: \"http://:8080/\""
        try await ServiceGuest.with("qbittorrent", forward: 8080, health: page) { guest in
            try await guest.up()
            try await checkTorrents(guest)
        }
    }

    private func checkTorrents(_ guest: ServiceGuest) async throws {
        let martlet = guest.martlet
        let settings = try await martlet.inGuest(
            "systemctl show qbittorrent -P User -P ProtectSystem -P MemoryDenyWriteExecute")
        #expect(settings == "qbittorrent\nstrict\nyes")

        // The page answers through the forward, and to the password that was made for this VM.
        #expect(try await guest.page("/").contains(" 200 "))
        let torrents = Torrents(guest: guest)
        let password = try await guest.secret("web-password")
        #expect(password.utf8.count == 24)
        #expect(try await torrents.logIn(password).contains("\r\n\r\nOk."))
        #expect(!(try await torrents.logIn("x" + password).contains("\r\n\r\nOk.")))

        // What it keeps is on the data volume, and it has no more than it needs.
        let file = "/var/lib/qbittorrent/qBittorrent/config/qBittorrent.conf"
        #expect(
            try await martlet.inGuest("stat -c '%U' \(file); grep -c PBKDF2 \(file)")
                == "qbittorrent\n1")
        let places = "/etc /usr/lib/martlet /var/log /proc/[0-9]*/cmdline /proc/[0-9]*/environ"
        let leaks = try await martlet(
            "exec", "guest", "--", "sh", "-c", "grep -rlf - \(places) 2>/dev/null; echo end",
            input: Array(password.utf8))
        #expect(leaks.text == "end\n")

        // Started anew it takes the same password, and the plan has nothing to do.
        _ = try await martlet.inGuest("systemctl restart qbittorrent")
        var answer = ""
        for _ in 0..<60 where !answer.contains("\r\n\r\nOk.") {
            answer = try await torrents.logIn(password)
            try await Task.sleep(for: .seconds(2))
        }
        #expect(answer.contains("\r\n\r\nOk."), "\(answer)")
        #expect(try await martlet("plan", "--check").exit == .code(0))
    }
}

/// What qBittorrent is told by its page.
struct Torrents {
    let guest: ServiceGuest
    private var jar: String { guest.martlet.folder.path + "/cookies" }

    func logIn(_ password: String) async throws -> String {
        try await guest.page(
            "/api/v2/auth/login", "-c", jar, "-d", "username=admin&password=\(password)")
    }

    /// Adds a torrent that is known by its digest alone, and asks nobody.
    func add(_ name: String) async throws -> String {
        let digest = String(SHA256.hex(name.utf8).prefix(40))
        return try await guest.page(
            "/api/v2/torrents/add", "-b", jar,
            "--data-urlencode", "urls=magnet:?xt=urn:btih:\(digest)&dn=\(name)")
    }

    /// The list of them, in JSON.
    func list() async throws -> String {
        try await guest.page("/api/v2/torrents/info", "-b", jar)
    }
}
