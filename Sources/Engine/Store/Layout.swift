// SPDX-License-Identifier: Apache-2.0
import Linux

/// Where everything is: the one place that knows the names of files below ROOT and RUN.
package struct Layout: Sendable, Equatable {
    /// What lasts: images, identities, disks.
    package let root: String
    /// What a reboot of the host may take away: sockets, credentials.
    package let run: String

    package init(root: String, run: String) {
        self.root = root
        self.run = run
    }

    /// The folders that the environment names, or the standard ones of this user.
    package static func standard(
        user: UInt32, variable: (String) -> String? = { Linux.environment($0) }
    ) throws(StoreError) -> Layout {
        let home = variable("HOME")
        let root =
            variable("MARTLET_ROOT")
            ?? (user == 0
                ? "/var/lib/martlet"
                : (variable("XDG_DATA_HOME") ?? home.map { $0 + "/.local/share" }).map {
                    $0 + "/martlet"
                })
        let run =
            variable("MARTLET_RUN")
            ?? (user == 0
                ? "/run/martlet" : variable("XDG_RUNTIME_DIR").map { $0 + "/martlet" })
            // A user without a session has no runtime folder: below ROOT is as private.
            ?? root.map { $0 + "/run" }
        guard let root, let run else { throw .noHome }
        // Relative paths would mean another place after a change of folder.
        guard root.hasPrefix("/") else { throw .relative("MARTLET_ROOT", root) }
        guard run.hasPrefix("/") else { throw .relative("MARTLET_RUN", run) }
        return Layout(root: root, run: run)
    }

    /// Refuses another user's ROOT: what cannot be looked at must not be reported as stopped.
    package func checkOwner(_ user: UInt32) throws(StoreError) {
        guard user != 0, let owner = try? Files.status(root).owner, owner != user else { return }
        throw .foreignRoot(root, owner: owner)
    }

    package var vms: String { root + "/vms" }
    package var quarantine: String { root + "/quarantine" }
    package var overrides: String { root + "/overrides" }

    package func override(_ name: String) -> String { "\(overrides)/\(name).yaml" }
    package func vm(_ name: String) -> VMLayout {
        VMLayout(name: name, path: "\(vms)/\(name)", run: "\(run)/\(name)")
    }
}

/// Where one VM's files are.
///
/// When root runs the fleet, `path` and `run` belong to root; `disks`, `logs` and `sockets`
/// belong to the VM's own user, so nothing that root reads there is trusted.
package struct VMLayout: Sendable, Equatable {
    package let name: String
    package let path: String
    package let run: String

    package var record: String { path + "/vm.json" }
    package var identity: String { path + "/identity" }
    package var generations: String { path + "/generations" }
    package var current: String { generations + "/current" }
    package func generation(_ number: Int) -> String { "\(generations)/\(number).json" }
    package var disks: String { path + "/disks" }
    package var dataVolume: String { disks + "/data.qcow2" }
    package var logs: String { path + "/logs" }
    package var consoleLog: String { logs + "/console.log" }
    package var events: String { logs + "/events.jsonl" }
    package var supervisorLog: String { logs + "/supervisor.log" }
    /// Not below `logs`: root writes it.
    package var sharesLog: String { path + "/shares.log" }
    package var runRecord: String { logs + "/run.json" }
    package var exitRecord: String { logs + "/exit.json" }
    /// The folder of its memory: it belongs to the VM's user, whose supervisor sees no file that
    /// is made beside the folders that it was started with.
    package var saved: String { path + "/saved" }
    /// The memory of a suspended VM.
    package var memory: String { saved + "/suspended.memory" }
    /// Where that was before it had a folder of its own.
    package var earlierMemory: String { path + "/suspended.memory" }
    /// What that memory belongs to.
    package var suspendRecord: String { path + "/suspended.json" }
    /// Held by the supervisor and its hypervisor for as long as one of them lives.
    package var lock: String { path + "/lock" }
    /// Held by whoever is changing this VM.
    package var changeLock: String { path + "/change.lock" }

    package var launch: String { run + "/launch.json" }
    package var credentials: String { run + "/credentials" }
    /// The sockets of the daemons of its shares, what they are to serve, and who serves.
    package var shares: String { run + "/shares" }
    package var sharesRecord: String { run + "/shares.json" }
    package var sharesLock: String { run + "/shares.lock" }
    package var sockets: String { run + "/sockets" }
    package var sshSocket: String { sockets + "/ssh.sock" }
    package var consoleSocket: String { sockets + "/console.sock" }
    package var controlSocket: String { sockets + "/control.sock" }
}
