// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// What a program may see and do when it is started confined; `Program.spawn` and
/// `Program.become` carry it out.
///
/// Nothing of it is optional: what the kernel refuses is an error that names the step, and the
/// program is not started.
package struct Sandbox: Sendable, Equatable {
    package struct Place: Sendable, Equatable {
        package enum Kind: Sendable, Equatable {
            case readable, writable, device
            /// A symbolic link to this; where Landlock closes files, what the host has there.
            case link(to: String)
            /// A folder that is empty but for the places in it, where another place shows it.
            case hidden
        }

        package var path: String
        package var kind: Kind
        /// May be missing; if it is a link on the host, it is one here.
        package var isOptional: Bool

        package init(_ path: String, _ kind: Kind, isOptional: Bool = false) {
            self.path = path
            self.kind = kind
            self.isOptional = isOptional
        }
    }

    /// How the places become all that is there.
    package enum Root: Sendable, Equatable {
        /// A root of its own, put together over a folder, such as `/run/NAME`, that no place is above.
        case own(stage: String)
        /// The host's, where Landlock closes everything but the places.
        case landlock
        /// The host's.
        case host
    }

    package var root: Root
    package var places: [Place] = []
    /// `hidepid` of its /proc; with a user namespace of its own it sees the host's.
    package var hiddenProcesses = "invisible"
    /// Nothing but processes is in its /proc.
    package var onlyProcesses = true
    /// A user namespace with nobody but ourselves in it: what needs privilege can then be done without.
    package var ownUser = false
    package var ownIPC = true
    package var ownHostName = true
    package var ownKeyring = true
    /// The user to whom its device nodes belong, but for those that are everybody's; nil: as on the
    /// host.
    package var deviceOwner: UInt32?
    /// The one capability that the program gets, by its number in linux/capability.h; nil for none.
    ///
    /// Who has no privilege cannot give it, and then it is not there.
    package var capability: Int32?
    /// Of seccomp, as `SystemCallFilter.program` makes it; empty for none.
    package var filter: [UInt8] = []
    /// Open files `cgroup.procs` that it joins.
    package var controlGroups: [Int32] = []

    package init(root: Root) { self.root = root }

    /// What a child was doing when it failed.
    package struct Step: Sendable, Equatable {
        let number: Int32
        /// The path that it failed with.
        package let place: String?

        /// Words that follow "cannot".
        package var text: String {
            String(cString: ml_step_name(number)) + (place.map { " (\($0))" } ?? "")
        }

        /// Whether this kernel does not let us have a root of our own without privilege.
        package var isRoot: Bool {
            [ML_STEP_USER_NAMESPACE, ML_STEP_NAMESPACES, ML_STEP_ROOT, ML_STEP_PLACE]
                .contains { Int32($0) == number }
        }
        package var isLandlock: Bool { number == Int32(ML_STEP_LANDLOCK) }
        package var isExecution: Bool { number == Int32(ML_STEP_EXEC) }
    }

    /// Calls with the sandbox in the form of C, which lives no longer.
    func withRaw<R>(_ body: (UnsafePointer<ml_sandbox>) -> R) -> R {
        var raw = ml_sandbox()
        let ordered = orderedPlaces
        let paths: [UnsafeMutablePointer<CChar>?] = ordered.map { strdup($0.path) }
        let over: String = if case .own(let stage) = root { stage } else { "/" }
        let targets: [UnsafeMutablePointer<CChar>?] = ordered.map { place in
            if case .link(let target) = place.kind { strdup(target) } else { nil }
        }
        let user = geteuid()
        let group = getegid()
        let words = ["\(user) \(user) 1", "\(group) \(group) 1", hiddenProcesses, over]
        let texts: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        defer { for pointer in paths + targets + texts { free(pointer) } }
        let places = ordered.indices.map { index in
            ml_place(
                path: paths[index], kind: Int32(ordered[index].kind.raw),
                optional: ordered[index].isOptional ? 1 : 0, target: targets[index])
        }
        raw.capability = capability ?? -1
        raw.landlock = root == .landlock ? 1 : 0
        raw.uid_map = ownUser ? UnsafePointer(texts[0]) : nil
        raw.gid_map = ownUser ? UnsafePointer(texts[1]) : nil
        raw.hidepid = UnsafePointer(texts[2])
        raw.stage = UnsafePointer(texts[3])
        raw.only_processes = onlyProcesses ? 1 : 0
        raw.own_ipc = ownIPC ? 1 : 0
        raw.own_hostname = ownHostName ? 1 : 0
        raw.device_owner = deviceOwner ?? UInt32.max
        raw.own_keyring = ownKeyring ? 1 : 0
        return places.withUnsafeBufferPointer { places in
            filter.withUnsafeBytes { filter in
                controlGroups.withUnsafeBufferPointer { groups in
                    raw.places = places.baseAddress
                    raw.nplaces = places.count
                    raw.filter = filter.baseAddress
                    raw.filter_size = filter.count
                    raw.cgroups = groups.baseAddress
                    raw.ncgroups = groups.count
                    return withUnsafePointer(to: raw) { body($0) }
                }
            }
        }
    }

    /// Outer ones before those inside; a hidden folder before what is seen in its place.
    private var orderedPlaces: [Place] {
        root == .host
            ? [] : places.sorted { ($0.path, $0.kind.order) < ($1.path, $1.kind.order) }
    }

    func step(_ number: Int32, place: Int32) -> Step {
        let ordered = orderedPlaces
        let index = Int(place)
        return Step(
            number: number, place: ordered.indices.contains(index) ? ordered[index].path : nil)
    }
}

extension Sandbox.Place.Kind {
    fileprivate var raw: Int {
        switch self {
        case .readable: Int(ML_PLACE_READABLE)
        case .writable: Int(ML_PLACE_WRITABLE)
        case .device: Int(ML_PLACE_DEVICE)
        case .hidden: Int(ML_PLACE_HIDDEN)
        case .link: Int(ML_PLACE_LINK)
        }
    }
    fileprivate var order: Int { self == .hidden ? 0 : 1 }
}
