// SPDX-License-Identifier: Apache-2.0
import Supervisor

/// What the unit that serves a VM's shares, `microvm-virtiofsd@NAME.service`, has beyond its template:
/// a drop-in; pure.
///
/// Where all shares are of one user the unit is that user and nothing more. Owners that stay as they
/// are need a few rights of root, and QEMU's own daemon most of them.
struct ShareUnit: Equatable {
    let vm: String
    let daemon: FileDaemon.Kind
    let shares: [SharedFolder]
    /// The name of the VM's own user.
    let account: String
    /// Where links to the folders lie, by number: systemd 257 starts nothing where a path to mount
    /// holds a colon or a quote.
    let sources: String

    static func name(_ vm: String) -> String { "microvm-virtiofsd@\(vm).service" }

    /// Where the source of a share is seen in the unit.
    static func mountPoint(_ index: Int) -> String { "/var/share/\(index)" }

    /// Who the keeper and its daemons are.
    enum Rights { case oneUser, owners, all }

    var rights: Rights {
        if daemon == .c { return .all }
        return shares.allSatisfy(\.owners.isOfOneUser) ? .oneUser : .owners
    }

    var text: String {
        let binds = shares.enumerated().map { index, share in
            "Bind\(share.readOnly ? "ReadOnly" : "")Paths=\(sources)/\(index):\(share.mountPoint)"
        }
        return ([UnitSettings.mark, "[Service]"] + binds + identity).joined(separator: "\n") + "\n"
    }

    private var identity: [String] {
        switch rights {
        case .oneUser: ["User=\(account)", "Group=\(account)"]
        case .owners:
            ["# Owners of files stay as they are."] + ShareUnit.root + [
                "CapabilityBoundingSet=\(ShareUnit.capabilities)",
                "SystemCallFilter=", "SystemCallFilter=@system-service seccomp",
                "SystemCallFilter=~@resources @keyring io_uring_setup io_uring_enter "
                    + "io_uring_register",
            ]
        case .all:
            // Its own filter ends it where the kernel refuses what it does not expect.
            ["# QEMU's own virtiofsd makes namespaces and mounts."] + ShareUnit.root + [
                "CapabilityBoundingSet=\(ShareUnit.capabilities) CAP_SYS_ADMIN CAP_SYS_CHROOT",
                "RestrictNamespaces=", "RestrictNamespaces=mnt net pid", "SystemCallFilter=",
                "SystemCallFilter=~@clock @cpu-emulation @debug @keyring @module @obsolete @raw-io "
                    + "@reboot @swap",
            ]
        }
    }

    private static let root = [
        "User=", "Group=", "SecureBits=", "PrivateUsers=no", "RestrictSUIDSGID=no",
    ]

    /// What it takes to read the files of all and to give them away, and to drop all other rights.
    private static let capabilities =
        "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_SETFCAP "
        + "CAP_SETGID CAP_SETPCAP CAP_SETUID"
}
