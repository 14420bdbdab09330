// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// The control groups of this host: for each kind of limit the tree that can hold it, if there is one.
package struct ControlGroups: Sendable, Equatable {
    package enum Kind: String, Sendable, CaseIterable {
        case cpu, memory, io, pids

        /// Its name in the first version.
        var legacy: String { self == .io ? "blkio" : rawValue }
    }

    /// A mounted tree; the second version has one for everything.
    package struct Tree: Sendable, Equatable {
        package var mount: String
        package var isUnified: Bool
    }

    package var trees: [Kind: Tree] = [:]
    /// Where the second version is mounted, whether or not it holds limits.
    package var unified: String?

    package init() {}

    /// Reads /proc/self/mountinfo and the `cgroup.controllers` of the second version's tree; pure.
    package init(mounts: String, controllers: (String) -> String) {
        for line in mounts.split(separator: "\n") {
            let words = line.split(separator: " ")
            // 30 23 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
            guard let dash = words.lastIndex(of: "-"), dash + 3 < words.count, words.count > 4
            else { continue }
            let mount = unescaped(words[4])
            if words[dash + 1] == "cgroup2" {
                unified = mount
                let offered = controllers(mount).split(whereSeparator: \.isWhitespace)
                for kind in Kind.allCases where offered.contains(Substring(kind.rawValue)) {
                    trees[kind] = Tree(mount: mount, isUnified: true)
                }
            } else if words[dash + 1] == "cgroup" {
                let options = words[dash + 3].split(separator: ",")
                for kind in Kind.allCases
                where trees[kind] == nil && options.contains(Substring(kind.legacy)) {
                    trees[kind] = Tree(mount: mount, isUnified: false)
                }
            }
        }
    }

    /// Those of this host now.
    package static func find() -> ControlGroups {
        ControlGroups(mounts: (try? Files.readText("/proc/self/mountinfo")) ?? "") { mount in
            (try? Files.readText("\(mount)/cgroup.controllers")) ?? ""
        }
    }

    /// A file of a limit, and what it is to hold.
    package struct Setting: Sendable, Equatable {
        package var file: String
        package var value: String
    }

    /// The files of the limits of one kind, each with its value; pure.
    ///
    /// A limit that is not wanted is taken away. `devices` are the numbers of whole disks, such as 8:0.
    package func settings(
        _ kind: Kind, _ limits: ProcessView.Limits, devices: [String]
    ) -> [Setting] {
        let isUnified = trees[kind]?.isUnified ?? true
        let period = 100_000
        switch kind {
        case .cpu:
            // Percent of one CPU, in microseconds of each tenth of a second.
            let quota = limits.cpu.map { $0 * period / 100 }
            if isUnified {
                let bound = quota.map(String.init) ?? "max"
                return [.init(file: "cpu.max", value: "\(bound) \(period)")]
            }
            return [
                .init(file: "cpu.cfs_period_us", value: "\(period)"),
                .init(file: "cpu.cfs_quota_us", value: "\(quota ?? -1)"),
            ]
        case .memory:
            return [
                .init(
                    file: isUnified ? "memory.max" : "memory.limit_in_bytes",
                    value: "\(limits.memory)")
            ]
        case .pids: return [.init(file: "pids.max", value: "\(limits.tasks)")]
        case .io:
            return devices.flatMap { device -> [Setting] in
                if isUnified {
                    let rate = limits.io.map(String.init) ?? "max"
                    return [.init(file: "io.max", value: "\(device) rbps=\(rate) wbps=\(rate)")]
                }
                return ["read", "write"].map { way in
                    .init(
                        file: "blkio.throttle.\(way)_bps_device",
                        value: "\(device) \(limits.io ?? 0)")
                }
            }
        }
    }
}

/// A path of mountinfo, where what would end the word is written in octal.
private func unescaped(_ word: Substring) -> String {
    var text = String(word)
    for (code, character) in [("\\040", " "), ("\\011", "\t"), ("\\134", "\\")] {
        text = text.replacing(code, with: character)
    }
    return text
}
