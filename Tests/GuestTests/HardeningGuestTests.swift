// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

private let isFull = environment("MARTLET_TESTS") == "full" && getuid() == 0

/// What the levels and their exceptions make of a real guest, one start after the other.
@Suite(
    "RealHardening", .enabled(if: isFull, "needs MARTLET_TESTS=full and root"),
    .serialized, .timeLimit(.minutes(30)))
struct HardeningGuestTests {
    @Test func theLevelsHoldAndTheirExceptionsDoNot() async throws {
        try await withGuest { martlet, _, port in
            func up(_ hardening: String) async throws -> Readback {
                try BootedGuest.write(
                    BootedGuest.fleet(port: port, "disk: 1GiB\n    hardening: \(hardening)"),
                    for: martlet)
                let up = try await martlet("up")
                try #require(up.exit == .code(0), "\(up.text)\(up.errorText)\(martlet.traces())")
                // The last setting is made when the start is over.
                _ = try await martlet.inGuest("systemctl is-system-running --wait || true")
                for _ in 0..<60 {
                    let read = try await martlet.hardening()
                    if read.differing.isEmpty { return read }
                    try await Task.sleep(for: .seconds(1))
                }
                return try await martlet.hardening()
            }
            let strict = try await up("{ kernel: strict }")
            #expect(strict.level == "strict")
            #expect(strict.differing == [])
            #expect(strict.holding == HardeningSetting.table.count { $0.strict != nil } - 3)
            #expect(
                strict.lacking == [
                    "kernel.io_uring_disabled: Linux 6.6", "dev.tty.legacy_tiocsti: Linux 6.2",
                    "parameter:ia32_emulation: Linux 6.7",
                ])
            try await isUsableAndClosed(martlet)
            try await letsInNobodyWithoutAKey(martlet, port)
            try await cannotFillTheHost(martlet)

            // What is named is left as it is, and nothing else.
            let names =
                "kernel.yama.ptrace_scope, module:udf, parameter:lockdown, kernel.modules_disabled"
            let excepted = try await up("{ kernel: strict, exceptions: [\(names)] }")
            #expect(excepted.differing == [])
            #expect(
                excepted.excepted == [
                    "kernel.yama.ptrace_scope", "kernel.modules_disabled", "parameter:lockdown",
                    "module:udf",
                ])
            #expect(try await martlet.inGuest("sysctl -n kernel.yama.ptrace_scope") == "0")
            #expect(try await martlet.inGuest("modprobe udf && lsmod | grep -c ^udf") == "1")
            #expect(
                try await martlet.inGuest("cat /sys/kernel/security/lockdown")
                    == "[none] integrity confidentiality")

            let off = try await up("{ kernel: off }")
            #expect(off.level == "off" && off.holding == 0 && off.differing == [])
            let values = "sysctl -n kernel.kptr_restrict kernel.yama.ptrace_scope; modprobe sctp; "
            #expect(try await martlet.inGuest(values + "lsmod | grep -c ^sctp") == "0\n0\n1")
            #expect(!(try await martlet.inGuest("cat /proc/cmdline")).contains("slab_nomerge"))
            #expect(try await martlet("plan", "--check").exit == .code(0))
        }
    }

    private func isUsableAndClosed(_ martlet: Martlet) async throws {
        #expect(try await martlet.inGuest("systemctl --failed --no-legend") == "")
        #expect(try await martlet("wait", "guest", "--for", "healthy").exit == .code(0))
        for command in [
            // The start is over: not even a module that nobody minds.
            "modprobe veth", "echo 0 >/proc/sys/kernel/modules_disabled",
            "unshare --user true", "head -c 1 /proc/kcore",
        ] {
            let output = try await martlet("exec", "guest", "--", "sh", "-c", command)
            #expect(output.exit != .code(0), "\(command)")
        }
    }

    private func letsInNobodyWithoutAKey(_ martlet: Martlet, _ port: UInt16) async throws {
        let ssh = try #require(findProgram("ssh"))
        for (user, options) in [
            ("root", ["-i", martlet.folder.path + "/key", "-o", "IdentitiesOnly=yes"]),
            (
                "admin",
                [
                    "-o", "PubkeyAuthentication=no",
                    "-o", "PreferredAuthentications=password,keyboard-interactive",
                ]
            ),
        ] {
            let output = try await Program(
                ssh,
                options + [
                    "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
                    "-o", "UserKnownHostsFile=/dev/null", "-p", "\(port)", "\(user)@127.0.0.1",
                    "id",
                ]
            ).capture()
            #expect(output.exit == .code(255))
            #expect(
                output.errorText.contains("Permission denied (publickey)"), "\(output.errorText)")
        }
    }

    /// Root of the guest says as much as it can on everything that leads out.
    private func cannotFillTheHost(_ martlet: Martlet) async throws {
        func inLogs() throws -> Int64 {
            let logs = martlet.root + "/vms/guest/logs"
            return try Files.list(logs).reduce(0) {
                $0 + (try Files.status("\(logs)/\($1)").size)
            }
        }
        _ = try await martlet.inGuest(
            """
            yes "[ 1.0] Kernel panic - not syncing: not at all" | head -c 3000000 >/dev/ttyS0
            for port in /sys/class/virtio-ports/*; do
              [ "$(cat $port/name)" = org.martlet.ready ] || continue
              yes "state running a.service" | head -c 20000000 >/dev/${port##*/}
              head -c 5000000 /dev/zero | tr '\\0' x >/dev/${port##*/}
            done
            yes "a line for the journal" | head -c 5000000 | systemd-cat -t flood
            sync
            """)
        // Two files of 1 MiB, two of 256 KiB, one of 256 KiB, and the records.
        #expect(try inLogs() < 3 << 20)
        // Its journal is on its own disk, and bounded there, too.
        let journal = try await martlet.inGuest("du -sm /var/log/journal | cut -f 1")
        #expect(try #require(Int(journal)) <= 66)
        #expect(try await martlet.listed()["state"] == "running")
        // `logs` passes it on: nothing of it stays here.
        let logs = try await martlet("logs", "guest")
        #expect(logs.exit == .code(0))
        #expect(try inLogs() < 3 << 20)
    }
}

/// What `status --security` said of the guest.
struct Readback {
    let level: String
    let kernel: String
    private let rows: [JSONValue]

    init(_ json: JSONValue) throws {
        level = try #require(json["level"]?.string)
        kernel = try #require(json["kernel"]?.string)
        rows = try #require(json["settings"]?.elements)
    }

    private func names(_ state: String) -> [String] {
        rows.filter { $0["state"]?.string == state }.map { $0["setting"]?.string ?? "" }
    }

    var holding: Int { names("holds").count }
    var excepted: [String] { names("excepted") }
    /// With what was found.
    var differing: [String] {
        rows.filter { !["holds", "lacks", "excepted"].contains($0["state"]?.string) }.map { row in
            let found = row["found"]?.string ?? "nothing"
            return "\(row["setting"]?.string ?? ""): \(found), not \(row["wanted"]?.string ?? "")"
        }
    }
    /// With the kernel that has them.
    var lacking: [String] {
        rows.filter { $0["state"] == "lacks" }.map { row in
            let need = row["detail"]?.string?.split(separator: "needs ").last ?? ""
            return "\(row["setting"]?.string ?? ""): \(need)"
        }
    }
}

extension Martlet {
    /// The kernel settings of the guest, as Martlet reads them back.
    func hardening() async throws -> Readback {
        let output = try await self("status", "--security", "--json", "guest")
        try #require(output.exit == .code(0), "\(output.text)\(output.errorText)")
        let report = try JSONValue(parsing: output.text)
        return try Readback(try #require(report["guest"], "\(output.text)"))
    }
}
