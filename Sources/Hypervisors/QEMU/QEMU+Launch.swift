// SPDX-License-Identifier: Apache-2.0

extension QEMU {
    package func commandLine(
        _ spec: LaunchSpec, _ channels: Channels
    ) throws(LaunchError) -> [String] {
        let devices =
            spec.layers.count + spec.disks.count + spec.interfaces.count + spec.shares.count
        // Each takes a slot of q35's root bus (or a transport of microvm), beside our own devices.
        guard devices <= 24 else { throw .tooManyDevices(devices) }
        var line = try machine(spec)
        line += boot(spec)
        line += serialPorts(spec, channels)
        line += try disks(spec, channels)
        line += try interfaces(spec, channels)
        line += try shares(spec, channels)
        line += try identity(spec)
        line += [
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ]
        return line
    }

    private func machine(_ spec: LaunchSpec) throws(LaunchError) -> [String] {
        let mebibyte: Int64 = 1 << 20
        guard spec.memoryBytes > 0, spec.memoryBytes % mebibyte == 0 else {
            throw .memorySize(spec.memoryBytes)
        }
        let memory = "\(spec.memoryBytes / mebibyte)M"
        var options = ["dump-guest-core": "off"]
        switch spec.machine {
        case .q35:
            // What no guest of ours uses, and the firmware or the kernel would spend time on.
            for device in ["hpet", "sata", "smbus", "smm", "vmport"] { options[device] = "off" }
        case .microvm: options.merge(["acpi": "on", "rtc": "on"]) { $1 }
        }
        options.merge(spec.machineOptions) { $1 }
        // A share's daemon reads and writes the guest's memory itself.
        let isShared = spec.sharedMemory || !spec.shares.isEmpty
        if isShared { options["memory-backend"] = "memory" }
        let properties = options.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        var line = [
            "-name", "guest=\(escaped(spec.name))",
            "-uuid", spec.uuid,
            "-nodefaults", "-no-user-config", "-display", "none",
            // A panic or a reboot ends the process, and its supervisor decides what follows.
            "-no-reboot",
            "-machine", ([spec.machine.rawValue] + properties).joined(separator: ","),
            "-accel", accelerator(spec),
            "-cpu", spec.cpu,
            "-smp", "\(spec.vcpu)",
            "-m", memory,
        ]
        if isShared {
            line += ["-object", "memory-backend-memfd,id=memory,size=\(memory),share=on"]
        }
        if spec.randomGenerator { line += ["-device", device("rng", spec)] }
        if spec.balloon {
            line += ["-device", device("balloon", spec, "id=balloon0", "deflate-on-oom=on")]
        }
        if let cid = spec.vsockCID {
            line += ["-device", "vhost-vsock-\(transport(spec)),guest-cid=\(cid)"]
        }
        return line
    }

    private func accelerator(_ spec: LaunchSpec) -> String {
        guard spec.accelerator == .tcg else { return "kvm" }
        var text = "tcg,thread=multi"
        if let bytes = spec.translationCacheBytes { text += ",tb-size=\(max(1, bytes >> 20))" }
        if spec.splitTranslation { text += ",split-wx=on" }
        return text
    }

    private func boot(_ spec: LaunchSpec) -> [String] {
        var line = ["-kernel", spec.kernel]
        if let initramfs = spec.initramfs { line += ["-initrd", initramfs] }
        // With -no-reboot, panic=-1 turns a panic into an exit instead of a guest that hangs.
        let ours = ["console=ttyS0", "panic=-1"].filter { !spec.kernelParameters.contains($0) }
        return line + ["-append", (ours + spec.kernelParameters).joined(separator: " ")]
    }

    private func serialPorts(_ spec: LaunchSpec, _ channels: Channels) -> [String] {
        var line = [
            "-chardev", "socket,id=console,fd=\(channels.console)",
            "-serial", "chardev:console",
            "-chardev", "socket,id=qmp,fd=\(channels.qmp)",
            "-mon", "chardev=qmp,mode=control",
            // Four ports are room enough (the first is a console's), and each costs the guest two
            // queues at its start. event_idx is off since an `exec` hung; it was not the cause (see
            // Access), and whether it can be on again has not been tried.
            "-device", device("serial", spec, "id=ports,max_ports=4,event_idx=off"),
        ]
        let ports: [(id: String, name: String, options: String)] = [
            ("agent", "org.qemu.guest_agent.0", "fd=\(channels.agent)"),
            ("ready", "org.martlet.ready", "fd=\(channels.ready)"),
            ("ssh", "org.martlet.ssh", "fd=\(channels.ssh),server=on,wait=off"),
        ]
        for port in ports {
            line += [
                "-chardev", "socket,id=\(port.id),\(port.options)",
                "-device",
                "virtserialport,bus=ports.0,id=\(port.id)-port,chardev=\(port.id),"
                    + "name=\(port.name)",
            ]
        }
        return line
    }

    private func disks(
        _ spec: LaunchSpec, _ channels: Channels
    ) throws(LaunchError) -> [String] {
        var line: [String] = []
        var devices = channels.devices[...]
        let layers = spec.layers.enumerated().map { index, path in
            LaunchSpec.Disk(path: path, format: .raw, serial: "layer\(index)", readOnly: true)
        }
        for (index, disk) in (layers + spec.disks).enumerated() {
            guard disk.serial.utf8.count <= 20 else { throw .serial(disk.serial) }
            let node = disk.serial == "layer\(index)" ? disk.serial : disk.node
            let driver = disk.format == .qcow2 ? "qcow2" : "raw"
            var file = "file"
            var path = disk.path
            if disk.format == .device {
                // QEMU has no right to the device itself: it gets a descriptor.
                guard let number = devices.popFirst() else { throw .deviceSlot(disk.path) }
                file = "host_device"
                path = "/dev/fdset/\(number)"
                line += ["-add-fd", "fd=\(number),set=\(number)"]
            }
            var options = "driver=\(driver),node-name=\(node)"
            // Freed guest blocks are given back to the host; a layer is shared and never written.
            options += disk.readOnly ? ",read-only=on" : ",discard=unmap,detect-zeroes=unmap"
            options += ",file.driver=\(file),file.filename=\(escaped(path))"
            if !disk.readOnly { options += ",file.discard=unmap" }
            let properties = ["drive=\(node)", "id=\(node)-dev", "serial=\(escaped(disk.serial))"]
            line += ["-blockdev", options, "-device", device("blk", spec, properties)]
        }
        return line
    }

    private func interfaces(
        _ spec: LaunchSpec, _ channels: Channels
    ) throws(LaunchError) -> [String] {
        var line: [String] = []
        for (index, interface) in spec.interfaces.enumerated() {
            let id = "net\(index)"
            var properties = ["netdev=\(id)", "mac=\(interface.mac)"]
            // No network boot: an empty romfile spares the search for iPXE.
            if spec.machine == .q35 { properties.append("romfile=") }
            line += ["-netdev", try netdev(id, interface.backend, channels)]
            line += ["-device", device("net", spec, properties)]
        }
        return line
    }

    private func netdev(
        _ id: String, _ backend: LaunchSpec.Interface.Backend, _ channels: Channels
    ) throws(LaunchError) -> String {
        switch backend {
        case .tap(let slot):
            guard channels.taps.indices.contains(slot) else { throw .tapSlot(slot) }
            return "tap,id=\(id),fd=\(channels.taps[slot])"
        case .user(let forwards, let restrict):
            // Forwards are IPv4 only, and addresses of a site that is none would confuse a guest.
            var text = "user,id=\(id),ipv6=off" + (restrict ? ",restrict=on" : "")
            for forward in forwards {
                let address = forward.hostAddress
                guard address.allSatisfy({ $0.isNumber || $0 == "." }) else {
                    throw .hostAddress(address)
                }
                text += ",hostfwd=\(forward.transport.rawValue):\(address):\(forward.hostPort)"
                text += "-:\(forward.guestPort)"
            }
            return text
        }
    }

    private func shares(
        _ spec: LaunchSpec, _ channels: Channels
    ) throws(LaunchError) -> [String] {
        guard spec.shares.isEmpty || spec.machine == .q35 else { throw .sharesOnMicrovm }
        var line: [String] = []
        for (index, share) in spec.shares.enumerated() {
            guard channels.shares.indices.contains(index) else { throw .shareSlot(share.tag) }
            let id = "share\(index)"
            line += ["-chardev", "socket,id=\(id),fd=\(channels.shares[index])"]
            line += ["-device", "vhost-user-fs-pci,chardev=\(id),tag=\(escaped(share.tag))"]
        }
        return line
    }

    private func identity(_ spec: LaunchSpec) throws(LaunchError) -> [String] {
        var line: [String] = []
        // The default of 16 places is counted without QEMU's own entries: leave room early.
        if spec.firmwareEntries.count > 12 { line += ["-global", "fw_cfg_io.x-file-slots=128"] }
        for entry in spec.firmwareEntries {
            guard entry.name.utf8.count <= 55 else { throw .firmwareName(entry.name) }
            line += ["-fw_cfg", "name=\(escaped(entry.name)),file=\(escaped(entry.path))"]
        }
        if !spec.oemStringFiles.isEmpty, spec.machine == .microvm { throw .oemStrings }
        for path in spec.oemStringFiles { line += ["-smbios", "type=11,path=\(escaped(path))"] }
        return line
    }

    private func device(_ kind: String, _ spec: LaunchSpec, _ properties: String...) -> String {
        device(kind, spec, properties)
    }

    private func device(_ kind: String, _ spec: LaunchSpec, _ properties: [String]) -> String {
        (["virtio-\(kind)-\(transport(spec))"] + properties).joined(separator: ",")
    }

    /// The suffix of device names: PCI on q35, plain memory-mapped devices on microvm.
    private func transport(_ spec: LaunchSpec) -> String {
        spec.machine == .q35 ? "pci" : "device"
    }

    /// A comma ends an option's value unless it is doubled.
    private func escaped(_ value: String) -> String {
        var result = ""
        for character in value {
            result.append(character)
            if character == "," { result.append(",") }
        }
        return result
    }
}
