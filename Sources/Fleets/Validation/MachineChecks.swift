// SPDX-License-Identifier: Apache-2.0

extension Validator {
    func checkMachine(_ vm: VM) {
        if vm.name == "localhost" { fail(vm, [], "'localhost' is every machine's own name") }
        if !(1...1024).contains(vm.vcpu) {
            fail(vm, ["vcpu"], "a VM has 1 to 1024 CPUs, found \(vm.vcpu)")
        }
        let least = ByteSize.mebibytes(128)
        if vm.memory.min < least {
            fail(
                vm, ["memory"],
                "a guest needs 112MiB to boot, so give at least \(least); found \(vm.memory.min)")
        }
        if vm.disk < .mebibytes(64) {
            fail(vm, ["disk"], "/var does not fit on \(vm.disk); give at least 64MiB")
        }
        for (key, size) in [
            ("memory", vm.memory.max), ("memory", vm.memory.min), ("disk", vm.disk),
        ]
        where size.bytes % (1 << 20) != 0 {
            fail(vm, [.key(key)], "\(size) is no whole number of MiB")
        }
        if let host = vm.host, !isKnown("hosts", host) {
            fail(vm, ["host"], "no host '\(host)'" + nearest(host, in: fleet.hosts.map(\.name)))
        }
        switch vm.image {
        case .named(let name):
            if !ImageRecipe.builtIn.contains(name), !isKnown("images", name) {
                fail(
                    vm, ["image"],
                    "no image '\(name)'" + nearest(name, in: images.keys + ImageRecipe.builtIn))
            }
        case .inline(let recipe): checkRecipe(recipe, "vms." + vm.name, ["image"])
        }
        for (index, device) in vm.devices.enumerated() where device.pci == nil && device.usb == nil
        {
            fail(vm, ["devices", .index(index)], "give either 'pci' or 'usb'")
        }
    }

    /// The recipe behind a VM's image; nil for a built-in or unknown one.
    func recipe(_ vm: VM) -> ImageRecipe? {
        switch vm.image {
        case .named(let name): images[name]
        case .inline(let recipe): recipe
        }
    }

    mutating func checkHypervisor(_ vm: VM) {
        let recipe = recipe(vm)
        switch vm.hypervisor {
        case .auto, .qemu: checkQEMU(vm, recipe)
        case .cloudHypervisor: checkCloudHypervisor(vm)
        case .firecracker: checkFirecracker(vm, recipe)
        }
        if vm.secureBoot, recipe?.firmware != .uefi {
            fail(
                vm, ["secureBoot"],
                "secure boot is a matter of UEFI, and this image boots directly; use an image with "
                    + "'disk' and 'firmware: uefi', or leave it off")
        }
        if recipe?.disk != nil { checkForeign(vm) }
        if vm.warm, !vm.shares.isEmpty || !vm.devices.isEmpty {
            fail(
                vm, ["warm"],
                "a memory snapshot cannot hold shares or devices of the host; use volumes, or leave "
                    + "'warm' off")
        }
        for (index, device) in vm.devices.enumerated() where vm.enable {
            let at: [Step] = ["devices", .index(index)]
            if let pci = device.pci {
                claim(.pci(pci), vm, at, "a device can be passed to one VM only")
            }
            if let usb = device.usb {
                claim(.usb(usb), vm, at, "a device can be passed to one VM only")
            }
        }
    }

    private func checkQEMU(_ vm: VM, _ recipe: ImageRecipe?) {
        guard vm.machine == .microvm else { return }
        let instead = "use 'machine: q35', or leave it to 'auto'"
        if vm.tpm { fail(vm, ["tpm"], "the machine microvm has no TPM; \(instead)") }
        if !vm.oemStrings.isEmpty {
            fail(
                vm, ["oemStrings"],
                "the machine microvm has no SMBIOS, so the guest would never see them; \(instead), "
                    + "or use 'credentials'")
        }
        if recipe?.firmware == .uefi {
            fail(vm, ["machine"], "the machine microvm cannot boot through UEFI; \(instead)")
        }
        for (index, device) in vm.devices.enumerated() where device.pci != nil {
            fail(
                vm, ["devices", .index(index)],
                "the machine microvm has no root ports for PCI devices; \(instead)")
        }
    }

    private func checkCloudHypervisor(_ vm: VM) {
        refuseQEMUOnly(vm, "cloud-hypervisor")
        for (index, device) in vm.devices.enumerated() where device.usb != nil {
            fail(
                vm, ["devices", .index(index)],
                "cloud-hypervisor passes no USB devices; use 'hypervisor: qemu'")
        }
        if vm.secureBoot {
            fail(vm, ["secureBoot"], "cloud-hypervisor has no secure boot; use 'hypervisor: qemu'")
        }
    }

    private func checkFirecracker(_ vm: VM, _ recipe: ImageRecipe?) {
        refuseQEMUOnly(vm, "firecracker")
        let other = "use 'hypervisor: qemu' or 'cloud-hypervisor'"
        if !vm.shares.isEmpty {
            fail(vm, ["shares"], "firecracker has no virtiofs; use a volume, or \(other)")
        }
        if !vm.devices.isEmpty { fail(vm, ["devices"], "firecracker passes no devices; \(other)") }
        if vm.tpm { fail(vm, ["tpm"], "firecracker has no TPM; \(other)") }
        if vm.secureBoot { fail(vm, ["secureBoot"], "firecracker has no UEFI; \(other)") }
        if !vm.oemStrings.isEmpty {
            fail(vm, ["oemStrings"], "firecracker has no SMBIOS; use 'credentials', or \(other)")
        }
        if recipe?.firmware == .uefi {
            fail(vm, ["image"], "firecracker boots a kernel directly and has no UEFI; \(other)")
        }
        if vm.vcpu > 32 { fail(vm, ["vcpu"], "firecracker runs at most 32 CPUs; \(other)") }
        for (index, interface) in vm.interfaces.enumerated()
        where networks[interface.network]?.kind == .macvtap {
            fail(
                vm, ["interfaces", .index(index)],
                "firecracker cannot use macvtap; use a bridged network, or \(other)")
        }
        for (index, volume) in vm.volumes.enumerated() where volume.format != .raw {
            fail(
                vm, ["volumes", .index(index)],
                "firecracker reads raw disks only; add 'format: raw', or \(other)")
        }
    }

    private func refuseQEMUOnly(_ vm: VM, _ name: String) {
        if vm.accelerator == .tcg {
            fail(
                vm, ["accelerator"],
                "\(name) needs KVM and cannot emulate; use 'hypervisor: qemu'")
        }
        if vm.machine != .auto {
            fail(
                vm, ["machine"],
                "'machine' is a setting of QEMU; remove it, or use 'hypervisor: qemu'")
        }
        for (index, interface) in vm.interfaces.enumerated() where interface.isUser {
            fail(
                vm, ["interfaces", .index(index)],
                "\(name) has no 'user' networking; name a network, or use 'hypervisor: qemu'")
        }
    }

    /// A foreign disk boots its own kernel and initramfs: what ours would set has no effect.
    private func checkForeign(_ vm: VM) {
        let settings: [(String, Bool)] = [
            ("users", !vm.users.isEmpty), ("rootPasswordHash", vm.rootPasswordHash != nil),
            ("firewall", vm.firewall != Firewall()), ("kernel", vm.kernel != Kernel()),
            ("mode", vm.mode != .immutable), ("warm", vm.warm),
            ("hardening.kernel", vm.hardening.kernel != .standard),
            ("hardening.exceptions", !vm.hardening.exceptions.isEmpty),
        ]
        for (key, isSet) in settings where isSet {
            fail(
                vm, key.pieces(".").map { .key(String($0)) },
                "a foreign disk boots its own system, where this has no effect; set it inside, "
                    + "or use an image that Martlet builds")
        }
    }
}
