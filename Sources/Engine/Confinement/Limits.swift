// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

extension ControlGroups {
    /// The group of one VM in the tree of a kind; nil where there is none.
    func group(_ kind: Kind, of owner: String) -> String? {
        trees[kind].map { "\($0.mount)/martlet/\(owner)" }
    }

    /// The group of one VM in the second version's tree, for what is no limit.
    func unifiedGroup(of owner: String) throws(SystemError) -> String {
        guard let unified else {
            throw SystemError("this host has no control groups of the second version", ENODEV)
        }
        return "\(unified)/martlet/\(owner)"
    }

    /// Makes a VM's group in the tree of a kind, with that kind of limits in it.
    private func make(_ kind: Kind, of owner: String) throws(SystemError) -> String {
        guard let tree = trees[kind], let group = group(kind, of: owner) else {
            throw SystemError("this host has no control groups for it", ENODEV)
        }
        let parent = Files.parent(group)
        try Files.makeFolder(parent)
        if tree.isUnified {
            // What a group hands on to those in it.
            for folder in [tree.mount, parent] {
                try Self.set("\(folder)/cgroup.subtree_control", "+\(kind.rawValue)")
            }
        }
        try Files.makeFolder(group)
        return group
    }

    /// Sets the limits of a VM, and makes its groups where asked; returns the groups that hold them,
    /// and what could not be set.
    func apply(
        _ limits: ProcessView.Limits, of owner: String, devices: [String], making: Bool
    ) -> (groups: [String], failures: [Kind: SystemError]) {
        var groups: [String] = []
        var failures: [Kind: SystemError] = [:]
        for kind in Kind.allCases {
            do throws(SystemError) {
                guard let path = making ? try make(kind, of: owner) : group(kind, of: owner)
                else { throw SystemError("this host has no control groups for it", ENODEV) }
                if kind == .io, limits.io != nil, devices.isEmpty {
                    throw SystemError("the disks are on no block device", ENOTBLK)
                }
                for setting in settings(kind, limits, devices: devices) {
                    try Self.set("\(path)/\(setting.file)", setting.value)
                }
                if !groups.contains(path) { groups.append(path) }
            } catch {
                failures[kind] = error
            }
        }
        return (groups, failures)
    }

    /// One `write`: what the kernel refuses is an error of that call.
    private static func set(_ path: String, _ value: String) throws(SystemError) {
        let file = try Descriptor.open(path, O_WRONLY)
        do {
            try file.write(value.utf8)
        } catch {
            throw SystemError("write '\(value)' to \(path)", error.code)
        }
    }

    /// Removes a VM's groups; those in which something still runs stay for the next time.
    func remove(_ owner: String) {
        let paths = Kind.allCases.map { group($0, of: owner) } + [try? unifiedGroup(of: owner)]
        for path in Set(paths.compactMap(\.self)) where Files.exists(path) {
            // What was killed a moment ago may not be gone yet.
            for _ in 0..<20 where rmdir(path) != 0 && errno == EBUSY { usleep(10_000) }
        }
    }
}

extension Engine {
    /// What tells a VM's control groups from others.
    func groupOwner(_ vm: String) -> String { "\(Derived.rootID(layout.root))-\(vm)" }

    /// Makes a VM's control groups with its limits and what is closed to it; returns files that a process joins them by, the
    /// caller's to close.
    ///
    /// A limit that cannot be set stops no VM: it is a warning, once, when somebody asked for it,
    /// and `status --security` says what holds.
    func joinLimits(of vm: VM, _ limits: ProcessView.Limits) -> [Int32] {
        guard isRoot else {
            warnOfLimits(
                vm,
                Dictionary(
                    uniqueKeysWithValues: ControlGroups.Kind.allCases.map {
                        ($0, SystemError("only root sets limits", EPERM))
                    }))
            return []
        }
        let control = ControlGroups.find()
        var (groups, failures) = control.apply(
            limits, of: groupOwner(vm.name), devices: Self.disks(of: vm, limits), making: true)
        warnOfLimits(vm, failures)
        closeReach(of: vm) {
            let group = try control.unifiedGroup(of: groupOwner(vm.name))
            try Files.makeFolder(group)
            if !groups.contains(group) { groups.append(group) }
            return group
        }
        return groups.compactMap { group in
            do {
                return try Descriptor.open("\(group)/cgroup.procs", O_WRONLY).release()
            } catch {
                reporter.warning("\(vm.name): what holds in \(group) does not: \(error)")
                return nil
            }
        }
    }

    /// Changes the limits of a VM that runs.
    func changeLimits(of vm: VM, _ files: VMLayout) {
        // Those of a VM without root hold nowhere, as its start has said.
        guard isRoot, vm.hardening.confine != .off else { return }
        let limits = ProcessView.Limits(of: vm, files)
        let failures = ControlGroups.find().apply(
            limits, of: groupOwner(vm.name), devices: Self.disks(of: vm, limits), making: false
        ).failures
        warnOfLimits(vm, failures)
    }

    /// Takes a VM's control groups away; nothing of it runs any more.
    func removeLimits(of vm: String) {
        guard isRoot else { return }
        ControlGroups.find().remove(groupOwner(vm))
    }

    private func warnOfLimits(_ vm: VM, _ failures: [ControlGroups.Kind: SystemError]) {
        let plain = Limits()
        let asked: [(ControlGroups.Kind, String, Bool)] = [
            (.cpu, "limits.cpu", vm.limits.cpu != nil),
            (.memory, "limits.memoryOverhead", vm.limits.memoryOverhead != plain.memoryOverhead),
            (.io, "limits.io", vm.limits.io != nil),
            (.pids, "limits.tasks", vm.limits.tasks != plain.tasks),
        ]
        for (kind, key, isAsked) in asked {
            // As root the standard ones are expected to hold, too.
            guard let error = failures[kind], isAsked || isRoot && kind != .io else { continue }
            reporter.warning("\(vm.name): \(key) does not hold: \(error)")
        }
    }

    /// The whole disks that hold the files and the volumes of a VM, as the kernel numbers them.
    static func disks(of vm: VM, _ limits: ProcessView.Limits) -> [String] {
        let paths = [limits.ioPath] + vm.volumes.compactMap(\.device)
        var found: [String] = []
        for path in paths {
            if let disk = BlockDisk.holding(path), !found.contains(disk) { found.append(disk) }
        }
        return found
    }
}

/// The whole disk behind a path: the kernel bounds no partition.
enum BlockDisk {
    static func holding(_ path: String) -> String? {
        var info = stat()
        guard stat(path, &info) == 0 else { return nil }
        let isDevice = info.st_mode & S_IFMT == S_IFBLK
        var number = text(isDevice ? info.st_rdev : info.st_dev)
        if !isDevice, number.hasPrefix("0:") {
            // btrfs and others have numbers of their own; the mount names what they lie on.
            guard let source = source(ofMount: number), stat(source, &info) == 0,
                info.st_mode & S_IFMT == S_IFBLK
            else { return nil }
            number = text(info.st_rdev)
        }
        guard let folder = try? Files.realPath("/sys/dev/block/\(number)") else { return nil }
        guard Files.exists("\(folder)/partition") else { return number }
        let whole = try? Files.readText("\(Files.parent(folder))/dev")
        return whole.map { String($0.prefix { $0 != "\n" }) }
    }

    private static func source(ofMount number: String) -> String? {
        let mounts = (try? Files.readText("/proc/self/mountinfo")) ?? ""
        for line in mounts.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count > 6, words[2] == number, let dash = words.lastIndex(of: "-"),
                dash + 2 < words.count
            else { continue }
            return String(words[dash + 2])
        }
        return nil
    }

    /// As the C functions `major` and `minor` take it apart.
    private static func text(_ number: dev_t) -> String {
        let major = (number >> 8) & 0xfff | (number >> 32) & 0xffff_f000
        let minor = number & 0xff | (number >> 12) & 0xffff_ff00
        return "\(major):\(minor)"
    }
}
