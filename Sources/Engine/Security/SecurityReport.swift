// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux

/// What really holds for the processes of a running VM: read from the kernel, not from what was asked.
package struct SecurityReport: Sendable, Equatable {
    package struct Row: Sendable, Equatable {
        /// `supervisor`, `hypervisor`, `shares` for their keeper, or `share` for a daemon.
        package let process: String
        package let pid: Int32
        package let item: String
        /// Nil when it could not be read.
        package let holds: Bool?
        /// What was found, and why that is not enough.
        package let detail: String
    }

    package var vm: String
    package var rows: [Row]
}

/// Says what holds for one process; pure.
struct SecurityJudge {
    let process: String
    let facts: ProcessFacts
    /// The namespaces of whoever asks.
    let ours: [String: String]
    /// Our own user, where VMs have none of their own.
    var sharedUser: UInt32?

    typealias Row = SecurityReport.Row

    func row(_ item: String, _ holds: Bool?, _ detail: String) -> Row {
        Row(process: process, pid: facts.pid, item: item, holds: holds, detail: detail)
    }

    var rows: [Row] {
        [user, capabilities, noNewPrivileges, filter, namespaces, files, processes, network, cores]
    }

    private var user: Row {
        guard let user = facts.user else { return row("user", nil, "its user cannot be read") }
        if user == 0 { return row("user", false, "root") }
        if user == sharedUser {
            return row("user", false, "\(user), which all VMs of this user share: without root")
        }
        return row("user", true, "\(user), its own")
    }

    private var capabilities: Row {
        let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        var held: [String] = []
        for set in sets {
            guard let value = facts.line(set).first.flatMap({ UInt64($0, radix: 16) }) else {
                return row("capabilities", nil, "\(set) cannot be read")
            }
            if value != 0 { held.append("\(set) \(String(value, radix: 16))") }
        }
        return held.isEmpty
            ? row("capabilities", true, "none, and none to be had")
            : row("capabilities", false, held.joined(separator: ", "))
    }

    private var noNewPrivileges: Row {
        switch facts.line("NoNewPrivs").first {
        case "1": row("no new privileges", true, "set")
        case "0": row("no new privileges", false, "a set-user-id program would give it others")
        default: row("no new privileges", nil, "cannot be read")
        }
    }

    private var filter: Row {
        let count = facts.line("Seccomp_filters").first.map { ", \($0) of them" } ?? ""
        return switch facts.line("Seccomp").first {
        case "2": row("system calls", true, "filtered by seccomp\(count)")
        case "0": row("system calls", false, "all that its user may make")
        default: row("system calls", nil, "cannot be read")
        }
    }

    private func isOwn(_ kind: String) -> Bool? {
        guard let theirs = facts.namespaces[kind], let ours = ours[kind] else { return nil }
        return theirs != ours
    }

    private var namespaces: Row {
        let known = ProcessFacts.kinds.filter { isOwn($0) != nil }
        guard !known.isEmpty else { return row("namespaces", nil, "cannot be read") }
        let own = known.filter { isOwn($0) == true }
        let shared = known.filter { isOwn($0) == false }
        let detail =
            "its own: \(own.isEmpty ? "none" : own.joined(separator: " ")); the host's: "
            + "\(shared.isEmpty ? "none" : shared.joined(separator: " "))"
        return row("namespaces", own.contains("mnt") && own.contains("ipc"), detail)
    }

    private struct Mount {
        let point: String
        let kind: String
        let isWritable: Bool
        let options: [Substring]
        /// Which folder of its file system it shows.
        let folder: String
    }

    private var mountTable: [Mount]? {
        facts.mounts.map { text in
            text.split(separator: "\n").compactMap { line -> Mount? in
                let words = line.split(separator: " ")
                guard let dash = words.lastIndex(of: "-"), words.count > 5, dash + 3 < words.count
                else { return nil }
                let own = words[5].split(separator: ",")
                let ofSystem = words[dash + 3].split(separator: ",")
                return Mount(
                    point: String(words[4]), kind: String(words[dash + 1]),
                    isWritable: own.contains("rw") && !ofSystem.contains("ro"), options: ofSystem,
                    folder: String(words[3]).replacing("\\040", with: " "))
            }
        }
    }

    private var files: Row {
        guard let mounts = mountTable, let own = isOwn("mnt") else {
            return row("files", nil, "its mounts cannot be read")
        }
        let root = mounts.last { $0.point == "/" }
        // What a daemon of shares makes of itself: it is in the folder, and there is nothing else.
        if own, let root, root.folder != "/", mounts.allSatisfy({ $0.kind != "proc" }) {
            let kind = root.isWritable ? "writable" : "read-only"
            return row("files", true, "nothing but \(root.folder), \(kind)")
        }
        guard own, root?.kind == "tmpfs" || root?.isWritable == false else {
            return row("files", false, "the host's, as far as its user may")
        }
        let writable = mounts.filter { $0.isWritable && $0.kind != "proc" }.map(\.point)
        return row(
            "files", !writable.contains("/"),
            "a root of its own with \(mounts.count - 1) places; writable: "
                + (writable.isEmpty ? "none" : writable.joined(separator: " ")))
    }

    private var processes: Row {
        guard let proc = mountTable?.last(where: { $0.point == "/proc" }) else {
            return row("other processes", mountTable == nil ? nil : true, "it has no /proc")
        }
        let hides = proc.options.contains {
            ["hidepid=invisible", "hidepid=ptraceable", "hidepid=noaccess"].contains($0)
                || ["hidepid=1", "hidepid=2", "hidepid=4"].contains($0)
        }
        return hides
            ? row(
                "other processes", true,
                "not seen: " + proc.options.filter { $0 != "rw" }.joined(separator: ","))
            : row("other processes", false, "their names and arguments can be read")
    }

    private var network: Row {
        switch isOwn("net") {
        case nil: return row("network", nil, "cannot be read")
        case false where facts.isReachClosed == true:
            return row(
                "network", true,
                "the host's, for an interface 'user'; this host's loopback and private addresses "
                    + "are closed to it, but for names (port 53)")
        case false:
            return row(
                "network", false,
                "the host's: an interface 'user' reaches what this host reaches, its loopback "
                    + "through 10.0.2.2 and private ranges too")
        case true?: break
        }
        guard let text = facts.links else {
            return row("network", nil, "its own; what is in it cannot be read")
        }
        let links = text.split(separator: "\n").dropFirst(2).compactMap { line in
            line.split(separator: ":").first.map { String($0.drop(while: \.isWhitespace)) }
        }.filter { $0 != "lo" }
        return links.isEmpty
            ? row("network", true, "its own, with nothing in it")
            : row("network", false, "its own, with \(links.joined(separator: " "))")
    }

    private var cores: Row {
        let name = "Max core file size"
        guard let line = facts.limits?.split(separator: "\n").first(where: { $0.hasPrefix(name) })
        else { return row("core files", nil, "its limits cannot be read") }
        let words = line.dropFirst(name.count).split(whereSeparator: \.isWhitespace)
        return words.prefix(2).allSatisfy { $0 == "0" }
            ? row("core files", true, "none are written")
            : row("core files", false, "they would hold the guest's memory")
    }
}

// MARK: - Limits

extension SecurityJudge {
    /// Rows of the limits that are declared, each as the kernel has it for this process.
    func limits(_ wanted: ProcessView.Limits, _ control: ControlGroups, devices: [String]) -> [Row]
    {
        ControlGroups.Kind.allCases.compactMap { kind in
            if kind == .cpu, wanted.cpu == nil { return nil }
            if kind == .io, wanted.io == nil { return nil }
            return limit(kind, wanted, control, devices)
        }
    }

    private func limit(
        _ kind: ControlGroups.Kind, _ wanted: ProcessView.Limits, _ control: ControlGroups,
        _ devices: [String]
    ) -> Row {
        let item = "limit of " + (kind == .pids ? "tasks" : kind.rawValue)
        guard let tree = control.trees[kind] else {
            return row(item, false, "this host has no control groups for it")
        }
        guard facts.groups != nil else { return row(item, nil, "its groups cannot be read") }
        if kind == .io, devices.isEmpty {
            return row(item, false, "the disks are on no block device")
        }
        var found: [String] = []
        for setting in control.settings(kind, wanted, devices: devices) {
            guard let text = facts.values[setting.file] else {
                return row(item, false, "none: it is in no group of its own")
            }
            let lines = text.split(separator: "\n").map(String.init)
            found += lines.isEmpty ? ["none"] : lines
            guard lines.contains(where: { same($0, setting.value, kind) }) else {
                let now = lines.isEmpty ? "none" : lines.joined(separator: ", ")
                return row(item, false, "\(setting.file) is \(now), not \(setting.value)")
            }
        }
        if kind == .io, !tree.isUnified {
            return row(
                item, false,
                "only of what is read: control groups of the first version do not count what the "
                    + "kernel writes back later")
        }
        return row(item, true, found.joined(separator: ", "))
    }

    /// Whether the kernel's line says what was set; it adds what was not, and counts memory in pages.
    private func same(_ line: String, _ value: String, _ kind: ControlGroups.Kind) -> Bool {
        if kind == .memory, let has = Int64(line), let wanted = Int64(value) {
            return has <= wanted && has > wanted - 65_536
        }
        let has = line.split(separator: " ")
        return value.split(separator: " ").allSatisfy { has.contains($0) }
    }
}
