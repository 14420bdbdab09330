// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Engine

/// VMs of an ordinary user in units of a manager that puts up no walls: they put up their own.
///
/// The manager here is a socket and what a unit's process inherits; a real one is tried in hosts of
/// their own (Tests/Hosts).
struct UserUnitTests {
    private func asNobody() async throws -> World {
        let world = try await World(inMemory: true)
        world.wrapper = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        try Files.makeFolder(world.layout.run)
        try #require(
            await Program(
                "/bin/chown", ["-R", "65534:65534", world.layout.root, world.layout.run]
            ).capture().exit.isSuccess)
        return world
    }

    /// What is said of supervisor and hypervisor, by item.
    private func security(_ name: String, _ world: World) async throws -> [String: [Bool?]] {
        // Where no guest is, none is to be waited for.
        try Files.remove(world.layout.vm(name).sshSocket)
        let text = try await world.must("status", "--security", name, "--json").standardOutput
        let rows = try JSONValue(parsing: text)["rows"]?.elements ?? []
        return rows.reduce(into: [:]) { found, row in
            found[row["item"]?.string ?? "", default: []].append(row["holds"]?.bool)
        }
    }

    @Test(.enabled(if: geteuid() == 0, "only root can become somebody else"))
    func aUnitConfinesItself() async throws {
        let world = try await asNobody()
        try world.declare("shut: { interfaces: [] }, open: { hardening: { confine: false } }")
        try Files.setMode("\(world.folder)/fleet.yaml", 0o644)
        try await world.must("up", "--no-start")
        let manager = try FakeManager(world)
        for (name, hasWalls) in [("shut", true), ("open", false)] {
            try await manager.prepare(name)
            let unit = try manager.supervise(name)
            try await manager.hears("READY=1")
            // It takes what was handed over, and is still what the manager has started.
            #expect(manager.said.contains("FDSTOREREMOVE=1\nFDNAME=lock"))
            let children = try world.processes.filter {
                try Files.readText("/proc/\($0)/status").contains("\nPPid:\t\(unit.pid)\n")
            }
            #expect(children.count == 1, "the hypervisor is its child: \(children)")
            let found = try await security(name, world)
            for item in ["system calls", "files", "namespaces", "no new privileges"] {
                #expect(found[item] == [hasWalls, hasWalls], "\(name): \(item): \(found)")
            }
            if hasWalls {
                // The rest of the session's variables is not there to be read.
                let variables = try Files.readText("/proc/\(unit.pid)/environ")
                #expect(!variables.contains("HOME=") && variables.contains("NOTIFY_SOCKET="))
            }
            unit.signal(SIGTERM)
            try await manager.hears("STOPPING=1")
            try await world.until("\(name) has ended") {
                try manager.listen()
                return try !world.isRunning(name)
            }
            #expect(try await unit.wait() == .code(0))
            #expect(manager.said.contains("EXTEND_TIMEOUT_USEC="))
            try await world.must("release", name)
        }
        try world.expectNothingLeftOver()
    }

    @Test(.enabled(if: geteuid() == 0, "only root can become somebody else"))
    func aUnitThatCannotConfineItselfFails() async throws {
        let world = try await asNobody()
        try world.declare("web: { interfaces: [] }")
        try Files.setMode("\(world.folder)/fleet.yaml", 0o644)
        try await world.must("up", "--no-start")
        let manager = try FakeManager(world)
        try await manager.prepare("web")
        let nobody = world.folder + "/nobody"
        let exit = try await manager.supervise("web", socket: nobody).wait()
        let said = try Files.readText(manager.messages("web"))
        #expect(exit == .code(78), "\(said)")
        #expect(said.contains("error: web was not started"), "\(said)")
        #expect(said.contains("cannot show it a file or folder (\(nobody))"), "\(said)")
        #expect(world.processes.isEmpty)
        // Root's VMs have users of their own, whom this gives nothing.
        world.wrapper = []
        try await world.mustFail("supervise", "--confine", "web", code: 64)
    }

    /// A root that is not that of the mounts: the kernel gives nobody there a user namespace.
    @Test(.enabled(if: geteuid() == 0, "only root can become somebody else"))
    func withoutUserNamespacesLandlockClosesTheHost() async throws {
        let world = try await asNobody()
        var template = Array("/tmp/martlet-host-XXXXXX".utf8CString)
        let host = try #require(mkdtemp(&template).map { String(cString: $0) })
        defer { try? Files.remove(host) }
        try Files.setMode(host, 0o755)
        try Files.write("\(host)/notes", "of the host\n", mode: 0o644)
        // Beside the world: Landlock looks at what a root lies in as well.
        let root = host + "-root"
        try Files.makeFolder(root)
        defer { rmdir(root) }
        let enter =
            "mount --rbind / \(root) && "
            + "exec /usr/sbin/chroot --userspec=65534:65534 --groups= \(root) \"$@\""
        world.wrapper = [
            "/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", enter, "sh",
        ]
        world.variables = ["MARTLET_FLEET=\(world.folder)/fleet.yaml"]
        let hypervisor = try Files.readText("\(world.folder)/hypervisor")
        let attempt =
            "name=${2#guest=}; cat \(host)/notes "
            + ">\(world.layout.root)/vms/$name/disks/answer 2>&1\n"
        try Files.write(
            "\(world.folder)/hypervisor",
            hypervisor.replacing("#!/bin/sh\n", with: "#!/bin/sh\n" + attempt), mode: 0o755)
        try world.declare(
            "shut: { interfaces: [] }, open: { interfaces: [], hardening: { confine: false } }")
        try Files.setMode("\(world.folder)/fleet.yaml", 0o644)
        let closed = "cat: \(host)/notes: Permission denied\n"
        func answer(_ name: String) throws -> String {
            try Files.readText(world.layout.vm(name).disks + "/answer")
        }
        try await world.must("up")
        #expect(try answer("shut") == closed)
        #expect(try answer("open") == "of the host\n")
        try await world.must("down")
        try Files.remove(world.layout.vm("shut").disks + "/answer")
        let manager = try FakeManager(world)
        try await manager.prepare("shut")
        let unit = try manager.supervise("shut")
        try await manager.hears("READY=1")
        #expect(try answer("shut") == closed)
        #expect(try await security("shut", world)["system calls"] == [true, true])
        unit.signal(SIGTERM)
        #expect(try await unit.wait() == .code(0))
        try await world.must("release", "shut")
    }

    @Test func nothingOfTheSessionIsHandedOnButItsManager() {
        let variables = [
            "NOTIFY_SOCKET": "/run/user/1000/systemd/notify", "LISTEN_PID": "7", "LISTEN_FDS": "1",
            "LISTEN_FDNAMES": "lock", "SSH_AUTH_SOCK": "/run/user/1000/agent", "HOME": "/home/me",
        ]
        #expect(
            Engine.handedOn { variables[$0] } == [
                "NOTIFY_SOCKET=/run/user/1000/systemd/notify", "LISTEN_PID=7", "LISTEN_FDS=1",
                "LISTEN_FDNAMES=lock",
            ])
        #expect(Engine.handedOn { _ in nil } == [])
    }
}
