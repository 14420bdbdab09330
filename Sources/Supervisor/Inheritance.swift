// SPDX-License-Identifier: Apache-2.0
import Glibc
import Hypervisors
package import Linux

/// What whoever started a supervisor has opened for it.
///
/// A supervisor has no network of its own and no right to devices, so it could not open them. A
/// command line passes them on by inheritance; of a unit, `prepare` stores them in the service
/// manager, and the manager passes them on to `supervise`.
package struct Inheritance: Sendable, Equatable {
    /// Those of its interfaces, in the order of their slots, and after them of its block devices.
    package var machine: [Int32] = []
    /// The channel to the keeper of its shares.
    package var shares: Int32?
    /// The VM's lock, already taken.
    package var lock: Int32?

    package init() {}

    static let machineVariable = "MARTLET_TAPS"
    static let sharesVariable = "MARTLET_SHARES"

    /// The variables by which a service manager says what it passes on (sd_listen_fds(3)).
    package static let managerVariables = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]

    /// The names under which a service manager keeps them.
    private static let lockName = "lock"
    private static let sharesName = "shares"
    private static func machineName(_ index: Int) -> String { "machine\(index)" }

    /// All of it by the names that a service manager keeps it under.
    private var named: [(name: String, descriptor: Int32)] {
        machine.enumerated().map { (Inheritance.machineName($0.offset), $0.element) }
            + (shares.map { [(Inheritance.sharesName, $0)] } ?? [])
            + (lock.map { [(Inheritance.lockName, $0)] } ?? [])
    }

    /// Gives all of it to the service manager; it stays ours to close as well.
    package func store(with manager: Notify) throws(SystemError) {
        for (name, descriptor) in named { try manager.store(descriptor, as: name) }
    }

    /// What this process has inherited; the service manager keeps no copy of it from now on, for
    /// what is held must end with us.
    static func take(
        manager: Notify = Notify(), variable: (String) -> String? = { environment($0) }
    ) throws(SystemError) -> Inheritance {
        let found = parse(pid: getpid(), variable: variable)
        for (name, descriptor) in found.named {
            guard fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0 else {
                throw SystemError("the descriptor \(descriptor) that was handed over")
            }
            if variable("LISTEN_FDS") != nil { manager.forget(name) }
        }
        return found
    }

    /// Reads the variables of either way; pure.
    ///
    /// `LISTEN_FDS` counts descriptors from 3 on, `LISTEN_FDNAMES` names them, in any order, and
    /// `LISTEN_PID` says whom they are for (sd_listen_fds(3)).
    static func parse(pid: Int32, variable: (String) -> String?) -> Inheritance {
        var result = Inheritance()
        if variable("LISTEN_PID").flatMap({ Int32($0) }) == pid {
            let count = variable("LISTEN_FDS").flatMap { Int($0) } ?? 0
            let names = (variable("LISTEN_FDNAMES") ?? "")
                .split(separator: ":", omittingEmptySubsequences: false).map(String.init)
            var byName: [String: Int32] = [:]
            for (index, name) in names.prefix(max(0, count)).enumerated() {
                byName[name] = 3 + Int32(index)
            }
            while let next = byName[machineName(result.machine.count)] {
                result.machine.append(next)
            }
            result.shares = byName[sharesName]
            result.lock = byName[lockName]
            return result
        }
        result.machine = (variable(machineVariable) ?? "").split(separator: ",")
            .compactMap { Int32($0) }
        result.shares = variable(sharesVariable).flatMap { Int32($0) }
        return result
    }
}
