// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Synchronization
import Testing

/// A network namespace and a hosts file in which `martlet` runs as on a host of its own.
final class NetworkHost {
    static let plainHosts = "127.0.0.1\tlocalhost\n"
    static let isPossible = getuid() == 0

    private static let counter = Atomic(0)
    let name: String
    let world: World
    let hostsFile: String

    /// `mount --bind` is seen by this one run alone: `ip netns exec` gives it mounts of its own.
    init(_ behaviour: String = "boot=0.01 agent", tailscaled: String? = nil) async throws {
        world = try await World(behaviour)
        // What a killed run of the tests leaves under such a name, the laboratory removes.
        name = "mt\(getpid())-w\(Self.counter.wrappingAdd(1, ordering: .relaxed).newValue)"
        hostsFile = "\(world.folder)/hosts"
        try Files.write(hostsFile, Self.plainHosts, mode: 0o644)
        let made = try await Program("/sbin/ip", ["netns", "add", name]).capture()
        try #require(made.exit.isSuccess, "\(made.errorText)")
        world.wrapper = [
            "/sbin/ip", "netns", "exec", name, "/bin/sh", "-ec",
            "mount --bind \"$1\" /etc/hosts; shift; exec \"$@\"", "sh", hostsFile,
        ]
        if let tailscaled { world.variables = ["MARTLET_TAILSCALED=\(tailscaled)"] }
        try await sh("ip link set lo up")
    }

    deinit {
        for pid in processes { kill(pid, SIGKILL) }
        let delete = try? Program("/sbin/ip", ["netns", "del", name]).spawn()
        _ = try? delete?.waitBlocking()
    }

    /// Whoever is in the namespace: hypervisors and servers for names, also of a failed test.
    private var processes: [Int32] {
        var info = stat()
        guard stat("/run/netns/\(name)", &info) == 0 else { return [] }
        let link = "net:[\(info.st_ino)]"
        return ((try? Files.list("/proc")) ?? []).compactMap { Int32($0) }.filter {
            (try? Files.readLink("/proc/\($0)/ns/net")) == link
        }
    }

    /// Runs a shell command in the namespace and returns what it printed.
    @discardableResult
    func sh(_ command: String) async throws -> String {
        let output = try await Program(
            "/sbin/ip", ["netns", "exec", name, "/bin/sh", "-ec", command]
        ).capture()
        try #require(output.exit.isSuccess, "\(command): \(output.errorText)")
        return output.text
    }

    var hosts: String { get throws { try Files.readText(hostsFile) } }

    /// Writes the fleet file: lines for networks, and VMs in YAML's flow form.
    func declare(_ fleet: String, vms: String) throws {
        try Files.write("\(world.folder)/fleet.yaml", "fleet: test\n\(fleet)\nvms: {\(vms)}\n")
    }
}
