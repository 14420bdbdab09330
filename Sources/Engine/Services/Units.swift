// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Hypervisors
import Linux
import Planning

// MARK: - The files of units

extension ServiceManager {
    /// Where a VM's own settings lie.
    func settings(_ vm: String) -> String {
        "\(folder)/\(ServiceManager.unit(vm)).d/50-martlet.conf"
    }

    /// The link that starts a VM with its host.
    func wish(_ vm: String) -> String {
        "\(folder)/\(ServiceManager.target).wants/\(ServiceManager.unit(vm))"
    }

    /// The link that starts the target of all VMs with a user's own manager; a host's is enabled by
    /// the package.
    private var targetWish: String? {
        kind == .user ? "\(folder)/default.target.wants/\(ServiceManager.target)" : nil
    }

    /// Writes a VM's settings, and whether it starts with its host; tells whether anything changed.
    func install(_ settings: UnitSettings) throws -> Bool {
        let name = settings.vm.name
        let path = self.settings(name)
        var hasChanged = false
        if (try? Files.readText(path)) != settings.text {
            try Files.makeFolder(Files.parent(path))
            try Files.write(path, settings.text, mode: 0o644)
            hasChanged = true
        }
        let link = wish(name)
        if settings.isWanted, !isLink(link) {
            try Files.makeFolder(Files.parent(link))
            try Files.link(template, at: link)
            // Only with a new wish: who has disabled the target since then has meant it.
            if let path = targetWish, !isLink(path) {
                try Files.makeFolder(Files.parent(path))
                try Files.link("\(Files.parent(template))/\(ServiceManager.target)", at: path)
            }
            hasChanged = true
        } else if !settings.isWanted, isLink(link) {
            try Files.remove(link)
            hasChanged = true
        }
        return hasChanged
    }

    /// Sets the limits of a unit that runs: a reload alone leaves those that it was started with.
    ///
    /// What this writes holds until the host's next start; the VM's own settings come after it.
    func limit(_ vm: VM, disks: String) async throws {
        // Those that are not declared any more are taken away.
        let none = ["CPUQuota=", "IOReadBandwidthMax=", "IOWriteBandwidthMax="]
        let unit = ServiceManager.unit(vm.name)
        try await call(
            "limit \(unit)",
            ["set-property", "--runtime", unit] + none + UnitSettings.limits(of: vm, disks: disks))
    }

    /// Removes what `install` made; tells whether there was anything.
    func uninstall(_ vm: String) throws -> Bool {
        let paths = [settings(vm), shareSettings(vm)]
        let isThere = paths.contains(where: Files.exists) || isLink(wish(vm))
        try Files.remove(wish(vm))
        for path in paths {
            try Files.remove(path)
            // Only when it is empty: what others put there is theirs.
            rmdir(Files.parent(path))
        }
        return isThere
    }

    func isLink(_ path: String) -> Bool {
        var info = stat()
        return lstat(path, &info) == 0
    }
}

// MARK: - Units of a fleet

extension Engine {
    /// The manager that a VM is a unit of; nil for throw-away VMs, and where there are no units.
    func services(for name: String) throws -> ServiceManager? {
        guard let manager = services, try store.record(name)?.fleet != nil else { return nil }
        return manager
    }

    /// Makes the units of a fleet's VMs as they are applied now, and removes those of VMs that the
    /// fleet declares no longer.
    func declareUnits(of fleet: Fleet) async throws {
        guard let manager = services else { return }
        var hasChanged = false
        for name in try names(of: fleet) {
            if fleet.vm(name) == nil {
                if await observer.observe(name).vm.phase.isLive { continue }
                if try manager.uninstall(name) { hasChanged = true }
            } else if let vm = try store.current(name)?.vm {
                if try await install(vm, fleet: fleet.name, manager) { hasChanged = true }
            }
        }
        if hasChanged { try await manager.reload() }
    }

    /// Makes the unit of one VM as it is applied now.
    func declareUnit(_ name: String, _ manager: ServiceManager) async throws {
        guard let vm = try store.current(name)?.vm, let fleet = try store.record(name)?.fleet,
            try await install(vm, fleet: fleet, manager)
        else { return }
        try await manager.reload()
    }

    /// Removes the unit of a VM that is not there any more.
    func removeUnit(_ name: String) async throws {
        guard let manager = services, try manager.uninstall(name) else { return }
        try await manager.reload()
    }

    private func install(_ vm: VM, fleet: String, _ manager: ServiceManager) async throws -> Bool {
        defer { Checkpoint.pass() }
        var user: String?
        if let number = try allocateUser(vm.name) { user = try await account(vm.name, number) }
        return try manager.install(unitSettings(of: vm, fleet: fleet, user: user))
    }

    /// What the unit of a VM has to say; `user` names its account, nil without root.
    func unitSettings(of vm: VM, fleet: String, user: String?) -> UnitSettings {
        var settings = UnitSettings(vm: vm, fleet: fleet, user: user)
        settings.disks = layout.root
        guard user != nil else { return settings }
        settings.isEmulated = accelerator(for: vm) == .tcg
        if !settings.isEmulated, let group = groupOfKVM() { settings.groups = [group] }
        return settings
    }

    /// Root's own group would open more than the device.
    private func groupOfKVM() -> String? {
        guard let number = groupOf("/dev/kvm"), number != 0, let group = getgrgid(number) else {
            return nil
        }
        return String(cString: group.pointee.gr_name)
    }
}

// MARK: - Accounts

/// The names of the users that VMs run as: a unit names its user, and knows no bare number.
enum UnitAccount {
    static let prefix = "microvm-"

    /// At most 31 bytes, all that Debian takes.
    static func name(vm: String, user: UInt32) -> String {
        let name = prefix + vm
        return name.utf8.count <= 31 ? name : "\(prefix)\(user)"
    }

    /// The name that the user of a VM has; where there is none yet, the one that it will have.
    static func known(vm: String, user: UInt32) -> String {
        getpwuid(user).map { String(cString: $0.pointee.pw_name) } ?? name(vm: vm, user: user)
    }
}

extension Engine {
    /// The name of the user that a VM runs as, who gets an account if there is none.
    func account(_ vm: String, _ user: UInt32) async throws -> String {
        if let known = getpwuid(user) { return String(cString: known.pointee.pw_name) }
        let name = UnitAccount.name(vm: vm, user: user)
        guard let path = findProgram("systemd-sysusers") else {
            throw StoreError.missingTool(name: "systemd-sysusers", package: "systemd")
        }
        let line = "u \(name) \(user) \"microVM \(vm)\" / /usr/sbin/nologin"
        let output = try await Program(path, ["--inline", line]).capture()
        guard let made = getpwnam(name), made.pointee.pw_uid == user else {
            let said = output.errorText.split(separator: "\n").last.map(String.init)
            throw ServiceError(
                what: "the account \(name) with the number \(user)",
                reason: said ?? "it belongs to somebody else already")
        }
        return name
    }

    /// Removes the account of a VM that is gone for good.
    func removeAccount(_ vm: String) async throws {
        guard services?.kind == .system, let user = try allocateUser(vm),
            let known = getpwuid(user),
            String(cString: known.pointee.pw_name).hasPrefix(UnitAccount.prefix),
            let path = findProgram("userdel")
        else { return }
        _ = try await Program(path, [String(cString: known.pointee.pw_name)]).capture()
    }
}
