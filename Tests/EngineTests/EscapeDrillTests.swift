// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Testing

/// Somebody who has taken over a hypervisor tries to get out, from inside the confinement of a real
/// supervisor, and from a VM without confinement: what fails here must have worked there.
struct EscapeDrillTests {
    /// A VM that is the prey, files of the host that every user may use, and a port that listens.
    private final class Prey {
        let world: World
        let host: String
        let port: UInt16
        private let listener: Int32

        init() async throws {
            world = try await World(inMemory: true)
            var template = Array("/tmp/martlet-drill-XXXXXX".utf8CString)
            host = try #require(mkdtemp(&template).map { String(cString: $0) })
            try Files.setMode(host, 0o777)
            try Files.write("\(host)/notes", "of the host", mode: 0o644)
            (listener, port) = try Prey.listen()
            for (name, mode) in [("Probe", "755"), ("SetIDProbe", "4755")] {
                let copy = "cp \(World.programs)/Probe \(name) && chmod \(mode) \(name)"
                var program = Program("/bin/sh", ["-c", copy])
                program.folder = world.folder
                try #require(await program.capture().exit.isSuccess)
            }
            // The attempts of the VM come first, then it boots as usual.
            try Files.write(
                "\(world.folder)/hypervisor",
                """
                #!/bin/sh
                name=${2#guest=}
                if [ -e \(world.folder)/attempts-$name ]; then
                    \(world.folder)/Probe $(cat \(world.folder)/attempts-$name) \
                        >\(world.layout.root)/vms/$name/disks/answers 2>&1
                fi
                FAKE_VMM='boot=0.01 agent' exec \(world.folder)/SuperviseTool "$@"

                """, mode: 0o755)
        }

        deinit {
            close(listener)
            try? Files.remove(host)
        }

        private static func listen() throws -> (Int32, UInt16) {
            let fd = try check("socket") { socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0) }
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            try withUnsafeMutablePointer(to: &address) { pointer in
                try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                    try check("bind") { bind(fd, address, length) }
                    try check("listen") { Glibc.listen(fd, 64) }
                    try check("getsockname") { getsockname(fd, address, &length) }
                }
            }
            return (fd, UInt16(bigEndian: address.sin_port))
        }

        /// Opens the prey's files to everybody: no user of its own protects it now.
        func open(_ name: String) throws {
            let files = world.layout.vm(name)
            for folder in [files.disks, files.logs, files.sockets] {
                try Files.setMode(folder, 0o755)
            }
            for file in [files.dataVolume, files.consoleLog, "\(files.credentials)/entry-0"] {
                try Files.setMode(file, 0o644)
            }
            try Files.setMode(files.controlSocket, 0o666)
        }

        /// What one VM tries: a label, the attempt, and what it needs.
        func attempts(by name: String, on prey: String) -> [(String, String, String)] {
            let files = world.layout.vm(prey)
            let own = world.layout.vm(name).disks
            return [
                ("disk", "read", files.dataVolume), ("log", "read", files.consoleLog),
                ("credential", "read", "\(files.credentials)/entry-0"),
                ("socket", "connect", files.controlSocket), ("file", "read", "\(host)/notes"),
                ("folder", "list", host), ("write", "write", "\(host)/by-\(name)"),
                ("inet", "inet", "\(port)"), ("netlink", "netlink", "-"), ("others", "others", "-"),
                ("ptrace", "ptrace", "-"), ("peek", "peek", "-"), ("namespace", "namespace", "-"),
                ("clone", "clone", "-"), ("mount", "mount", "-"), ("keys", "keys", "-"),
                ("uring", "uring", "-"), ("executable-memory", "executable-memory", "-"),
                ("set-id", "set-id", "\(own)/set-id"), ("drop", "drop", "\(own)/dropped"),
                ("become-root", "become-root", "\(world.folder)/SetIDProbe"),
                ("memory", "memory", "600"), ("tasks", "tasks", "200"),
                // These need privilege as well, so no VM's user could: they must fail all the same.
                ("setns", "setns", "-"), ("module", "module", "-"),
                ("file-module", "file-module", "-"), ("kexec", "kexec", "-"), ("bpf", "bpf", "-"),
                ("perf", "perf", "-"), ("device", "device", "\(own)/device"), ("user", "user", "-"),
            ]
        }

        static let privileged = [
            "setns", "module", "file-module", "kexec", "bpf", "perf", "device", "user",
        ]

        func plan(_ name: String, on prey: String) throws {
            let words = attempts(by: name, on: prey).map { "\($0.0) \($0.1) \($0.2)" }
            try Files.write(
                "\(world.folder)/attempts-\(name)", words.joined(separator: "\n"), mode: 0o644)
        }

        /// The answers of a VM, by label.
        func answers(of name: String) throws -> [String: String] {
            let path = world.layout.vm(name).disks + "/answers"
            let lines = try Files.readText(path).split(separator: "\n")
            return lines.reduce(into: [:]) { answers, line in
                let words = line.split(separator: " ", maxSplits: 1).map(String.init)
                if words.count == 2 { answers[words[0]] = words[1] }
            }
        }
    }

    @Test(.enabled(if: geteuid() == 0, "only root gives each VM a user of its own"))
    func nothingLeadsOutOfAVM() async throws {
        let prey = try await Prey()
        let world = prey.world
        let limits = "limits: { memoryOverhead: 64MiB, tasks: 40 }, memory: 128MiB"
        let denied = "hardening: { confine: { MemoryDenyWriteExecute: true } }"
        try world.declare(
            """
            prey: {}, in: { interfaces: [], accelerator: tcg, \(limits), \(denied) },
            out: { accelerator: tcg, \(limits), hardening: { confine: false } }
            """)
        try await world.must("up", "prey")
        try prey.open("prey")
        try prey.plan("in", on: "prey")
        try prey.plan("out", on: "prey")
        try await world.must("up", "in", "out")
        let inside = try prey.answers(of: "in")
        let outside = try prey.answers(of: "out")
        for (label, attempt, _) in prey.attempts(by: "in", on: "prey") {
            let (kept, free) = (inside[label], outside[label])
            #expect(kept != nil && kept != "ok" && kept != "unknown", "\(label): \(kept ?? "none")")
            if !Prey.privileged.contains(attempt) {
                #expect(free == "ok", "\(label) without confinement: \(free ?? "none")")
            }
        }
        // The reasons are those that are meant, and not a probe that fails at everything.
        #expect(inside["disk"] == "ENOENT" && inside["file"] == "ENOENT", "\(inside)")
        #expect(inside["namespace"] == "EPERM" && inside["ptrace"] == "EPERM", "\(inside)")
        #expect(inside["drop"] == "EACCES" && inside["inet"] == "EPERM", "\(inside)")
        #expect(inside["memory"] == "signal 9" && inside["tasks"] == "EAGAIN", "\(inside)")
        try await world.must("down")
        try world.expectNothingLeftOver()
    }

    /// Its hypervisor must be on the host's network, and meets nobody there.
    @Test(.enabled(if: geteuid() == 0, "only root has what is closed by control group"))
    func anInterfaceOfTheUserReachesNoNeighbour() async throws {
        let prey = try await Prey()
        let world = prey.world
        let allowed = "hardening: { confine: { IPAddressAllow: \"localhost 192.0.2.0/24\" } }"
        try world.declare(
            "in: {}, may: { \(allowed) }, out: { hardening: { confine: false } }")
        let attempts = [
            ("tcp", "inet \(prey.port)"), ("mapped", "mapped \(prey.port)"),
            ("udp", "datagram \(prey.port)"), ("udp6", "datagram6 \(prey.port)"),
            ("names", "datagram 53"),
        ]
        for name in ["in", "may", "out"] {
            try Files.write(
                "\(world.folder)/attempts-\(name)",
                attempts.map { "\($0.0) \($0.1)" }.joined(separator: "\n"), mode: 0o644)
        }
        let said = try await world.must("up").errorText
        #expect(!said.contains("warning"), "\(said)")
        let inside = try prey.answers(of: "in")
        #expect(
            inside == [
                "tcp": "EPERM", "mapped": "EPERM", "udp": "EPERM", "udp6": "EPERM", "names": "ok",
            ])
        // IPv4 in an address of IPv6 is none of those that were named.
        let named = try prey.answers(of: "may")
        #expect(named["tcp"] == "ok" && named["udp6"] == "ok" && named["mapped"] == "EPERM")
        #expect(try prey.answers(of: "out").values.allSatisfy { $0 == "ok" })

        func network(_ name: String) async throws -> JSONValue? {
            // Where no guest is, none is to be waited for.
            try Files.remove(world.layout.vm(name).sshSocket)
            let text = try await world.must("status", "--security", name, "--json").standardOutput
            return try JSONValue(parsing: text)["rows"]?.elements.first {
                $0["item"] == "network" && $0["process"] == "hypervisor"
            }
        }
        #expect(try await network("in")?["holds"] == true)
        #expect(try await network("out")?["holds"] == false)
        try await world.must("down")
        try world.expectNothingLeftOver()
        let group = "\(Derived.rootID(world.layout.root))-in"
        #expect(!Files.exists("/sys/fs/cgroup/unified/martlet/\(group)"))
        #expect(!Files.exists("/sys/fs/cgroup/martlet/\(group)"))
    }

    @Test(.enabled(if: geteuid() == 0, "only root can become somebody else"))
    func withoutRootTheViewHoldsAsWell() async throws {
        let prey = try await Prey()
        let world = prey.world
        world.wrapper = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        try Files.makeFolder(world.layout.run)
        try #require(
            await Program(
                "/bin/chown", ["-R", "65534:65534", world.layout.root, world.layout.run]
            ).capture().exit.isSuccess)
        try world.declare(
            "prey: {}, in: { hardening: { confine: true } }, out: { hardening: { confine: false } }"
        )
        try Files.setMode("\(world.folder)/fleet.yaml", 0o644)
        try await world.must("up", "prey")
        try prey.plan("in", on: "prey")
        try prey.plan("out", on: "prey")
        try await world.must("up", "in", "out")
        let inside = try prey.answers(of: "in")
        let outside = try prey.answers(of: "out")
        for label in [
            "disk", "log", "credential", "socket", "file", "folder", "write", "ptrace", "peek",
            "namespace", "clone", "mount", "keys", "set-id", "drop", "become-root",
        ] {
            #expect(inside[label] != nil && inside[label] != "ok", "\(label): \(inside)")
            #expect(outside[label] == "ok", "\(label) without confinement: \(outside)")
        }
        try await world.must("down")
    }

    @Test(.enabled(if: geteuid() == 0, "only root can be without one capability"))
    func whatCannotBeConfinedIsNotStarted() async throws {
        let world = try await World()
        try world.declare("web: {}, open: { hardening: { confine: false } }")
        try await world.must("up", "--no-start", "web", "open")
        world.wrapper = ["/usr/bin/setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
        let said = try await world.mustFail("start", "web", code: 78)
        #expect(said.contains("cannot make its namespaces"), "\(said)")
        #expect(said.contains("confine: false"), "\(said)")
        #expect(world.processes.isEmpty)
        try await world.must("start", "open")
        world.wrapper = []
        try await world.must("down")
    }

    @Test(.enabled(if: geteuid() == 0, "only root sees all of it"))
    func statusSaysWhatHolds() async throws {
        let world = try await World()
        let limits = "limits: { cpu: 50%, memoryOverhead: 64MiB, tasks: 64 }, memory: 128MiB"
        try world.declare(
            """
            shut: { interfaces: [], accelerator: tcg, \(limits),
            hardening: { confine: { Nice: 5 } } },
            open: { accelerator: tcg, hardening: { confine: false } }
            """)
        let said = try await world.must("up", "shut", "open").errorText
        #expect(said.contains("shut: only a unit of the host's systemd holds Nice=5"), "\(said)")
        func rows(_ name: String) async throws -> [String: (holds: Bool?, detail: String)] {
            // Where no guest is, none is to be waited for.
            let port = world.layout.vm(name).sshSocket
            if Files.exists(port) { try Files.remove(port) }
            let text = try await world.must("status", "--security", name, "--json").standardOutput
            let rows = try JSONValue(parsing: text)["rows"]?.elements ?? []
            return rows.reduce(into: [:]) { found, row in
                let key = [row["process"]?.string, row["item"]?.string].compactMap { $0 }
                found[key.joined(separator: " ")] = (
                    row["holds"]?.bool, row["detail"]?.string ?? ""
                )
            }
        }
        let shut = try await rows("shut")
        let open = try await rows("open")
        for process in ["supervisor", "hypervisor"] {
            for item in [
                "user", "capabilities", "no new privileges", "system calls", "namespaces", "files",
                "other processes", "network", "core files", "limit of cpu", "limit of memory",
                "limit of tasks",
            ] {
                let row = shut["\(process) \(item)"]
                #expect(row?.holds == true, "\(process) \(item): \(row?.detail ?? "no such row")")
            }
            #expect(shut["\(process) Nice"]?.holds == false)
            for item in ["no new privileges", "system calls", "namespaces", "files", "network"] {
                let row = open["\(process) \(item)"]
                #expect(row?.holds == false, "\(process) \(item): \(row?.detail ?? "no such row")")
            }
            #expect(open["\(process) limit of tasks"]?.holds == false)
        }
        // A limit is changed while the VM runs, and what is read back follows.
        let before = try await world.list()["shut"]?["pid"]?.integer
        try world.declare(
            """
            shut: { interfaces: [], accelerator: tcg, memory: 128MiB, limits: { cpu: 70%,
            memoryOverhead: 64MiB, tasks: 64 }, hardening: { confine: { Nice: 5 } } },
            open: { accelerator: tcg, hardening: { confine: false } }
            """)
        try await world.must("up")
        #expect(try await world.list()["shut"]?["pid"]?.integer == before)
        #expect(try await rows("shut")["hypervisor limit of cpu"]?.detail.contains("70000") == true)
        try await world.must("down")
        for kind in ["cpu", "memory", "pids"] {
            let owner = "\(Derived.rootID(world.layout.root))-shut"
            #expect(!Files.exists("/sys/fs/cgroup/\(kind)/martlet/\(owner)"))
        }
        try await world.mustFail("status", "--security", "shut", code: 1)
    }
}
