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

    static let mark = "# Made by martlet from a fleet file: changes are lost."

    var text: String {
        var lines = [
            UnitSettings.mark, "# Put your own settings into another file beside this one.",
            "[Unit]",
            "Description=microVM \(vm.name) of the fleet \(fleet)",
        ]
        lines += vm.after.map { "After=\(ServiceManager.unit($0))" }
        guard let user else { return lines.joined(separator: "\n") + "\n" }
        lines += ["", "[Service]", "User=\(user)", "Group=\(user)"]
        if !groups.isEmpty { lines.append("SupplementaryGroups=\(groups.joined(separator: " "))") }
        if vm.interfaces.contains(where: \.isUser) { lines += UnitSettings.ownTraffic }
        if isEmulated { lines.append("MemoryDenyWriteExecute=no") }
        return lines.joined(separator: "\n") + "\n"
    }

    /// A `user` interface is the hypervisor's own traffic: it needs the host's network and its
    /// resolver.
    private static let ownTraffic = [
        "# A 'user' interface is the hypervisor's own traffic.",
        "PrivateNetwork=no",
        "RestrictAddressFamilies=AF_INET AF_INET6",
        "IPAddressDeny=",
        "BindReadOnlyPaths=-/etc/resolv.conf",
    ]
}
