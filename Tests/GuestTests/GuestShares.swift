// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// Two folders of the host in a real guest, by the virtiofsd of this host.
struct GuestShares {
    let martlet: Martlet
    private let folder: String

    /// Makes them, with a file that is not the guest's beside them.
    init(_ martlet: Martlet) throws {
        self.martlet = martlet
        folder = martlet.folder.path + "/shared"
        for name in ["rw", "ro"] { try Files.makeFolder("\(folder)/\(name)") }
        try Files.write("\(folder)/secret", "of the host\n")
        try Files.write("\(folder)/ro/file", "read me\n", mode: 0o644)
        try Files.write("\(folder)/rw/from-host", "host\n")
        try Files.setOwner("\(folder)/rw/from-host", user: 1234, group: 4321)
        try Files.link("\(folder)/secret", at: "\(folder)/rw/absolute")
        try Files.link("../secret", at: "\(folder)/rw/relative")
    }

    /// Members of `shares`.
    var declaration: String {
        "{ source: ./shared/rw, mount: /srv/rw }, "
            + "{ source: ./shared/ro, mount: /var/lib/ro, readOnly: true }, "
            + "{ source: ./shared/made, mount: '/mnt/with space', tag: made, create: {} }"
    }

    private var daemons: [Int32] {
        ((try? Files.list("/proc")) ?? []).compactMap { Int32($0) }.filter { pid in
            (try? Files.readText("/proc/\(pid)/cmdline"))?
                .contains("source=\(martlet.run)/guest/shares/0") == true
        }
    }

    /// What the guest can do with them, and what it cannot.
    func check() async throws {
        #expect(
            try await martlet.inGuest("findmnt -rn -t virtiofs -o TARGET,OPTIONS | sort")
                == """
                /mnt/with\\x20space rw,nosuid,nodev,relatime
                /srv/rw rw,nosuid,nodev,relatime
                /var/lib/ro ro,nosuid,nodev,relatime
                """)
        #expect(try await martlet.inGuest("systemctl --failed --no-legend") == "")

        // Both ways, and whose it is stays the same.
        let read = "cd /srv/rw && cat from-host && stat -c %u:%g from-host"
        #expect(try await martlet.inGuest(read) == "host\n1234:4321")
        _ = try await martlet.inGuest(
            "cd /srv/rw && echo guest >from-guest && chown 2345:5432 from-guest && sync")
        #expect(try Files.readText("\(folder)/rw/from-guest") == "guest\n")
        #expect(try Files.status("\(folder)/rw/from-guest").owner == 2345)
        _ = try await martlet.inGuest("echo new >'/mnt/with space/file'")
        #expect(try Files.readText("\(folder)/made/file") == "new\n")

        // Read-only is not the guest's to decide.
        let write = "echo x >/var/lib/ro/file || rm /var/lib/ro/file || touch /var/lib/ro/new"
        let refused = try await martlet.inGuest(
            "(\(write)) 2>/dev/null || echo refused; mount -o remount,rw /var/lib/ro; "
                + "findmnt -rn -o OPTIONS /var/lib/ro | cut -d, -f1; (\(write)) 2>&1 || true")
        #expect(refused.hasPrefix("refused\nrw\n"), "\(refused)")
        #expect(refused.contains("Read-only file system"))
        #expect(try Files.list("\(folder)/ro") == ["file"])
        #expect(try Files.readText("\(folder)/ro/file") == "read me\n")

        // A link is followed in the guest and not on the host, and there is nothing above the share.
        let outside = try await martlet.inGuest(
            "cd /srv/rw; cat absolute relative ../secret ../../\(folder)/secret 2>&1 || true")
        #expect(!outside.contains("of the host"), "\(outside)")
        // A device node would be one for the users of the host.
        let node = try await martlet("exec", "guest", "--", "mknod", "/srv/rw/node", "c", "1", "3")
        #expect(node.errorText.contains("Operation not permitted"), "\(node.errorText)")
    }

    /// The guest would wait for ever: it is started again, and has its shares again.
    func killDaemon(
        _ until: (String, () async throws -> Bool) async throws -> Void
    ) async throws {
        // The inner of its two processes serves; the outer one waits for it.
        kill(try #require(daemons.max()), SIGKILL)
        try await until("it is started again for its share") {
            let listed = try await martlet.listed()
            return listed["restarts"] == 1 && listed["state"] == "running"
        }
        _ = try await martlet.inGuest("systemctl start local-fs.target")
        #expect(try await martlet.inGuest("cat /srv/rw/from-guest") == "guest")
        let events = try Files.readText(martlet.root + "/vms/guest/logs/events.jsonl")
        #expect(events.contains("the daemon of the share 'srv-rw' ended"), "\(events)")
    }

    func expectNothing() throws {
        #expect(daemons == [])
        #expect(!(try Files.readText("/proc/self/mounts")).contains(martlet.folder.path))
        #expect(try Files.readText("\(folder)/secret") == "of the host\n")
    }
}
