// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Support
import Testing

/// A VM of a service in a world of its own, with a port of the host that leads into it.
struct ServiceGuest: Sendable {
    let martlet: Martlet
    let port: UInt16
    /// The service's name.
    let id: String
    /// The port in the guest that the host's leads to.
    let forward: Int
    /// The check, as a member of `health`.
    let health: String
    /// Further lines of the VM, and what may follow it.
    var keys = ""

    /// Runs a test with one that is not up yet, and takes it away again.
    static func with(
        _ id: String, forward: Int, health: String, _ keys: String = "",
        _ body: (ServiceGuest) async throws -> Void
    ) async throws {
        let port = try freePort()
        let martlet = try await BootedGuest.make(port)
        let guest = ServiceGuest(
            martlet: martlet, port: port, id: id, forward: forward, health: health, keys: keys)
        let result: Result<Void, any Error>
        do {
            try guest.write()
            try await body(guest)
            result = .success(())
        } catch { result = .failure(error) }
        _ = try await martlet("kill", "guest")
        _ = try await martlet("purge", "guest", "--yes")
        try result.get()
    }

    /// Writes the fleet file.
    ///
    /// Where CPUs are emulated and busy, a service takes longer than a host needs, and must not be
    /// started again for that.
    func write() throws {
        try BootedGuest.write(
            """
            fleet: tests
            vms:
              guest:
                service: \(id)
                disk: 2GiB
                ports: ["127.0.0.1:\(port):\(forward)"]
                boot: { deadline: 5m }
                health: { \(health), interval: 5s, timeout: 20s, retries: 60, startup: 8m }
                ssh: { authorizedKeys: ["KEY"] }
                \(keys)
            """, for: martlet)
    }

    /// What the service brings in a file of the fleet, which takes the place of the program's own.
    func write(entry: String) throws {
        try Files.makeFolder(martlet.folder.path + "/catalogue")
        try Files.write(martlet.folder.path + "/catalogue/\(id).yaml", entry)
    }

    /// Brings it up as it is declared, until its check is green and its whole system runs.
    func up() async throws {
        let up = try await martlet("up")
        try #require(up.exit == .code(0), "\(up.text)\(up.errorText)\(martlet.traces())")
        try await isHealthy()
    }

    func isHealthy() async throws {
        let wait = try await martlet("wait", "guest", "--for", "healthy", "--timeout", "8m")
        if wait.exit != .code(0) {
            let log = try await martlet.inGuest(
                "journalctl -u \(id) --no-pager | tail -n 40; systemctl --failed --no-legend")
            Issue.record("\(wait.errorText)\(log)")
        }
        try #require(wait.exit == .code(0))
        let state = try await martlet.inGuest(
            "systemctl is-system-running --wait; systemctl --failed --no-legend")
        #expect(state == "running")
    }

    /// Runs a verb that has to work, and returns what it printed.
    @discardableResult
    func must(_ words: String...) async throws -> String {
        let output = try await martlet.program(words).capture()
        let said = output.text + output.errorText
        try #require(output.exit == .code(0), "\(words): \(said)\(martlet.traces())")
        return said
    }

    /// What the page says to a request of curl's: its head and its body; empty where nothing answers.
    func page(_ path: String, _ options: String...) async throws -> String {
        let curl = try #require(findProgram("curl"))
        let fixed = ["-q", "-si", "--noproxy", "*", "--max-time", "60"]
        return try await Program(curl, fixed + options + ["http://127.0.0.1:\(port)\(path)"])
            .capture().text
    }

    /// The same until it holds a text, minutes at most.
    func page(
        _ path: String, holds text: String, within seconds: Int = 240
    ) async throws -> Bool {
        for _ in 0..<(seconds / 2) {
            if try await page(path).contains(text) { return true }
            try await Task.sleep(for: .seconds(2))
        }
        return false
    }

    /// A secret that was made for it.
    func secret(_ name: String) async throws -> String {
        try await martlet("secret", "show", "guest-\(name)", "--reveal").text.trimmed
    }
}
