// SPDX-License-Identifier: Apache-2.0
import Fleets

/// What one VM's unit has beyond the template: a drop-in; pure.
struct UnitSettings: Equatable {
    let vm: VM
    let fleet: String
    /// The name of the VM's own user; nil for units of a user's own manager.
    let user: String?
    /// Further groups, such as the one that may open /dev/kvm.
    var groups: [String] = []
    /// Whether its CPUs are emulated: QEMU then runs what it has just written.
    var isEmulated = false
    /// A folder on the disk that `limits.io` is about.
    var disks = "/var/lib/martlet"

    /// Whether the VM starts with its host.
    var isWanted: Bool { vm.autostart && vm.enable }

    static let mark = "# Made by martlet from a fleet file: changes are lost."

    var text: String {
        var lines = [
            UnitSettings.mark, "# Put your own settings into another file beside this one.",
            "[Unit]", "Description=microVM \(vm.name) of the fleet \(fleet)",
        ]
        lines += vm.after.map { "After=\(ServiceManager.unit($0))" }
        lines += ["", "[Service]"]
        if let user { lines += ["User=\(user)", "Group=\(user)"] }
        if !groups.isEmpty { lines.append("SupplementaryGroups=\(groups.joined(separator: " "))") }
        lines += UnitSettings.limits(of: vm, disks: disks)
        if user != nil { lines += walls }
        return lines.joined(separator: "\n") + "\n"
    }

    /// The limits of a VM; `disks` is a folder on the disk that `limits.io` is about.
    static func limits(of vm: VM, disks: String) -> [String] {
        let limits = vm.limits
        var lines = [
            "MemoryMax=\(vm.memory.max.bytes + limits.memoryOverhead.bytes)",
            "TasksMax=\(limits.tasks)",
        ]
        if let cpu = limits.cpu { lines.append("CPUQuota=\(cpu.value)%") }
        if let rate = limits.io?.bytesPerSecond {
            lines += ["Read", "Write"].map { "IO\($0)BandwidthMax=\(disks) \(rate)" }
        }
        return lines
    }

    /// What differs from the template's walls, the VM's own settings last.
    private var walls: [String] {
        if case .off = vm.hardening.confine { return UnitSettings.noWalls }
        var lines: [String] = []
        if vm.interfaces.contains(where: \.isUser) { lines += UnitSettings.ownTraffic }
        if isEmulated { lines.append("MemoryDenyWriteExecute=no") }
        if case .custom(let own) = vm.hardening.confine {
            lines += own.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        }
        return lines
    }

    /// A `user` interface is the hypervisor's own traffic: it needs the host's network and its
    /// resolver.
    private static let ownTraffic = [
        "# A 'user' interface is the hypervisor's own traffic.", "PrivateNetwork=no",
        "RestrictAddressFamilies=AF_INET AF_INET6", "IPAddressDeny=",
        "BindReadOnlyPaths=-/etc/resolv.conf",
    ]

    /// `confine: false`: its own user, no privilege, and nothing else.
    static let noWalls = [
        "# confine: false", "RootDirectory=", "MountAPIVFS=no", "TemporaryFileSystem=",
        "BindReadOnlyPaths=", "BindPaths=", "ProtectSystem=no", "ReadWritePaths=",
        "ProtectHome=no", "PrivateTmp=no", "PrivateMounts=no", "ProtectProc=default",
        "ProcSubset=all", "ProtectControlGroups=no", "ProtectKernelLogs=no",
        "ProtectKernelModules=no", "ProtectKernelTunables=no", "ProtectClock=no",
        "ProtectHostname=no", "PrivateDevices=no", "DevicePolicy=auto", "PrivateUsers=no",
        "PrivateIPC=no", "PrivateNetwork=no", "IPAddressDeny=", "RestrictAddressFamilies=",
        "RestrictNamespaces=no", "RestrictRealtime=no", "LockPersonality=no",
        "MemoryDenyWriteExecute=no", "SystemCallArchitectures=", "SystemCallFilter=",
    ]
}
