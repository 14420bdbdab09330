// SPDX-License-Identifier: Apache-2.0

/// Places of a guest that belong to the system, with everything below them.
private let systemTrees = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run",
    "/sbin", "/sys", "/usr",
]
/// Places that are mounted already, though something may be mounted below them.
private let systemMounts: Set<String> = ["/", "/home", "/root", "/tmp", "/var", "/var/lib", "/opt"]

extension Validator {
    mutating func checkStorage(_ vm: VM) {
        var mounts: [String: String] = [:]
        var names: Set<String> = []
        for (index, volume) in vm.volumes.enumerated() {
            let at: [Step] = ["volumes", .index(index)]
            checkVolume(vm, volume, at)
            if !names.insert(volume.name).inserted {
                fail(vm, at + ["name"], "the VM has a volume '\(volume.name)' already")
            }
            if let mount = volume.mount {
                checkMount(vm, mount, "volume '\(volume.name)'", at + ["mount"], &mounts)
            }
        }
        var tags: Set<String> = []
        for (index, share) in vm.shares.enumerated() {
            let at: [Step] = ["shares", .index(index)]
            checkShareSource(vm, share, at + ["source"])
            if !tags.insert(share.tag).inserted {
                fail(
                    vm, at,
                    "the VM has a share with the tag '\(share.tag)' already; give it another 'tag'")
            }
            checkMount(vm, share.mount, "share '\(share.tag)'", at + ["mount"], &mounts)
            if let owner = share.create?.owner, !isAccountName(owner) {
                fail(vm, at + ["create", "owner"], "expected a user of the host, found '\(owner)'")
            }
        }
        checkMachineOfShares(vm)
        checkBackups(vm)
    }

    private mutating func checkVolume(_ vm: VM, _ volume: Volume, _ at: [Step]) {
        // The guest finds a disk by its serial number, and virtio has room for 20 bytes.
        if !isName(volume.name) || volume.name.utf8.count > 20 {
            fail(
                vm, at + ["name"],
                "'\(volume.name)' is no name: use a-z, 0-9 and inner '-', at most 20")
        } else if ["data", "root", "layers"].contains(volume.name) || volume.name.hasPrefix("layer")
        {
            fail(
                vm, at + ["name"],
                "'\(volume.name)' is a disk that every VM has; choose another name")
        }
        if let size = volume.size {
            // mkfs.btrfs takes 114 MiB, but below 256 MiB nothing grows it.
            let least: [Filesystem: UInt64] = [.ext4: 8, .xfs: 300, .btrfs: 256, .vfat: 8]
            if let mebibytes = least[volume.filesystem], size < .mebibytes(mebibytes) {
                fail(
                    vm, at + ["size"],
                    "\(volume.filesystem.rawValue) needs at least \(mebibytes)MiB, found \(size)")
            }
            if size.bytes % (1 << 20) != 0 {
                fail(vm, at + ["size"], "\(size) is no whole number of MiB")
            }
        }
        guard let device = volume.device else { return }
        if !device.hasPrefix("/dev/") {
            fail(vm, at + ["device"], "expected a block device below /dev, found '\(device)'")
        }
        if vm.enable, !volume.readOnly {
            claim(
                .blockDevice(device), vm, at + ["device"],
                "two writers would destroy its contents")
        }
    }

    private func checkMount(
        _ vm: VM, _ mount: String, _ what: String, _ at: [Step], _ mounts: inout [String: String]
    ) {
        if let problem = unusable(mount, below: systemTrees) { return fail(vm, at, problem) }
        // The guest's unit has this path as its name, and some bytes take four there.
        let unitName = mount.utf8.reduce(0) {
            $0 + (isWordByte($1) && $1 != UInt8(ascii: "-") || $1 == UInt8(ascii: "/") ? 1 : 4)
        }
        if unitName > 240 || mount.contains("\\") {
            return fail(vm, at, "choose a shorter mount point, and one without '\\'")
        }
        if systemMounts.contains(mount) {
            return fail(
                vm, at,
                "\(mount) belongs to the guest's system; mount below it, or below /srv or /mnt")
        }
        if let other = mounts.updateValue(what, forKey: mount) {
            fail(vm, at, "\(mount) is the mount point of \(other) already")
        }
    }

    /// Why a path cannot be used; nil when it can.
    func unusable(_ path: String, below trees: [String]) -> String? {
        if !path.hasPrefix("/") { return "expected a path that starts with '/', found '\(path)'" }
        let parts = path.pieces("/").dropFirst()
        if path != "/", parts.contains(where: { $0.isEmpty || $0 == "." || $0 == ".." }) {
            return "write the path without '.', '..', '//' and a '/' at the end: \(join("", path))"
        }
        if path.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F }) {
            return "the path holds a control character"
        }
        let tree = trees.first {
            path.hasPrefix($0)
                && (path.utf8.dropFirst($0.utf8.count).first ?? UInt8(ascii: "/"))
                    == UInt8(ascii: "/")
        }
        guard let tree else { return nil }
        return "\(path) cannot be used: \(tree) belongs to the system"
    }

    private func checkBackups(_ vm: VM) {
        guard let backups = vm.backups else { return }
        if let to = backups.to, to.hasPrefix("restic:") {
            let repository = to.dropFirst(7)
            // Where a relative one is would depend on where martlet is called.
            if !repository.hasPrefix("/"), !repository.contains(":") {
                fail(
                    vm, ["backups", "to"],
                    "expected restic:REPOSITORY with a whole path or a protocol, such as "
                        + "restic:/mnt/backup or restic:sftp:host:/backup, found '\(to)'")
            }
        }
        for (index, recipient) in backups.encrypt.enumerated()
        where !recipient.hasPrefix("age1") && !recipient.hasPrefix("ssh-") {
            fail(
                vm, ["backups", "encrypt", .index(index)],
                "expected an age recipient that starts with age1, found '\(recipient)'")
        }
        if backups.verify != nil, !backups.encrypt.isEmpty, backups.identity == nil {
            fail(
                vm, ["backups", "verify"],
                "an encrypted backup can be verified only with its key; give 'identity'")
        }
    }
}
