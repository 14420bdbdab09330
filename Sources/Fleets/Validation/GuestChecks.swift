// SPDX-License-Identifier: Apache-2.0

/// Accounts that every guest has; `_apt` and `systemd-*` are covered by their form.
private let systemAccounts: Set<String> = [
    "root", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news", "uucp", "proxy",
    "www-data", "backup", "list", "irc", "gnats", "nobody", "sshd", "messagebus", "admin", "user",
]
private let systemGroups: Set<String> = ["root", "shadow", "disk", "kmem"]

/// What the guest's identity arrives as.
private let ownCredentials = [
    "system.", "ssh.", "network.", "passwd.", "sysusers.", "tmpfiles.", "systemd.", "martlet.",
    "getty.", "login.", "firstboot.", "vmm.", "journal.", "fstab.", "sysctl.",
]

func isAccountName(_ name: String) -> Bool {
    (1...32).contains(name.utf8.count)
        && name.utf8.first.map { (0x61...0x7A).contains($0) || $0 == UInt8(ascii: "_") } == true
        && name.utf8.allSatisfy {
            isLetterOrDigit($0) && !(0x41...0x5A).contains($0) || $0 == UInt8(ascii: "-")
                || $0 == UInt8(ascii: "_")
        }
}

extension Validator {
    func checkGuest(_ vm: VM) {
        var names: Set<String> = []
        for (index, user) in vm.users.enumerated() {
            let at: [Step] = ["users", .index(index)]
            if !isAccountName(user.name) {
                fail(
                    vm, at + ["name"],
                    "'\(user.name)' is no login name: a-z first, then a-z, 0-9, '-', '_'")
            } else if user.name == "admin" || user.name == "root" {
                fail(
                    vm, at + ["name"],
                    "every guest has '\(user.name)'; its keys are 'ssh: { user: \(user.name), authorizedKeys: […] }'"
                )
            } else if systemAccounts.contains(user.name) || user.name.hasPrefix("systemd-")
                || user.name.hasPrefix("_")
            {
                fail(vm, at + ["name"], "'\(user.name)' is an account of the guest's system")
            }
            if !names.insert(user.name).inserted {
                fail(vm, at + ["name"], "the VM has a user '\(user.name)' already")
            }
            checkGroups(vm, user, at + ["groups"])
            checkKeys(vm, user.authorizedKeys, at + ["authorizedKeys"])
        }
        checkKeys(vm, vm.ssh.authorizedKeys ?? [], ["ssh", "authorizedKeys"])
        let accounts = ["admin", "user", "root"] + vm.users.map(\.name)
        if !accounts.contains(vm.ssh.user) {
            fail(
                vm, ["ssh", "user"],
                "no account '\(vm.ssh.user)'" + nearest(vm.ssh.user, in: accounts))
        }
        if !isTimezone(vm.timezone) {
            fail(vm, ["timezone"], "expected a name such as Europe/Berlin, found '\(vm.timezone)'")
        }
        checkKernel(vm)
    }

    private func checkGroups(_ vm: VM, _ user: User, _ at: [Step]) {
        for (index, group) in user.groups.enumerated() {
            if !isAccountName(group) {
                fail(vm, at + [.index(index)], "'\(group)' is no name of a group")
            } else if group == "sudo" {
                fail(vm, at + [.index(index)], "write 'sudo: true' instead of the group 'sudo'")
            } else if systemGroups.contains(group) {
                fail(
                    vm, at + [.index(index)],
                    "the group '\(group)' is as good as root; use 'sudo: true'")
            }
        }
    }

    private func checkKeys(_ vm: VM, _ keys: [AuthorizedKey], _ at: [Step]) {
        for (index, key) in keys.enumerated() {
            let words = key.text.split(separator: " ")
            let body = words.count > 1 ? words[1] : ""
            let isWhole = words[0] != "ssh-ed25519" || body.utf8.count == 68
            if !body.hasPrefix("AAAA") || !isWhole {
                fail(
                    vm, at + [.index(index)],
                    "the key is cut off or not whole; copy the line of the .pub file")
            }
        }
    }

    private func isTimezone(_ text: String) -> Bool {
        let parts = text.pieces("/")
        return parts.count <= 3
            && parts.allSatisfy { part in
                part.first?.isLetter == true
                    && part.utf8.allSatisfy {
                        isLetterOrDigit($0) || "_+-".utf8.contains($0)
                    }
            }
    }

    private func checkKernel(_ vm: VM) {
        for (index, parameter) in vm.kernel.parameters.enumerated() {
            let name = parameter.pieces("=")[0]
            let at: [Step] = ["kernel", "parameters", .index(index)]
            if parameter.isEmpty || !parameter.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) {
                fail(vm, at, "a kernel parameter is one word; make a list item of each")
            } else if ["init", "rdinit", "root", "initrd"].contains(name) {
                fail(vm, at, "'\(name)=' is how Martlet boots the guest and cannot be changed")
            }
        }
        for (index, module) in vm.kernel.modules.enumerated() where !isWord(module, 64) {
            fail(vm, ["kernel", "modules", .index(index)], wordRule(module, 64))
        }
        if case .custom(let settings) = vm.hardening.confine {
            for name in settings.keys.sorted()
            where name.first?.isUppercase != true || !name.utf8.allSatisfy(isLetterOrDigit) {
                fail(
                    vm, ["hardening", "confine", .key(name)],
                    "'\(name)' is no setting of a unit; they look like ProtectProc (systemd.exec)")
            }
        }
        checkExceptions(vm)
    }

    /// One that leaves nothing out would let its author believe that something is left out.
    private func checkExceptions(_ vm: VM) {
        let level = vm.hardening.kernel
        let known = HardeningSetting.table
        for (index, name) in vm.hardening.exceptions.enumerated() {
            let at: [Step] = ["hardening", "exceptions", .index(index)]
            guard let setting = known.first(where: { $0.key == name }) else {
                let near = nearest(name, in: known.map(\.key))
                fail(
                    vm, at,
                    "no setting '\(name)'"
                        + (near.isEmpty
                            ? "; names look like kernel.sysrq, module:sctp, parameter:debugfs"
                            : near))
                continue
            }
            if level == .off {
                warn(vm, at, "'\(name)' is no exception where 'hardening.kernel' is off")
            } else if setting.value(at: level) == nil {
                fail(
                    vm, at,
                    "'\(name)' is set by 'hardening.kernel: strict', and this VM has "
                        + "\(level.rawValue): leave it out")
            }
        }
    }

    func checkCredentials(_ vm: VM) {
        let prefix = vm.credentialPrefix
        if vm.service != nil, prefix != ServiceCredential.prefix {
            fail(
                vm, ["credentialPrefix"],
                "the units of a service look for '\(ServiceCredential.prefix)…'; leave it out")
        }
        if !prefix.utf8.allSatisfy(isWordByte) {
            fail(vm, ["credentialPrefix"], "a prefix takes letters, digits, '-', '_' and '.'")
        }
        // QEMU has 128 slots for such entries, and the identity of the guest needs some of them.
        if vm.credentials.count > 96 {
            fail(
                vm, ["credentials"],
                "a guest takes at most 96 credentials, found \(vm.credentials.count)")
        }
        for (name, credential) in vm.credentials.sorted(by: { $0.key < $1.key }) {
            let at: [Step] = ["credentials", .key(name)]
            let full = prefix + name
            if !isWord(name, 64) {
                fail(vm, at, wordRule(name, 64))
            } else if full.utf8.count > 28 {
                fail(
                    vm, at,
                    "'\(full)' has \(full.utf8.count) characters and fw_cfg has room for 28; shorten the "
                        + "name, or 'credentialPrefix'")
            } else if ownCredentials.contains(where: full.hasPrefix) {
                fail(vm, at, "'\(full)' is how the guest gets its identity; choose another name")
            }
            if let secret = credential.secret, !isKnown("secrets", secret) {
                unknownSecret(vm, secret, at + ["secret"])
            }
            if let text = credential.text, text.utf8.count > 65_536 {
                fail(
                    vm, at + ["text"],
                    "a credential holds at most 64KiB; put it into the image's 'files'")
            }
        }
        for (index, text) in vm.oemStrings.enumerated()
        where text.isEmpty || text.utf8.contains(where: { $0 < 0x20 }) || text.utf8.count > 4_096 {
            fail(
                vm, ["oemStrings", .index(index)], "an OEM string is one line of up to 4096 bytes")
        }
    }

    mutating func checkLifecycle(_ vm: VM) {
        if let uuid = vm.uuid {
            claim(
                .uuid(uuid), vm, ["uuid"], "leave 'uuid' out to make one")
        }
        if vm.boot.deadline < .seconds(5) {
            fail(
                vm, ["boot", "deadline"],
                "no guest boots within \(vm.boot.deadline); give at least 5s")
        }
        if vm.limits.tasks < 32 {
            fail(
                vm, ["limits", "tasks"],
                "a VM's own process needs 32 tasks, found \(vm.limits.tasks)")
        }
        if vm.limits.memoryOverhead < .mebibytes(32) {
            fail(
                vm, ["limits", "memoryOverhead"],
                "a VM's own process needs 32MiB, found \(vm.limits.memoryOverhead)")
        }
        for (index, check) in vm.health.enumerated() {
            let at: [Step] = ["health", .index(index)]
            if let name = check.dns, !isHostName(name) {
                fail(vm, at + ["dns"], "expected a host name, found '\(name)'")
            }
            if let command = check.exec, command.allSatisfy(\.isWhitespace) {
                fail(vm, at + ["exec"], "expected a command, found nothing")
            }
        }
        if vm.service == nil, !vm.with.json.members.isEmpty {
            fail(vm, ["with"], "'with' holds the parameters of a 'service', and this VM names none")
        }
    }
}
