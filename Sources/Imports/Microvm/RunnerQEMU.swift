// SPDX-License-Identifier: Apache-2.0
import Fleets

/// Options of QEMU that take no value.
private let flags: Set<String> = [
    "nodefaults", "no-user-config", "no-reboot", "no-shutdown", "enable-kvm", "nographic", "S",
    "snapshot", "daemonize", "no-acpi", "no-hpet", "usb", "full-screen", "mem-prealloc",
    "no-fd-bootchk", "only-migratable", "disable-seccomp", "strace",
]

/// Options that say nothing a fleet file could hold: how the guest is booted, and how QEMU behaves.
private let ordinary: Set<String> = flags.union([
    "name", "M", "machine", "m", "smp", "kernel", "initrd", "append", "chardev", "device", "serial",
    "drive", "netdev", "fsdev", "sandbox", "qmp", "run-with", "runas", "user", "cpu", "accel",
    "smbios", "fw_cfg", "numa", "object", "display", "mon", "monitor", "pidfile", "global", "D",
    "audiodev", "audio", "vga",
])

/// Devices that every VM has or that hold another device.
private let plainDevices = [
    "virtio-rng", "i8042", "qemu-xhci", "pcie-root-port", "virtio-serial", "virtserialport",
    "usb-tablet", "usb-kbd", "usb-mouse", "isa-serial", "virtconsole",
]

extension RunnerReader {
    /// Also for stratovirt, whose options are QEMU's.
    mutating func qemu(_ words: [String]) {
        let options = OptionReader(words, flags: flags)
        machine(options)
        let size = options["m"].map { OptionList($0, doubled: true) }
        memory(size?["size"] ?? size?.kind)
        if size?["maxmem"] != nil {
            draft.note("memory to plug in later", "memory is not plugged in", "raise `memory`")
        }
        let cpus = options["smp"].map { OptionList($0, doubled: true) }
        draft.vcpu = (cpus?["cpus"] ?? cpus?.kind).flatMap(Int.init)
        kernel(options["append"])
        for text in options.all("smbios") { smbios(text) }
        for text in options.all("fw_cfg") { firmware(text) }
        let devices = options.all("device").map { OptionList($0, doubled: true) }
        drives(options, devices)
        shares(options, devices)
        interfaces(options, devices)
        for device in devices { self.device(device) }
        for (name, values) in options.options where !ordinary.contains(name) {
            unknown("-\(name)", values.first)
        }
        for word in options.others where !word.isEmpty { unknown(word) }
    }

    private mutating func machine(_ options: OptionReader) {
        let machine = (options["M"] ?? options["machine"]).map { OptionList($0, doubled: true) }
        let accelerators = [machine?["accel"] ?? "", options["accel"] ?? ""]
        if accelerators.contains(where: { $0.hasPrefix("tcg") }) { draft.accelerator = "tcg" }
        if let cpu = options["cpu"], !cpu.hasPrefix("host"), cpu != "max" {
            draft.note("the CPU model \(cpu)", "the guest sees the CPU of the host")
        }
        let display = options["display"] ?? "none"
        if !["none", "egl-headless"].contains(OptionList(display).kind) { graphics() }
        for object in options.all("object").map({ OptionList($0, doubled: true) })
        where object["mem-path"]?.contains("hugepages") == true || object.isOn("hugetlb") {
            draft.note("huge pages", "the memory of a VM is ordinary memory of the host")
        }
    }

    private mutating func smbios(_ text: String) {
        let list = OptionList(text, doubled: true)
        if let uuid = list["uuid"] { draft.uuid = uuid }
        for value in list.all("value") { draft.oemString(value) }
        if let path = list["path"] {
            draft.note(
                "the SMBIOS strings in \(path)", "they are read from a file when it starts",
                "write them as `oemStrings`, and secrets as `credentials`")
        }
    }

    private mutating func firmware(_ text: String) {
        let list = OptionList(text, doubled: true)
        draft.firmwareFile(
            list["name"] ?? list.kind, file: list["file"].map(absolute),
            hasText: list["string"] != nil)
    }

    private mutating func drives(_ options: OptionReader, _ devices: [OptionList]) {
        for drive in options.all("drive").map({ OptionList($0, doubled: true) }) {
            guard let path = drive["file"], drive["if"] != "pflash" else { continue }
            let device = devices.first { $0["drive"] != nil && $0["drive"] == drive["id"] }
            disk(
                path, serial: device?["serial"],
                readOnly: drive.isOn("read-only") || drive.isOn("readonly"),
                isQCOW2: drive["format"] == "qcow2")
        }
    }

    private mutating func shares(_ options: OptionReader, _ devices: [OptionList]) {
        let folders = options.all("fsdev").map { OptionList($0, doubled: true) }
        let sockets = options.all("chardev").map { OptionList($0, doubled: true) }
        for device in devices {
            if device.kind.hasPrefix("vhost-user-fs") {
                let socket = sockets.first { $0["id"] == device["chardev"] }?["path"] ?? "?"
                share(tag: device["tag"], socket: socket)
            } else if device.kind.hasPrefix("virtio-9p"), let tag = device["mount_tag"] {
                let folder = folders.first { $0["id"] == device["fsdev"] }
                guard let folder, let path = folder["path"] else { continue }
                share(source: path, tag: tag, readOnly: folder.isOn("readonly"))
            }
        }
    }

    private mutating func interfaces(_ options: OptionReader, _ devices: [OptionList]) {
        for net in options.all("netdev").map({ OptionList($0, doubled: true) }) {
            let device = devices.first { $0["netdev"] != nil && $0["netdev"] == net["id"] }
            let mac = device?["mac"]
            switch net.kind {
            case "tap" where net["fd"] != nil || net["fds"] != nil: macvtap(net["id"], mac: mac)
            case "tap": tap(net["ifname"] ?? net["id"] ?? "?", mac: mac)
            case "bridge": bridge(net["br"] ?? "br0", mac: mac)
            case "user":
                draft.userInterface(mac: mac)
                for forward in net.all("hostfwd") { hostForward(forward) }
                for forward in net.all("guestfwd") {
                    draft.note(
                        "the forward \(forward)", "it leads from the guest to the host",
                        "let the guest reach the service over a network instead")
                }
                if net.isOn("restrict") {
                    draft.note(
                        "an interface that reaches nothing", "user networking reaches the outside",
                        "use a network with `egress: none`")
                }
            default: unknown("-netdev \(net.kind)", net["id"])
            }
        }
    }

    /// `tcp:127.0.0.1:2222-10.0.2.15:22`, each address being optional.
    private mutating func hostForward(_ text: String) {
        let sides = text.split(separator: "-", maxSplits: 1).map {
            $0.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        }
        guard sides.count == 2, let transport = sides.first?.first, let host = sides[0].last,
            let guest = sides[1].last, let hostPort = UInt16(host), let guestPort = UInt16(guest),
            hostPort > 0, guestPort > 0
        else {
            return draft.note(
                "the forward \(text)", "it is none of a port to a port", "see `ports`")
        }
        let address = sides[0].count == 3 ? sides[0][1] : ""
        draft.port(
            PortForward(
                IPAddress(address) ?? .any, host: hostPort, guest: guestPort,
                transport == "udp" ? .udp : .tcp))
    }

    private mutating func device(_ device: OptionList) {
        let kind = device.kind
        let handled = ["virtio-blk", "virtio-net", "vhost-user-fs", "virtio-9p"] + plainDevices
        if handled.contains(where: kind.hasPrefix) { return }
        switch kind {
        case _ where kind.hasPrefix("vhost-vsock"): vsock(device["guest-cid"])
        case _ where kind.hasPrefix("virtio-balloon"): balloon()
        case _ where kind.hasPrefix("vfio-pci"):
            if let address = device["host"] { pci(address) }
        case "usb-host": usb(device)
        case _ where kind.hasPrefix("virtio-vga") || kind.hasPrefix("virtio-gpu"): graphics()
        case _ where kind.hasPrefix("virtio-mem"):
            draft.note("memory to plug in later", "memory is not plugged in", "raise `memory`")
        default: unknown("-device \(kind)")
        }
    }

    private mutating func usb(_ device: OptionList) {
        let ids = ["vendorid", "productid"].compactMap { name -> String? in
            guard let text = device[name] else { return nil }
            let digits = text.hasPrefix("0x") ? String(text.dropFirst(2)) : text
            return String(repeating: "0", count: max(0, 4 - digits.count)) + digits
        }
        if ids.count == 2 { return draft.device("usb", ids.joined(separator: ":")) }
        draft.note(
            "a USB device by its place", "it changes when something is plugged in",
            "name vendor and product in `devices`")
    }
}
