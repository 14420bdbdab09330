// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

private let isFull = environment("MARTLET_TESTS") == "full" && getuid() == 0

/// Real guests that boot from what was restored and cloned.
@Suite(
    "RealSnapshots", .enabled(if: isFull, "needs MARTLET_TESTS=full and root"), BootedGuest(),
    .serialized, .timeLimit(.minutes(30)))
struct SnapshotGuestTests {
    let martlet: Martlet

    init() throws { martlet = try #require(BootedGuest.martlet) }

    private func must(_ words: String...) async throws -> Output {
        let output = try await martlet.program(words).capture()
        #expect(output.exit == .code(0), "\(words): \(output.text)\(output.errorText)")
        return output
    }

    private func inside(_ name: String, _ command: String) async throws -> String {
        try await must("exec", name, "--", "sh", "-c", command).text.trimmed
    }

    /// What tells a guest from others.
    private func identity(_ name: String) async throws -> [String] {
        try await inside(
            name,
            "cat /etc/machine-id; hostname; cat /sys/class/net/e*/address; "
                + "cat /sys/class/dmi/id/product_uuid; "
                + "sshd -T 2>/dev/null | awk '/^hostkey /{print $2}' | "
                + "while read k; do ssh-keygen -lf $k; done"
        ).split(separator: "\n").map(String.init)
    }

    @Test func oldDataIsBackAndCopiesAreOthers() async throws {
        _ = try await inside("guest", "echo then >/var/lib/kept; echo mine >/home/admin/file; sync")
        let made = try await must("snapshot", "create", "guest", "one")
        #expect(made.text.contains("were frozen"))
        _ = try await inside("guest", "echo now >/var/lib/kept; rm /home/admin/file; sync")
        let before = try await identity("guest")
        #expect(before.count >= 5)

        _ = try await must("snapshot", "restore", "guest", "one")
        #expect(try await inside("guest", "cat /var/lib/kept /home/admin/file") == "then\nmine")
        #expect(try await identity("guest") == before)

        _ = try await inside("guest", "echo later >/var/lib/kept; sync")
        _ = try await must("snapshot", "restore", "guest", "one", "--as", "then")
        _ = try await must("clone", "guest", "copy")
        for (name, kept) in [("then", "then"), ("copy", "later")] {
            _ = try await must("start", name)
            #expect(try await inside(name, "cat /var/lib/kept") == kept)
            let other = try await identity(name)
            #expect(other.count == before.count)
            for (one, two) in zip(before, other) { #expect(one != two, "\(name)") }
            #expect(try await inside(name, "hostname") == name)
            _ = try await must("stop", name)
            _ = try await must("purge", name, "--yes")
        }
        #expect(try await inside("guest", "cat /var/lib/kept") == "later")
    }
}
