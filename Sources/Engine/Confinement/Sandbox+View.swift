// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux

/// What Martlet's own launcher makes of a view.
struct Confined {
    var sandbox: Sandbox
    var newNetwork: Bool
    /// Settings of the view that only a service manager can hold, or not with that value.
    var notHeld: [ProcessView.Setting] = []
}

extension Confined {
    /// Settings that the launcher holds with one value and no other.
    static let fixed: [String: String] = [
        "CapabilityBoundingSet": "", "AmbientCapabilities": "", "NoNewPrivileges": "yes",
        "LimitCORE": "0", "UMask": "0077", "ProtectSystem": "strict", "ProtectHome": "yes",
        "PrivateTmp": "yes", "PrivateDevices": "yes", "PrivateMounts": "yes",
        "ProtectClock": "yes", "ProtectKernelTunables": "yes", "ProtectKernelModules": "yes",
        "ProtectKernelLogs": "yes", "ProtectControlGroups": "yes", "RestrictRealtime": "yes",
        "RemoveIPC": "yes", "SystemCallErrorNumber": "EPERM", "SystemCallArchitectures": "native",
    ]

    /// Turns a view into what `Program` carries out; pure but for the filter, which is the machine's.
    init(_ view: ProcessView, stage: String) throws(SystemError) {
        sandbox = Sandbox(root: .own(stage: stage))
        newNetwork = !view.hasNetwork
        sandbox.places =
            view.hidden.map { .init($0, .hidden, isOptional: true) }
            + view.readable.map { .init($0.path, .readable, isOptional: $0.isOptional) }
            + view.writable.map { .init($0.path, .writable, isOptional: $0.isOptional) }
            + view.devices.map { .init($0.path, .device, isOptional: $0.isOptional) }
        var filter = SystemCallFilter()
        filter.families = ["AF_UNIX"]
        for setting in view.settings where !take(setting, into: &filter) {
            notHeld.append(setting)
        }
        sandbox.filter = try filter.program()
    }

    /// Holds one setting; false when it cannot be held as it is written.
    private mutating func take(
        _ setting: ProcessView.Setting, into filter: inout SystemCallFilter
    ) -> Bool {
        if let value = Confined.fixed[setting.name] {
            return setting.value == value
                || ProcessView.isYes(setting.value) == true && value == "yes"
        }
        switch setting.name {
        case "ProtectProc":
            let words = [
                "default": "off", "invisible": "invisible", "noaccess": "noaccess",
                "ptraceable": "ptraceable",
            ]
            guard let word = words[setting.value] else { return false }
            sandbox.hiddenProcesses = word
        case "ProcSubset":
            guard ["pid", "all"].contains(setting.value) else { return false }
            sandbox.onlyProcesses = setting.value == "pid"
        case "KeyringMode":
            guard ["private", "inherit"].contains(setting.value) else { return false }
            sandbox.ownKeyring = setting.value == "private"
        case "RestrictAddressFamilies":
            let families = setting.value.split(separator: " ").map(String.init)
            guard families.allSatisfy(SystemCallFilter.isFamily), !families.isEmpty else {
                return false
            }
            filter.families = families
        // What is closed to an interface `user` is so by the control group.
        case "IPAddressAllow": break
        case "SystemCallFilter": return take(calls: setting.value, into: &filter)
        default: return take(yesOrNo: setting, into: &filter)
        }
        return true
    }

    private mutating func take(
        yesOrNo setting: ProcessView.Setting, into filter: inout SystemCallFilter
    ) -> Bool {
        guard let yes = ProcessView.isYes(setting.value) else { return false }
        switch setting.name {
        // The view knows: where there is no network of its own there is the host's.
        case "PrivateNetwork": break
        case "PrivateIPC": sandbox.ownIPC = yes
        case "ProtectHostname": sandbox.ownHostName = yes
        case "RestrictNamespaces": filter.mayMakeNamespaces = !yes
        case "LockPersonality": filter.mayChangePersonality = !yes
        case "MemoryDenyWriteExecute": filter.mayWriteAndExecute = !yes
        case "RestrictSUIDSGID": filter.maySetIDs = !yes
        default: return false
        }
        return true
    }

    /// Takes lines of names, each added to the standard list or, after a `~`, taken from it; of groups
    /// the launcher has those of the standard list alone.
    private func take(calls: String, into filter: inout SystemCallFilter) -> Bool {
        var isHeld = true
        for line in calls.split(separator: "\n") where !ProcessView.calls.contains(String(line)) {
            let names = line.drop { $0 == "~" }.split(separator: " ").map(String.init)
            guard !names.contains(where: { $0.hasPrefix("@") }) else {
                isHeld = false
                continue
            }
            if line.hasPrefix("~") {
                filter.removed += names
            } else {
                filter.added += names
            }
        }
        return isHeld
    }
}
