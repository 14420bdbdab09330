// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// How a helper of publishing is started: as a user of its own, with the files that it needs and no
/// others, and without any right of root but `capability`.
struct Launcher {
    let user: UInt32?
    /// The number of a capability that it gets, as root.
    var capability: Int32?
    /// What it needs besides programs, libraries and the authorities that the host trusts.
    let places: [Sandbox.Place]
    /// Folders that it does not see but for the places in them.
    let hidden: [String]
    /// A folder of its own, at which its root is put together.
    let stage: String
    /// Whether its /proc has more than processes: what the kernel says of its network.
    var seesSettings = false

    /// `CAP_NET_BIND_SERVICE`.
    static let lowPorts: Int32 = 10

    /// The program with all walls around it.
    func program(_ words: [String]) throws(SystemError) -> Program {
        // A link that leads out of the view would lead nowhere.
        let path = try Files.realPath(words[0])
        var program = Program(path, Array(words.dropFirst()))
        program.folder = "/"
        program.newSession = true
        (program.user, program.group) = (user, user)
        var sandbox = Sandbox(root: .own(stage: stage))
        sandbox.places =
            Sandbox.system + Sandbox.devices + Launcher.trust
            + hidden.map { Sandbox.Place($0, .hidden, isOptional: true) } + places
        if !path.hasPrefix("/usr/") { sandbox.places.append(Sandbox.Place(path, .readable)) }
        sandbox.onlyProcesses = !seesSettings
        sandbox.ownUser = geteuid() != 0
        sandbox.deviceOwner = user
        sandbox.capability = capability
        var filter = SystemCallFilter()
        filter.families = ["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"]
        // Caddy gives a fresh log the owner that the full one has, which is itself; without it no log is
        // compressed, and what is said at that moment is lost.
        filter.added = ["chown", "fchown", "fchownat", "lchown"]
        sandbox.filter = try filter.program()
        program.sandbox = sandbox
        return program
    }

    /// Whom an ACME server is trusted by, where Debian, Fedora, SUSE and Arch have it, and how names
    /// are looked up.
    private static let trust = [
        "/etc/ca-certificates", "/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem", "/etc/ssl/certs", "/etc/nsswitch.conf",
    ].map { Sandbox.Place($0, .readable, isOptional: true) }
}

extension Program {
    /// Calls with the program, and again with one wall less where this kernel forbids it to somebody
    /// without privilege; as root, nothing is started without all of them.
    func withWalls<R>(_ body: (Program) async throws -> R) async throws -> R {
        do {
            return try await body(self)
        } catch let error as SystemError {
            let less = try fewerWalls(after: error)
            return try await less.withWalls(body)
        }
    }

    /// The same without waiting.
    func spawnWithWalls() throws(SystemError) -> Child {
        do {
            return try spawn()
        } catch {
            return try fewerWalls(after: error).spawnWithWalls()
        }
    }

    private func fewerWalls(after error: SystemError) throws(SystemError) -> Program {
        guard geteuid() != 0, let step = error.step,
            let less = sandbox?.withLess(than: step, error)
        else { throw error }
        var program = self
        program.sandbox = less
        return program
    }
}
