// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

/// One real VM that the tests of a suite share: booting is what takes time.
struct BootedGuest: SuiteTrait, TestScoping {
    @TaskLocal static var martlet: Martlet?
    /// The port of the host that leads to the guest's sshd.
    @TaskLocal static var port: UInt16 = 0

    /// Its times are long: it shares two emulated cores with all other tests.
    static func fleet(port: UInt16, _ keys: String = "disk: 1GiB") -> String {
        """
        fleet: tests
        secrets:
          made: { generate: hex32 }
        vms:
          guest:
            vcpu: 2
            memory: 384MiB
            ports: ["127.0.0.1:\(port):22"]
            boot: { deadline: 3m }
            health: { exec: "true", interval: 2s, timeout: 10s, retries: 30, startup: 3m }
            ssh: { authorizedKeys: ["KEY"] }
            credentials: { made: { secret: made } }
            \(keys)
        """
    }

    func provideScope(
        for test: Test, testCase: Test.Case?,
        performing function: @concurrent @Sendable () async throws -> Void
    ) async throws {
        guard test.isSuite else { return try await function() }
        let port = try freePort()
        let martlet = try await BootedGuest.make(port)
        let result: Result<Void, any Error>
        do {
            let up = try await martlet("up")
            try #require(up.exit == .code(0), "\(up.text)\(up.errorText)\(martlet.traces())")
            try await BootedGuest.$martlet.withValue(martlet) {
                try await BootedGuest.$port.withValue(port) { try await function() }
            }
            result = .success(())
        } catch {
            result = .failure(error)
        }
        _ = try await martlet("kill", "guest")
        _ = try await martlet("purge", "guest", "--yes")
        try result.get()
    }

    /// A ROOT of its own over the images that all tests share.
    static func make(_ port: UInt16) async throws -> Martlet {
        let martlet = try Martlet()
        try martlet.shareImages()
        let keygen = try #require(findProgram("ssh-keygen"))
        let key = martlet.folder.path + "/key"
        let made = try await Program(keygen, ["-q", "-t", "ed25519", "-N", "", "-f", key]).capture()
        try #require(made.exit.isSuccess, "\(made.errorText)")
        try BootedGuest.write(BootedGuest.fleet(port: port), for: martlet)
        return martlet
    }

    /// Writes a fleet file whose guest lets the test's own key in.
    static func write(_ fleet: String, for martlet: Martlet) throws {
        let key = try Files.readText(martlet.folder.path + "/key.pub")
        try martlet.write(
            fleet: fleet.replacing("KEY", with: String(key.prefix { $0 != "\n" })))
    }
}

extension Martlet {
    /// Runs a shell command in the guest as root and returns what it printed.
    func inGuest(_ command: String) async throws -> String {
        let output = try await self("exec", "guest", "--", "sh", "-c", command)
        #expect(output.exit == .code(0), "\(command): \(output.errorText)")
        return output.text.trimmed
    }

    /// What a guest that did not come up left behind.
    func traces() -> String {
        let logs = root + "/vms/guest/logs/"
        return ["events.jsonl", "supervisor.log", "console.log"].map { name in
            let text = (try? Files.readText(logs + name)) ?? "none"
            return "\n\(name): \(text.suffix(3000))"
        }.joined()
    }

    /// The guest's object of `list --json`.
    func listed() async throws -> JSONValue {
        let output = try await self("list", "--json")
        let all = try JSONValue(parsing: output.text)
        return try #require(all.elements.first { $0["name"]?.string == "guest" })
    }
}

extension Martlet {
    /// Waits for the guest to be reported as failed, a minute at most.
    func untilFailed() async throws {
        for _ in 0..<240 {
            if try await listed()["state"]?.string == "failed" { return }
            try await Task.sleep(for: .milliseconds(250))
        }
        Issue.record("the guest did not fail: \(try await listed())")
    }
}

extension String {
    var trimmed: String {
        String(drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed())
    }
}
