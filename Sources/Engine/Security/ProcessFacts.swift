// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// What the kernel says of a running process: its texts below /proc, and those of its control groups.
package struct ProcessFacts: Sendable, Equatable {
    package var pid: Int32
    /// The file `status`.
    package var status: String
    /// The files `mountinfo`, `limits`, `cgroup` and `net/dev`; nil where they may not be read.
    package var mounts: String?
    package var limits: String?
    package var groups: String?
    package var links: String?
    /// What each namespace is, by kind, such as `mnt:[4026531841]`; without those not to be read.
    package var namespaces: [String: String]
    /// The limits of its control groups, by file, as they were read back.
    package var values: [String: String] = [:]
    /// Whether private addresses are closed to its control group; nil when that cannot be read.
    package var isReachClosed: Bool?

    package init(
        pid: Int32, status: String, mounts: String? = nil, limits: String? = nil,
        groups: String? = nil, links: String? = nil, namespaces: [String: String] = [:],
        values: [String: String] = [:], isReachClosed: Bool? = nil
    ) {
        self.pid = pid
        self.status = status
        self.mounts = mounts
        self.limits = limits
        self.groups = groups
        self.links = links
        self.namespaces = namespaces
        self.values = values
        self.isReachClosed = isReachClosed
    }

    static let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]

    /// The namespaces of a process, as far as they may be seen.
    package static func namespaces(of pid: String) -> [String: String] {
        kinds.reduce(into: [:]) { found, kind in
            found[kind] = try? Files.readLink("/proc/\(pid)/ns/\(kind)")
        }
    }

    /// Reads them of a process that somebody holds by its pidfd; nil when it is gone.
    package static func read(_ pid: Int32, _ control: ControlGroups) -> ProcessFacts? {
        func text(_ name: String) -> String? { try? Files.readText("/proc/\(pid)/\(name)") }
        guard let status = text("status") else { return nil }
        var facts = ProcessFacts(
            pid: pid, status: status, mounts: text("mountinfo"), limits: text("limits"),
            groups: text("cgroup"), links: text("net/dev"),
            namespaces: namespaces(of: String(pid)))
        for kind in ControlGroups.Kind.allCases {
            guard let folder = facts.group(kind, control) else { continue }
            for file in control.files(of: kind) {
                facts.values[file] = try? Files.readText("\(folder)/\(file)")
            }
        }
        if let unified = control.unified, let path = facts.unifiedPath {
            facts.isReachClosed = try? ReachFilter.isAttached(to: unified + path)
        }
        return facts
    }

    /// Its group in the tree of the second version: 0::/martlet/web.
    private var unifiedPath: Substring? {
        (groups ?? "").split(separator: "\n").first { $0.hasPrefix("0::") }?.dropFirst(3)
    }

    /// The folder of its group in the tree of a kind.
    func group(_ kind: ControlGroups.Kind, _ control: ControlGroups) -> String? {
        guard let tree = control.trees[kind] else { return nil }
        for line in (groups ?? "").split(separator: "\n") {
            // 4:memory:/martlet/web; of the second version 0::/martlet/web
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            let isIt =
                tree.isUnified
                ? parts[1].isEmpty : parts[1].split(separator: ",").contains(Substring(kind.legacy))
            if isIt { return tree.mount + parts[2] }
        }
        return nil
    }

    /// A line of `status`, such as `Uid`.
    func line(_ name: String) -> [Substring] {
        let line = status.split(separator: "\n").first { $0.hasPrefix(name + ":") } ?? ""
        return Array(line.split(whereSeparator: \.isWhitespace).dropFirst())
    }

    package var user: UInt32? { line("Uid").first.flatMap { UInt32($0) } }
    package var parent: Int32? { line("PPid").first.flatMap { Int32($0) } }
}

extension ControlGroups {
    /// The files that hold the limits of a kind.
    func files(of kind: Kind) -> [String] {
        let isUnified = trees[kind]?.isUnified ?? true
        return switch kind {
        case .cpu: isUnified ? ["cpu.max"] : ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        case .memory: [isUnified ? "memory.max" : "memory.limit_in_bytes"]
        case .pids: ["pids.max"]
        case .io:
            isUnified
                ? ["io.max"]
                : ["blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"]
        }
    }
}
