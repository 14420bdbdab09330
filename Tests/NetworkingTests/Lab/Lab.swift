// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Synchronization
import Testing

/// A small internet of network namespaces, in which packets show what a policy does.
///
/// ```
///   wan ──────────── uplink0  host  br0 ── lan0 ─────── lan (192.168.50.10)
///    │ 203.0.113.0/24           │   wg0 ~~~ WireGuard ~~ vpn (10.99.0.2), itself behind wan
///    │ 2001:db8:1::/64          └── <tap> ── eth0 ────── any guest
///    └ behind it 198.51.100.7, 9.9.9.9, private ranges: see `Lab.Address`
/// ```
///
/// Martlet's code runs in `host` (`inHost`). Everyone else is a peer with servers on `Lab.ports`
/// that answer with their name and the address that they saw. No packet filter and no forwarding is
/// set up in `host`, reverse path filtering is off in it, and every peer has routes back to the
/// guests: what does not arrive was stopped by a policy and not by the lab.
///
/// Several labs may exist at once; nothing of them is in the root namespace but their names.
final class Lab: Sendable {
    /// What the peers and guests serve unless told otherwise.
    static let ports = ["tcp:22", "tcp:80", "tcp:443", "udp:53", "udp:123"]

    /// How long what should pass may take, in milliseconds: it tells a slow machine from a policy.
    static let patience = 15000

    /// Whether this process may make one; for `.enabled(if:)`.
    static let isPossible = getuid() == 0

    struct State {
        var agents: [String: Agent] = [:]
        var children: [Child] = []
        /// Of every namespace, in the order that they were made.
        var names: [String] = []
        var isRemoved = false
    }
    let state = Mutex(State())
    private let prefix: String
    private static let counter = Atomic(0)

    private static let under = Atomic(0)

    /// Counts a lab in, unless there are enough.
    private static func takeTurn() -> Bool {
        if under.add(1, ordering: .relaxed).newValue <= 4 { return true }
        under.subtract(1, ordering: .relaxed)
        return false
    }

    private init() {
        let number = Lab.counter.wrappingAdd(1, ordering: .relaxed).newValue
        prefix = "mt\(getpid())-\(number)"
    }

    deinit { remove() }

    /// Makes a lab, runs the body with it and removes it, whatever happens.
    ///
    /// Without `vpn`, there is no such peer and no tunnel, and it takes half the time. Only some labs
    /// exist at once and the others wait, so that what one of them measures is not the load of all:
    /// do not make one inside another.
    static func with<R>(
        vpn: Bool = true, _ body: (Lab) async throws -> R
    ) async throws -> R {
        sweep
        while !takeTurn() { try await Task.sleep(for: .milliseconds(20)) }
        defer { under.subtract(1, ordering: .relaxed) }
        let lab = Lab()
        let result: Result<R, any Error>
        do {
            try await lab.build(vpn: vpn)
            result = .success(try await body(lab))
        } catch {
            result = .failure(error)
        }
        try await blocking { lab.remove() }
        return try result.get()
    }

    /// The name of a namespace for `ip netns`.
    func namespace(_ name: String) -> String { "\(prefix)-\(name)" }

    /// The file that stands for a namespace.
    func path(_ name: String) -> String { "/run/netns/\(namespace(name))" }

    // MARK: Working in it

    /// Runs code on a thread that has entered `host`: libnftables and netlink act there.
    ///
    /// `/proc/sys/net` is that of the namespace, `/sys/class/net` and `/proc/net` are not.
    func inHost<R: Sendable>(
        _ body: @escaping @Sendable () throws -> R
    ) async throws -> R {
        try await inside("host", body)
    }

    /// The same in any namespace.
    func inside<R: Sendable>(
        _ name: String, _ body: @escaping @Sendable () throws -> R
    ) async throws -> R {
        let path = path(name)
        return try await blocking {
            try enterNetwork(path)
            return try body()
        }
    }

    /// Runs a shell command in a namespace; a failure is an error unless it is expected.
    @discardableResult
    func sh(
        _ name: String, _ command: String, mayFail: Bool = false
    ) async throws -> Output {
        let output = try await Program(
            "/sbin/ip", ["netns", "exec", namespace(name), "/bin/sh", "-ec", command]
        ).capture()
        guard output.exit.isSuccess || mayFail else {
            throw LabError("\(name): \(command): \(output.exit): \(output.errorText)")
        }
        return output
    }

    /// Runs lines of `ip` in a namespace; `{name}` stands for the namespace of that name.
    func ip(_ name: String, _ lines: String) async throws {
        try await Lab.batch(["-n", namespace(name)], expanded(lines), "\(name): ")
    }

    /// Sets values below `/proc/sys/net`.
    func sysctl(_ name: String, _ values: [(key: String, value: String)]) async throws {
        try await inside(name) {
            for (key, value) in values {
                try Descriptor.open("/proc/sys/net/\(key)", O_WRONLY).write(value.utf8)
            }
        }
    }

    /// The hardware address of an interface.
    func mac(of interface: String, in name: String = "host") async throws -> String {
        let output = try await sh(name, "cat /sys/class/net/\(interface)/address")
        return String(output.text.dropLast())
    }

    /// Starts further servers, such as `tcp:8080`, in a namespace; in `host` there are none before.
    func serve(_ name: String, _ ports: String...) async throws {
        let all = ports.map { JSONValue.string($0) }
        _ = try await agent(name).request("serve", [.init("ports", .array(all))])
    }

    func agent(_ name: String) throws -> Agent {
        guard let agent = state.withLock({ $0.agents[name] }) else {
            throw LabError("the lab has no '\(name)'")
        }
        return agent
    }

    // MARK: Making and removing

    /// Makes a namespace with its probe program.
    func addNamespaces(_ all: [(name: String, ports: [String])]) async throws {
        let names = all.map { namespace($0.name) }
        state.withLock { $0.names += names }
        try await Lab.batch([], names.map { "netns add \($0)\n" }.joined())
        try await withThrowingTaskGroup { group in
            for (name, ports) in all {
                group.addTask { [self] in
                    try await sysctl(name, Lab.settings)
                    try await ip(name, "link set lo up")
                    let agent = try await Agent.start(
                        in: namespace(name), name: name, ports: ports)
                    state.withLock { $0.agents[name] = agent }
                }
            }
            try await group.waitForAll()
        }
    }

    /// Ends what runs in the namespaces and removes them with all that they hold; blocks.
    private func remove() {
        let old = state.withLock { state in
            defer { state = State(isRemoved: true) }
            return state
        }
        guard !old.names.isEmpty else { return }
        for agent in old.agents.values { agent.stop() }
        for child in old.children {
            child.signal(SIGKILL)
            _ = try? child.waitBlocking()
        }
        for pid in Lab.processes(in: old.names) { kill(pid, SIGKILL) }
        // Forced: a lab that failed half-way has not all of them.
        let names = old.names.filter { Files.exists("/run/netns/\($0)") }
        let lines = names.map { "netns del \($0)\n" }.joined()
        do {
            let file = try Lab.temporary(lines)
            defer { unlink(file) }
            let child = try Program("/sbin/ip", ["-force", "-batch", file]).spawn()
            _ = try child.waitBlocking()
        } catch {
            Issue.record("the lab's namespaces stay: \(error)")
        }
    }

    /// Removes, once, the names that a killed run of the tests left behind.
    private static let sweep: Void = {
        for name in (try? Files.list("/run/netns")) ?? [] where name.hasPrefix("mt") {
            let number = name.dropFirst(2).prefix { $0 != "-" }
            guard let pid = Int32(number), pid > 0, kill(pid, 0) != 0, errno == ESRCH else {
                continue
            }
            _ = try? Program("/sbin/ip", ["netns", "del", name]).spawn().waitBlocking()
        }
    }()

    /// The processes that a test left in the lab's own namespaces.
    private static func processes(in names: [String]) -> [Int32] {
        let ours = Set(
            names.compactMap { name -> String? in
                var info = stat()
                guard stat("/run/netns/\(name)", &info) == 0 else { return nil }
                return "net:[\(info.st_ino)]"
            })
        let all = (try? Files.list("/proc")) ?? []
        return all.compactMap { Int32($0) }.filter { pid in
            guard pid != getpid(), let link = try? Files.readLink("/proc/\(pid)/ns/net") else {
                return false
            }
            return ours.contains(link)
        }
    }

    private static func temporary(_ text: String) throws(SystemError) -> String {
        let path = "/tmp/martlet-lab-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        try Files.write(path, text)
        return path
    }

    private static func batch(_ options: [String], _ lines: String, _ who: String = "") async throws
    {
        let output = try await Program("/sbin/ip", options + ["-batch", "-"])
            .capture(input: Array(lines.utf8))
        guard output.exit.isSuccess else { throw LabError("\(who)ip: \(output.errorText)\(lines)") }
    }

    /// Puts the names of namespaces in the place of `{name}`.
    private func expanded(_ lines: String) -> String {
        var result = ""
        for part in lines.split(separator: "{", omittingEmptySubsequences: false) {
            guard let end = part.firstIndex(of: "}") else {
                result += part
                continue
            }
            result += namespace(String(part[..<end])) + part[part.index(after: end)...]
        }
        return result
    }

    /// Addresses work at once, a forged frame changes nobody's routes, and errors are not rationed.
    private static let settings: [(key: String, value: String)] = [
        ("ipv4/ip_forward", "0"), ("ipv6/conf/all/forwarding", "0"),
        ("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/accept_redirects", "0"), ("ipv4/conf/default/accept_redirects", "0"),
        ("ipv6/conf/default/accept_dad", "0"), ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/accept_redirects", "0"),
        ("ipv6/conf/default/router_solicitations", "0"),
        ("ipv4/icmp_ratelimit", "0"), ("ipv6/icmp/ratelimit", "0"),
    ]
}
