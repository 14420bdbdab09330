// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// Volumes of every kind in a real guest, whose system can be written to until its image changes.
///
/// What takes long: `make test-full` alone runs it.
@Suite(
    "RealVolumes",
    .enabled(
        if: environment("MARTLET_TESTS") == "full" && getuid() == 0,
        "needs MARTLET_TESTS=full and root"),
    .serialized, .timeLimit(.minutes(20)))
struct VolumeGuestTests {
    /// One test, for each step stands on the one before, and each boot takes seconds.
    @Test func whatIsWrittenIsWhereItWasDeclared() async throws {
        try await withGuest { martlet, device, port in
            var volumes = Volumes(device: device)
            try BootedGuest.write(volumes.fleet(port), for: martlet)
            try await up(martlet)
            let types = "stat -f -c %T /srv/cache '/srv/my tree' /srv/pool /mnt/stick /srv/tank"
            let found = try await martlet.inGuest(types)
            #expect(found == "ext2/ext3\nxfs\nbtrfs\nmsdos\next2/ext3")
            #expect(
                try await martlet.inGuest("stat -c '%U %a' /srv/cache '/srv/my tree' /srv/pool")
                    == "root 755\nroot 755\nroot 755")
            #expect(
                try await martlet.inGuest("touch /srv/fixed/x 2>&1 || true").contains("Read-only"))
            try await write(martlet)
            try await install(martlet)

            // Larger, while it runs.
            let boot = try await martlet.inGuest("cat /proc/sys/kernel/random/boot_id")
            (volumes.disk, volumes.cache, volumes.tree) = ("2GiB", "128MiB", "512MiB")
            try BootedGuest.write(volumes.fleet(port), for: martlet)
            let plan = try JSONValue(parsing: try await martlet("plan", "--json").text)
            let changes = try #require(plan["changes"]?.elements)
            #expect(changes.count == 3 && changes.allSatisfy { $0["consequence"] == "live" })
            try await up(martlet)
            try await expectSizes(martlet, [1_900, 110, 440])
            #expect(try await martlet.inGuest("cat /proc/sys/kernel/random/boot_id") == boot)

            // Larger at the next start, in another order, with another image below.
            (volumes.disk, volumes.cache, volumes.tree) = ("3GiB", "192MiB", "640MiB")
            volumes.isReversed = true
            volumes.image = "{ from: core, files: { /etc/second: two } }"
            try BootedGuest.write(volumes.fleet(port), for: martlet)
            try await up(martlet)
            try await expectSizes(martlet, [2_900, 170, 560])
            for path in Volumes.writable {
                #expect(try await martlet.inGuest("cat '\(path)/mark'") == path)
            }
            // What was written to the system went with the old image; /var is data.
            let after = """
                cat /etc/second; echo; dpkg-query -W hello >/dev/null 2>&1 || echo unknown
                test -e /usr/share/hello || echo gone; getent passwd hellod || echo nobody
                ls /etc/issue; cat /var/lib/hello
                """
            let left = try await martlet.inGuest(after)
            #expect(
                left == "two\nunknown\ngone\nnobody\n/etc/issue\ndone")
        }
    }

    private func up(_ martlet: Martlet) async throws {
        let up = try await martlet("up")
        try #require(up.exit == .code(0), "\(up.text)\(up.errorText)\(martlet.traces())")
        let plan = try await martlet("plan", "--check")
        #expect(plan.exit == .code(0), "\(up.text)\(plan.text)\(plan.errorText)")
        // Logins are served before everything is mounted.
        #expect(try await martlet.inGuest("systemctl is-system-running --wait") == "running")
    }

    private func write(_ martlet: Martlet) async throws {
        for path in Volumes.writable {
            _ = try await martlet.inGuest("echo '\(path)' >'\(path)/mark'")
        }
    }

    /// Installs a package, as people do: it brings an account and a file in /var.
    private func install(_ martlet: Martlet) async throws {
        try await makePackage(martlet)
        #expect(try await martlet("cp", "hello.deb", "guest:/root/hello.deb").exit == .code(0))
        #expect(
            try await martlet.inGuest(
                "dpkg -i /root/hello.deb >&2 && rm /etc/issue && cat /usr/share/hello && "
                    + "dpkg-query -W -f '${db:Status-Abbrev}' hello && id -un hellod && sync")
                == "world\nii hellod")
    }

    /// At least so many mebibytes.
    private func expectSizes(_ martlet: Martlet, _ least: [Int]) async throws {
        let text = try await martlet.inGuest(
            "for i in /var /srv/cache '/srv/my tree'; do echo $(($(stat -f -c '%b * %S' \"$i\") >> 20)); done"
        )
        let sizes = text.split(separator: "\n").compactMap { Int($0) }
        #expect(zip(sizes, least).allSatisfy(>=) && sizes.count == 3, "\(sizes)")
    }
}

/// A package that the guest can install without a network.
func makePackage(_ martlet: Martlet) async throws {
    let folder = martlet.folder.path + "/package"
    try Files.makeFolder(folder + "/DEBIAN")
    try Files.makeFolder(folder + "/usr/share")
    try Files.write(
        folder + "/DEBIAN/control",
        "Package: hello\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\n"
            + "Description: a test\n", mode: 0o644)
    try Files.write(
        folder + "/DEBIAN/postinst",
        "#!/bin/sh\nid hellod 2>&- || useradd -r hellod\necho done >/var/lib/hello\n", mode: 0o755)
    try Files.write(folder + "/usr/share/hello", "world\n", mode: 0o644)
    let build = Program(
        try #require(findProgram("dpkg-deb")),
        ["--root-owner-group", "-b", folder, martlet.folder.path + "/hello.deb"])
    let output = try await build.capture()
    #expect(output.exit.isSuccess, "\(output.errorText)")
}

/// Runs a test with a world and a blank device of its own, and takes both away.
func withGuest(
    _ body: (_ martlet: Martlet, _ device: String, _ port: UInt16) async throws -> Void
) async throws {
    let port = try freePort()
    let martlet = try await BootedGuest.make(port)
    let file = martlet.folder.path + "/device"
    try Files.makeSparse(file, bytes: 64 << 20)
    let losetup = try #require(findProgram("losetup"))
    let made = try await Program(losetup, ["--find", "--show", file]).capture()
    try #require(made.exit.isSuccess, "\(made.errorText)")
    let device = made.text.trimmed
    let result: Result<Void, any Error>
    do {
        try await body(martlet, device, port)
        result = .success(())
    } catch {
        result = .failure(error)
    }
    _ = try await martlet("kill", "guest")
    _ = try await martlet("purge", "guest", "--yes")
    _ = try await Program(losetup, ["-d", device]).capture()
    try result.get()
}

/// The volumes of the test's guest.
private struct Volumes {
    let device: String
    var disk = "1GiB"
    var cache = "64MiB"
    var tree = "320MiB"
    var image = "core"
    var isReversed = false

    static let writable = ["/srv/cache", "/srv/my tree", "/srv/pool", "/mnt/stick", "/srv/tank"]

    func fleet(_ port: UInt16) -> String {
        var volumes = [
            "{ name: cache, size: \(cache), mount: /srv/cache }",
            "{ name: tree, size: \(tree), mount: /srv/my tree, filesystem: xfs, format: raw }",
            "{ name: pool, size: 256MiB, mount: /srv/pool, filesystem: btrfs }",
            "{ name: stick, size: 32MiB, mount: /mnt/stick, filesystem: vfat }",
            "{ name: fixed, size: 16MiB, mount: /srv/fixed, readOnly: true }",
            "{ name: tank, device: \(device), mount: /srv/tank }",
        ]
        if isReversed { volumes.reverse() }
        return BootedGuest.fleet(
            port: port,
            "disk: \(disk)\n    mode: overlay\n    image: \(image)\n    volumes: ["
                + volumes.joined(separator: ", ") + "]")
    }
}
