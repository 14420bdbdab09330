// SPDX-License-Identifier: Apache-2.0

/// Places of the host that no guest gets, with everything below them.
private let closedTrees = [
    "/proc", "/sys", "/dev", "/run/secrets", "/run/secrets.d", "/run/agenix", "/run/agenix.d",
    "/run/credentials",
]
/// Places that are too much; a directory below them may be shared.
private let closedWhole: Set<String> = [
    "/", "/bin", "/boot", "/etc", "/home", "/lib", "/lib64", "/root", "/run", "/sbin", "/usr",
    "/var", "/var/lib", "/var/run",
]

/// Why a guest cannot have a directory of the host, whoever it is; nil when it can.
///
/// The path is absolute and without links: the host knows where those lead.
package func whyNotShared(_ path: String) -> String? {
    if let tree = closedTrees.first(where: { isPath(path, within: $0) }) {
        return "\(path) cannot be used: \(tree) belongs to the system"
    }
    guard closedWhole.contains(path) else { return nil }
    return "sharing all of \(path) would hand the host's own files to the guest; share a "
        + "directory of its own"
}

/// Whether a path is a folder or lies below it.
package func isPath(_ path: String, within folder: String) -> Bool {
    folder == "/" || path == folder
        || path.hasPrefix(folder) && path.utf8.dropFirst(folder.utf8.count).first == 0x2F
}

/// The shares of a fleet by where they are, to find those that meet.
struct ShareMap {
    struct Entry {
        let vm: String
        let share: Share
        let step: [Step]
    }

    /// By path, and by each folder above a path; a few of each are enough to say that there are some.
    private var at: [String: [Entry]] = [:]
    private var below: [String: [Entry]] = [:]

    /// The shares of the host that hold this one, are it, or lie in it.
    func meeting(_ source: String) -> [Entry] {
        folders(above: source).flatMap { at[$0] ?? [] } + (at[source] ?? []) + (below[source] ?? [])
    }

    mutating func add(_ entry: Entry) {
        insert(entry, &at[entry.share.source, default: []])
        for folder in folders(above: entry.share.source) {
            insert(entry, &below[folder, default: []])
        }
    }

    private func insert(_ entry: Entry, _ entries: inout [Entry]) {
        let isKnown = entries.contains { $0.share.readOnly == entry.share.readOnly }
        if entries.count < 8 || !isKnown { entries.append(entry) }
    }

    private func folders(above path: String) -> [String] {
        var folders: [String] = []
        var rest = path[...]
        while let slash = rest.lastIndex(of: "/"), slash != rest.startIndex {
            rest = rest[..<slash]
            folders.append(String(rest))
        }
        return folders
    }
}

extension Validator {
    mutating func checkShareSource(_ vm: VM, _ share: Share, _ at: [Step]) {
        // Only the form of the path: what it leads to is checked on the host.
        if let problem = unusable(share.source, below: []) ?? whyNotShared(share.source) {
            return fail(vm, at, problem)
        }
        guard vm.enable else { return }
        let host = vm.host ?? ""
        var said: Set<String> = []
        for other in shares[host, default: ShareMap()].meeting(share.source)
        where said.insert(other.vm).inserted {
            warnOfMeeting(vm, share, at, other)
        }
        shares[host, default: ShareMap()].add(.init(vm: vm.name, share: share, step: at))
    }

    private func warnOfMeeting(_ vm: VM, _ share: Share, _ at: [Step], _ other: ShareMap.Entry) {
        let place = places.place("vms." + other.vm, other.step)
        let path = other.share.source
        if other.vm == vm.name {
            return warn(
                vm, at,
                "the VM has these files through its share of \(path) already (\(place)), and what "
                    + "it does to them here is seen late there; share one of the two")
        }
        switch (share.readOnly, other.share.readOnly) {
        case (true, true): return
        case (false, false):
            warn(
                vm, at,
                "vms.\(other.vm) can write to \(path) as well (\(place)), so each of the two can "
                    + "change the other's files; add 'readOnly: true' to one of them if it only "
                    + "reads")
        case (true, false), (false, true):
            let (writer, reader) =
                share.readOnly ? (other.vm, vm.name) : (vm.name, other.vm)
            warn(
                vm, at,
                "vms.\(reader) reads what vms.\(writer) writes: \(path) is shared with both "
                    + "(\(place)), so what the one puts there reaches the other")
        }
    }

    func checkMachineOfShares(_ vm: VM) {
        guard vm.machine == .microvm, !vm.shares.isEmpty else { return }
        fail(
            vm, ["shares"],
            "shares hang on the machine microvm where there is no KVM; use 'machine: q35', or "
                + "leave it to 'auto'")
    }
}
