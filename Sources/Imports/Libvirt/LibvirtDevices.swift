// SPDX-License-Identifier: Apache-2.0
import Fleets

/// Devices that every VM has, that are read elsewhere, or that mean nothing without a screen.
private let ordinary: Set<String> = [
    "emulator", "controller", "disk", "filesystem", "interface", "serial", "console", "input",
    "hub", "memballoon", "rng", "audio", "address", "alias",
]

extension Draft {
    mutating func devices(_ domain: Element) {
        guard let devices = domain.at("devices") else { return }
        for element in devices.all("interface") { interface(element) }
        for device in devices.children { self.device(device) }
        for console in devices.all("serial") + devices.all("console") {
            guard let type = console["type"], !["pty", "stdio", "null", "file"].contains(type)
            else { continue }
            note("a serial port of the type '\(type)'", "the console is on `martlet console`")
        }
    }

    private mutating func device(_ element: Element) {
        switch element.name {
        case _ where ordinary.contains(element.name): break
        case "vsock":
            guard let cid = element.at("cid"), cid["auto"] != "yes" else { break }
            vsock = cid["address"].flatMap(UInt32.init)
        case "tpm": trustedModule(element)
        case "hostdev": hostDevice(element)
        case "channel": channel(element)
        case "graphics", "video":
            note("the screen (\(element.name))", "VMs have none", "use `console` and `ssh`")
        case "sound":
            note("the sound card \(element["model"] ?? "")", "VMs have no sound")
        case "watchdog":
            note("the watchdog", "health is asked for from outside", "use `health` and `restart`")
        case "redirdev", "smartcard", "parallel", "shmem", "nvram", "panic", "iommu", "lease",
            "crypto", "pstore", "memory", "vdpa":
            note("the device <\(element.name)>", "a fleet file has nothing of the kind")
        default:
            note("the device <\(element.name)>", "it is not known here")
        }
    }

    private mutating func trustedModule(_ element: Element) {
        guard element.at("backend")?["type"] == "emulator" else {
            return note("the host's TPM", "a VM gets a TPM of its own", "`tpm: true` adds one")
        }
        tpm = true
        note(
            "what the TPM holds", "the new one is empty",
            "unlock with a passphrase what it had sealed, and seal it again")
    }

    private mutating func channel(_ element: Element) {
        let name = element.at("target")?["name"] ?? ""
        // The agents of QEMU and SPICE: the first is in every guest, the second goes with the screen.
        guard !["org.qemu.guest_agent.0", "com.redhat.spice.0"].contains(name),
            element["type"] != "spicevmc"
        else { return }
        note("the channel '\(name)'", "a fleet file has no channels", "use vsock, or the network")
    }

    private mutating func hostDevice(_ element: Element) {
        let source = element.at("source")
        switch element["type"] {
        case "pci":
            if let address = source?.at("address").flatMap(pciAddress) {
                return device("pci", address)
            }
        case "usb":
            let ids = ["vendor", "product"].compactMap { name -> String? in
                guard let id = source?.at(name)?["id"], id.hasPrefix("0x") else { return nil }
                return String(id.dropFirst(2))
            }
            if ids.count == 2 { return device("usb", ids.joined(separator: ":")) }
        default: break
        }
        note(
            "a device of the host (\(element["type"] ?? element["mode"] ?? "?"))",
            "devices are named by PCI address, or by vendor and product of USB", "use `devices`")
    }

    mutating func tuning(_ domain: Element) {
        if let tune = domain.at("cputune") { cpuTuning(tune) }
        if let limit = domain.at("memtune", "hard_limit").flatMap(byteCount), let memory,
            limit > memory
        {
            let overhead = ByteSize(bytes: wholeMebibytes(limit - memory))
            if overhead >= .mebibytes(32) {
                limits.append(.init("memoryOverhead", .string(overhead.description)))
            }
        }
        if domain.at("memtune", "soft_limit") != nil
            || domain.at("memtune", "swap_hard_limit") != nil
        {
            note("limits of memory other than the hard one", "a VM has one limit of memory")
        }
        if domain.at("blkiotune") != nil {
            note("weights of disks (blkiotune)", "limits are rates", "set `limits.io`")
        }
    }

    private mutating func cpuTuning(_ tune: Element) {
        func share(_ quota: String, _ period: String) -> Int? {
            guard let quota = tune.at(quota).flatMap({ Int($0.text) }), quota > 0, quota < 1 << 50
            else { return nil }
            let period = tune.at(period).flatMap { Int($0.text) } ?? 100_000
            return period > 0 ? quota * 100 / period : nil
        }
        let each = share("quota", "period")
        let total =
            share("global_quota", "global_period")
            ?? each.flatMap { $0 < 1 << 40 ? $0 * max(1, min(vcpu ?? 1, 1024)) : nil }
        if let total, let percent = Percent("\(max(1, total))%") {
            limits.append(.init("cpu", .string(percent.description)))
        }
        let known = ["quota", "period", "global_quota", "global_period"]
        let others = Set(tune.children.map(\.name)).subtracting(known).sorted()
        if !others.isEmpty {
            note(
                "CPU tuning (\(others.joined(separator: ", ")))",
                "a VM is not bound to CPUs and has no weight", "`limits.cpu` bounds it")
        }
    }
}
