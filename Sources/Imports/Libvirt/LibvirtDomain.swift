// SPDX-License-Identifier: Apache-2.0
import Fleets

/// A domain of libvirt, read from what `virsh dumpxml --inactive` prints.
package enum LibvirtDomain {
    /// Makes an entry of a domain's XML.
    ///
    /// `autostart` says whether libvirt starts it with the host; nil when that is not known.
    package static func read(
        _ xml: [UInt8], autostart: Bool? = nil, host: HostView = HostView()
    ) throws(ImportError) -> Imported {
        let domain = try parseXML(xml)
        guard domain.name == "domain" else {
            throw .malformed("its root is <\(domain.name)>, and that of a domain is <domain>")
        }
        let type = domain["type"] ?? "kvm"
        guard !["lxc", "openvz", "vz"].contains(type) else {
            throw .unsuitable("it is a container ('\(type)'), and there is no machine in it")
        }
        guard let name = domain.at("name")?.text, !name.isEmpty else {
            throw .malformed("the domain has no <name>")
        }
        var draft = Draft(name, origin: "the libvirt domain '\(name)'", host: host)
        draft.general(domain, type)
        draft.boot(domain)
        draft.life(domain, autostart)
        draft.disks(domain)
        draft.devices(domain)
        draft.tuning(domain)
        draft.rest(domain)
        return try draft.result()
    }

    /// The networks whose XML helps: those that its interfaces are connected to.
    package static func networks(_ xml: [UInt8]) throws(ImportError) -> [String] {
        let domain = try parseXML(xml)
        return (domain.at("devices")?.all("interface") ?? []).compactMap {
            $0["type"] == "network" ? $0.at("source")?["network"] : nil
        }
    }
}

extension Draft {
    fileprivate mutating func general(_ domain: Element, _ type: String) {
        if type == "qemu" { accelerator = "tcg" }
        if !["kvm", "qemu"].contains(type) {
            note("the hypervisor '\(type)'", "Martlet runs VMs with QEMU and KVM")
        }
        if let arch = domain.at("os", "type")?["arch"], !["x86_64", "i686"].contains(arch) {
            note(
                "the processor '\(arch)'", "guests have that of the host",
                "its programs have to be built for the host's")
        }
        if let cpus = domain.at("vcpu"), let most = Int(cpus.text) {
            vcpu = cpus["current"].flatMap(Int.init) ?? most
            if let vcpu, vcpu != most {
                note(
                    "\(most - vcpu) CPUs to plug in later", "CPUs are not plugged in while it runs",
                    "raise `vcpu` and let `up` restart it")
            }
            if cpus["cpuset"] != nil {
                note(
                    "the CPUs that it is bound to", "a VM is not bound to CPUs", "use `limits.cpu`")
            }
        }
        if let size = domain.at("memory").flatMap(byteCount) {
            memory = size
            let balloon = domain.at("devices", "memballoon")?["model"] ?? "virtio"
            let current = domain.at("currentMemory").flatMap(byteCount)
            if balloon != "none", let current, current < size { leastMemory = current }
        }
        uuid = domain.at("uuid").flatMap { $0.text.isEmpty ? nil : $0.text }
        if let model = domain.at("cpu")?["mode"], model == "custom" {
            note(
                "the CPU model \(domain.at("cpu", "model")?.text ?? "")",
                "the guest sees the CPU of the host")
        }
    }

    fileprivate mutating func boot(_ domain: Element) {
        guard let os = domain.at("os") else { return }
        let features = os.at("firmware")?.all("feature") ?? []
        let isSecure =
            os.at("loader")?["secure"] == "yes"
            || features.contains { $0["name"] == "secure-boot" && $0["enabled"] == "yes" }
        if isSecure {
            note(
                "secure boot", "the guest's kernel is started directly, and there is no firmware",
                "nothing but the image's own kernel can be booted")
        }
        if os.at("kernel") != nil {
            note("its own kernel", "the image brings a kernel", "use `kernel.parameters`")
        }
        if let words = os.at("cmdline")?.text, !words.isEmpty {
            note(
                "the kernel's command line", "it was written for another system",
                "put what is still wanted into `kernel.parameters`: \(words)")
        }
    }

    fileprivate mutating func life(_ domain: Element, _ starts: Bool?) {
        if domain.at("on_poweroff")?.text == "restart" { restart = "always" }
        if domain.at("on_reboot")?.text == "destroy" {
            note("no restart after a reboot", "a reboot from inside always restarts a VM")
        }
        autostart = starts ?? true
        if starts == nil {
            note(
                "whether it starts with the host", "the XML does not say it",
                "VMs do; `autostart: false` keeps one from it")
        }
        if let clock = domain.at("clock"), let offset = clock["offset"], offset != "utc" {
            let zone = clock["timezone"].map { "'\($0)'" } ?? "that of the host"
            note(
                "a clock with the offset '\(offset)'", "the clock of a guest is in UTC",
                "`timezone` sets what it shows, such as \(zone)")
        }
    }

    /// What stands beside the devices and has no place in a fleet file.
    fileprivate mutating func rest(_ domain: Element) {
        if let backing = domain.at("memoryBacking") {
            for (name, what) in [("hugepages", "huge pages"), ("locked", "locked memory")]
            where backing.at(name) != nil {
                note(what, "the memory of a VM is ordinary memory of the host")
            }
        }
        let others = [
            ("numatune", "the NUMA policy"), ("iothreads", "I/O threads"),
            ("launchSecurity", "encrypted memory"), ("maxMemory", "memory to plug in later"),
            ("resource", "the resource partition"), ("qemu:capabilities", "changes of QEMU itself"),
        ]
        for (name, what) in others where domain.at(name) != nil {
            note(what, "a fleet file has nothing of the kind")
        }
        for sysinfo in domain.all("sysinfo") { readSysinfo(sysinfo) }
        let words = domain.at("qemu:commandline")?.all("qemu:arg").compactMap { $0["value"] } ?? []
        if !words.isEmpty {
            note(
                "further arguments of QEMU", "a fleet file has no such key",
                "look for the key that says the same: \(words.joined(separator: " "))")
        }
    }

    private mutating func readSysinfo(_ sysinfo: Element) {
        if sysinfo["type"] == "smbios" {
            for entry in sysinfo.at("oemStrings")?.all("entry") ?? [] { oemString(entry.text) }
            if sysinfo.children.contains(where: { $0.name != "oemStrings" }) {
                note("strings of SMBIOS", "the machine's own strings cannot be set")
            }
        }
        guard sysinfo["type"] == "fwcfg" else { return }
        for entry in sysinfo.all("entry") {
            firmwareFile(entry["name"] ?? "", file: entry["file"], hasText: !entry.text.isEmpty)
        }
    }
}

extension Draft {
    /// A string of SMBIOS, unless it is a credential: those are not written down again.
    mutating func oemString(_ text: String) {
        guard text.hasPrefix("io.systemd.credential") else { return oemStrings.append(text) }
        let name = text.prefix { $0 != "=" }.split(separator: ":").last.map(String.init) ?? ""
        if name != "vmm.notify_socket" { credentialInText(name) }
    }

    /// A file that QEMU shows the guest through fw_cfg.
    mutating func firmwareFile(_ name: String, file: String?, hasText: Bool) {
        let prefix = "opt/io.systemd.credentials/"
        guard name.hasPrefix(prefix) else {
            return note("the fw_cfg entry '\(name)'", "only credentials are handed to a guest so")
        }
        let credentialName = String(name.dropFirst(prefix.count))
        if let file {
            credential(credentialName, file: file)
        } else if hasText {
            credentialInText(credentialName)
        }
    }

    private mutating func credentialInText(_ name: String) {
        note(
            "the credential '\(name)'",
            "its value stands in the definition itself, and it was not copied",
            "put it into a file and add `secrets: { NAME: { file: … } }` and `credentials`")
    }
}

/// The bytes of `<memory unit='KiB'>`; nil when it is no size.
func byteCount(_ element: Element) -> UInt64? {
    let units: [String: UInt64] = [
        "b": 1, "bytes": 1, "KB": 1_000, "k": 1 << 10, "KiB": 1 << 10, "MB": 1_000_000,
        "M": 1 << 20, "MiB": 1 << 20, "GB": 1_000_000_000, "G": 1 << 30, "GiB": 1 << 30,
        "TB": 1_000_000_000_000, "T": 1 << 40, "TiB": 1 << 40,
    ]
    guard let count = UInt64(element.text), let unit = units[element["unit"] ?? "KiB"] else {
        return nil
    }
    let (bytes, overflow) = count.multipliedReportingOverflow(by: unit)
    return overflow ? nil : bytes
}
