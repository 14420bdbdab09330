// SPDX-License-Identifier: Apache-2.0
import Glibc

extension Ports {
    /// The process that listens on a TCP port of this network namespace; nil when there is none, or
    /// when it cannot be seen: the processes of others are open to root alone.
    package static func holder(of port: UInt16) -> (pid: Int32, name: String)? {
        let sockets = listeners(on: port)
        guard !sockets.isEmpty else { return nil }
        for pid in ((try? Files.list("/proc")) ?? []).compactMap({ Int32($0) }) {
            let folder = "/proc/\(pid)/fd"
            for number in (try? Files.list(folder)) ?? [] {
                guard let target = try? Files.readLink("\(folder)/\(number)"),
                    sockets.contains(target)
                else { continue }
                let name = (try? Files.readText("/proc/\(pid)/comm")) ?? ""
                return (pid, String(name.prefix { $0 != "\n" }))
            }
        }
        return nil
    }

    /// The listening sockets of a port, as /proc/PID/fd names them.
    private static func listeners(on port: UInt16) -> Set<String> {
        var found: Set<String> = []
        for name in ["tcp", "tcp6"] {
            // Not /proc/net: that is the namespace of the process's first thread, not of this one.
            guard let table = try? Files.readText("/proc/thread-self/net/\(name)") else { continue }
            for line in table.split(separator: "\n").dropFirst() {
                let fields = line.split(separator: " ", omittingEmptySubsequences: true)
                guard fields.count > 9, fields[3] == "0A",
                    let digits = fields[1].split(separator: ":").last,
                    UInt16(digits, radix: 16) == port
                else { continue }
                found.insert("socket:[\(fields[9])]")
            }
        }
        return found
    }
}
