// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

private let isFull = environment("MARTLET_TESTS") == "full" && getuid() == 0

/// A guest that may change its system, and keeps the image that it was made with.
@Suite(
    "RealModes", .enabled(if: isFull, "needs MARTLET_TESTS=full and root"),
    .serialized, .timeLimit(.minutes(30)))
struct ModeTests {
    @Test func aMutableGuestIsItsOwn() async throws {
        try await withGuest { martlet, _, port in
            func declare(_ mode: String, image: String = "core", _ more: String = "") throws {
                let keys = "disk: 1GiB\n    mode: \(mode)\n    image: \(image)\n    \(more)"
                try BootedGuest.write(BootedGuest.fleet(port: port, keys), for: martlet)
            }
            func up() async throws {
                let up = try await martlet("up")
                try #require(up.exit == .code(0), "\(up.text)\(up.errorText)\(martlet.traces())")
            }
            try declare("mutable", "users: [{ name: alice, sudo: true }]")
            try await up()
            try await makePackage(martlet)
            _ = try await martlet("cp", "hello.deb", "guest:/root/hello.deb")
            _ = try await martlet.inGuest(
                "dpkg -i /root/hello.deb && echo evil >/etc/hostname && userdel alice && "
                    + "echo 11111111111111111111111111111111 >/etc/machine-id && sync")
            let packages = "dpkg-query -W -f '${db:Status-Abbrev}' hello; id -un hellod"

            // The fleet's accounts and the identity are as declared, all else is the guest's.
            #expect(try await martlet("restart", "guest").exit == .code(0))
            #expect(try await martlet.inGuest(packages) == "ii hellod")
            #expect(try await martlet.inGuest("hostname; id -un alice") == "guest\nalice")
            #expect(
                try await martlet.inGuest("cat /etc/machine-id")
                    == Files.readText(martlet.root + "/vms/guest/identity/machine-id").trimmed)

            // Another image is not taken, and the plan says why.
            let second = "{ from: core, files: { /etc/second: two } }"
            try declare("mutable", image: second)
            #expect(try await martlet("build").exit == .code(0))
            let plan = try await martlet("plan", "--json")
            let json = try JSONValue(parsing: plan.text)
            #expect(json["notes"]?.elements.first?["text"]?.string?.contains("keeps") == true)
            try await up()
            #expect(
                try await martlet.inGuest(packages + "; ls /etc/second 2>&1 | wc -l")
                    == "ii hellod\n1")
            #expect(try await martlet("plan", "--check").exit == .code(0))

            // Immutable again it is the image alone; what was written waits for another change.
            try declare("immutable", image: second)
            try await up()
            #expect(
                try await martlet.inGuest("cat /etc/second; echo; id hellod 2>&1 | wc -l")
                    == "two\n1")
            try declare("mutable", image: second)
            let refused = try await martlet("up")
            #expect(refused.exit != .code(0))
            let said = refused.text + refused.errorText
            #expect(said.contains("what was written to the system belongs to the image"))
            #expect(said.contains("martlet recreate"), "\(said)")

            // Fresh disks, and with them the new image.
            #expect(try await martlet("recreate", "guest", "--yes").exit == .code(0))
            try await up()
            #expect(
                try await martlet.inGuest("cat /etc/second; echo; id hellod 2>&1 | wc -l")
                    == "two\n1")
        }
    }
}
