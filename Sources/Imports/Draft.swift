// SPDX-License-Identifier: Apache-2.0
import Fleets

/// An entry in the making: both importers put into it what they find.
struct Draft {
    let name: String
    let origin: String
    let host: HostView
    var vcpu: Int?
    var memory: UInt64?
    /// What a balloon leaves the guest at least, in bytes.
    var leastMemory: UInt64?
    /// Nil for the default.
    var disk: ByteSize?
    var vsock: UInt32?
    var uuid: String?
    var autostart = true
    var restart: String?
    var tpm = false
    var accelerator: String?
    var oemStrings: [String] = []
    var kernelParameters: [String] = []
    var limits: [JSONValue.Member] = []
    private(set) var ports: [PortForward] = []
    private(set) var interfaces: [JSONValue] = []
    private var volumes: [JSONValue] = []
    private var shares: [JSONValue] = []
    private var devices: [JSONValue] = []
    private var credentials: [JSONValue.Member] = []
    private var networks: [JSONValue.Member] = []
    private var secrets: [JSONValue.Member] = []
    private(set) var notes: [ImportNote] = []
    private(set) var data: [DataMove] = []
    private var names: Set<String> = []

    /// A draft with the name that the other tool has for the VM.
    init(_ given: String, origin: String, host: HostView) {
        let wanted = fleetName(given, else: "vm")
        name = wanted == "localhost" ? "localhost-vm" : wanted
        self.origin = origin
        self.host = host
        if name != given {
            note(
                "the name '\(given)'", "VMs have names of a-z, 0-9 and inner '-', at most 32",
                "it is '\(name)' here")
        }
    }

    mutating func note(_ what: String, _ why: String, _ instead: String? = nil) {
        let note = ImportNote(what, why, instead)
        if !notes.contains(note) { notes.append(note) }
    }

    mutating func move(_ from: String, to: String, _ how: String) {
        data.append(DataMove(from: from, to: to, how: how))
    }

    // MARK: Network

    /// Adds a network unless the same is there already; returns the name that it has.
    mutating func network(_ wanted: String, _ members: [JSONValue.Member]) -> String {
        let value = JSONValue.object(members)
        var name = fleetName(wanted, else: "net")
        if name == "user" { name = "user-net" }
        if networks.contains(where: { $0.key == name && $0.value == value }) { return name }
        name = free(name, among: Set(networks.map(\.key)))
        networks.append(.init(name, value))
        return name
    }

    mutating func interface(on network: String, mac: String?) {
        var members: [JSONValue.Member] = [.init("network", .string(network))]
        if let mac, let address = MACAddress(mac) {
            members.append(.init("mac", .string(address.description)))
        }
        interfaces.append(.object(members))
    }

    /// One interface to `user`; a second one is left out.
    mutating func userInterface(mac: String?) {
        if interfaces.contains(where: { $0["network"] == "user" }) {
            return note(
                "a second interface of user networking", "a VM has one such interface",
                "give it a network of the fleet")
        }
        interface(on: "user", mac: mac)
    }

    mutating func bridge(_ bridge: String, mac: String?) {
        interface(on: network(bridge, [.init("bridge", .string(bridge))]), mac: mac)
    }

    mutating func macvtap(_ parent: String, mode: String?, mac: String?) {
        var members: [JSONValue.Member] = [.init("macvtap", .string(parent))]
        if let mode, mode != "bridge" { members.append(.init("mode", .string(mode))) }
        interface(on: network(parent, members), mac: mac)
    }

    mutating func privateNetwork(
        _ name: String, egress: String? = nil, isolated: Bool = true, mac: String?
    ) {
        let name = fleetName(name, else: "net")
        var members: [JSONValue.Member] = [.init("subnet", .string(subnet(for: name)))]
        if let egress { members.append(.init("egress", .string(egress))) }
        interface(on: network(name, members), mac: mac)
    }

    mutating func port(_ forward: PortForward) {
        if !ports.contains(forward) { ports.append(forward) }
    }

    // MARK: Storage

    struct Volume {
        /// Where it lies on the host.
        var path: String
        var name: String?
        var bytes: UInt64?
        var isDevice = false
        var isQCOW2 = false
        var readOnly = false
        var mount: String?
        var filesystem: String?
    }

    mutating func volume(_ volume: Volume) {
        if let mount = volume.mount, isOnDataVolume(mount) { return dataVolume(volume, mount) }
        let name = volumeName(volume.name ?? baseName(volume.path))
        var members: [JSONValue.Member] = [.init("name", .string(name))]
        let found = host.disk(volume.path)
        let isDevice = volume.isDevice || found?.isDevice == true
        if isDevice {
            members.append(.init("device", .string(volume.path)))
        } else {
            members.append(.init("size", .string(size(of: volume, name, found))))
        }
        if let mount = volume.mount { members.append(.init("mount", .string(mount))) }
        if let type = volume.filesystem, type != "ext4", !isDevice || volume.mount != nil {
            members.append(.init("filesystem", .string(type)))
        }
        if !isDevice, !volume.isQCOW2 { members.append(.init("format", "raw")) }
        if volume.readOnly { members.append(.init("readOnly", true)) }
        volumes.append(.object(members))
        if volume.mount == nil {
            note(
                "the mount point of the volume '\(name)'", "only the guest knows it",
                "add `mount: /srv/\(name)` to have it mounted, and `filesystem` unless it is ext4")
        }
        if !isDevice {
            move(
                volume.path, to: volume.mount ?? "where the volume '\(name)' is mounted",
                copying(volume.path, to: volume.mount ?? "FOLDER"))
        }
    }

    /// A disk whose content belongs onto the data volume.
    private mutating func dataVolume(_ volume: Volume, _ mount: String) {
        let bytes = volume.bytes ?? host.disk(volume.path)?.bytes ?? 0
        disk = max(disk ?? .gibibytes(8), ByteSize(bytes: wholeMebibytes(bytes)))
        note(
            "the disk \(volume.path) on \(mount)", "the data volume has that place here",
            "its size went into `disk`, and what is on it has to be copied")
        let target = mount == "/" ? "/var" : mount
        move(volume.path, to: target, copying(volume.path, mount == "/" ? "/var" : "", to: target))
    }

    /// The command that copies what is on a disk of this host into the guest.
    func copying(_ path: String, _ folder: String = "", to target: String) -> String {
        let old = "mount \(shellQuoted(path)) read-only below /mnt (see docs/import.md), then: "
        return old + "tar -C /mnt\(folder) -c . | martlet exec \(name) -- tar -C "
            + "\(shellQuoted(target)) -x -p"
    }

    private mutating func size(
        of volume: Volume, _ name: String, _ found: HostView.Disk?
    ) -> String {
        if let bytes = volume.bytes ?? found?.bytes, bytes > 0, bytes < 1 << 60 {
            return ByteSize(bytes: max(wholeMebibytes(bytes), 8 << 20)).description
        }
        note(
            "the size of the volume '\(name)'", "\(volume.path) cannot be seen from here",
            "10GiB is a guess; write what `qemu-img info` says of it")
        return "10GiB"
    }

    private func isOnDataVolume(_ mount: String) -> Bool {
        ["/", "/var", "/home", "/root", "/var/lib"].contains(mount)
    }

    private mutating func volumeName(_ wanted: String) -> String {
        var name = fleetName(wanted, limit: 20, else: "volume")
        if ["data", "root", "layers"].contains(name) || name.hasPrefix("layer") {
            name = fleetName("disk-" + name, limit: 20, else: "volume")
        }
        name = free(name, limit: 20, among: names)
        names.insert(name)
        return name
    }

    /// A folder of the host; without `mount` it gets a place that follows from its tag.
    mutating func share(source: String, tag: String, mount: String?, readOnly: Bool) {
        let word = tagName(tag) ?? "share"
        let place = mount ?? (tag.hasPrefix("/") ? tag : "/mnt/\(word)")
        if mount == nil, !tag.hasPrefix("/") {
            note(
                "the mount point of the share '\(tag)'", "only the guest knows it",
                "it is \(place) here; change `mount` to what the services in it expect")
        }
        var members: [JSONValue.Member] = [
            .init("source", .string(source)), .init("mount", .string(place)),
        ]
        if !tag.hasPrefix("/"), place.dropFirst() != word[...] {
            members.append(.init("tag", .string(word)))
        }
        if readOnly { members.append(.init("readOnly", true)) }
        shares.append(.object(members))
    }

    // MARK: Devices and secrets

    mutating func device(_ kind: String, _ address: String) {
        devices.append(.object([.init(kind, .string(address))]))
        note(
            "the device \(address)", "it is the host's, and goes to one VM only",
            "take it from the old VM first; `devices` names it here")
    }

    /// A credential whose value is in a file of the host; the value itself is never looked at.
    mutating func credential(_ given: String, file: String) {
        guard let name = tagName(given), name == given else {
            return note(
                "the credential '\(given)'", "names take letters, digits, '-', '_' and '.'",
                "add it to `credentials` under another name")
        }
        let secret = free(name, limit: 64, among: Set(secrets.map(\.key)))
        secrets.append(.init(secret, ["file": .string(file)]))
        credentials.append(.init(name, ["secret": .string(secret)]))
    }

    // MARK: The result

    func result() throws(ImportError) -> Imported {
        var draft = self
        let entry = draft.entry()
        let imported = Imported(
            name: name, origin: origin, entry: entry, networks: networks, secrets: secrets,
            notes: draft.notes, data: data)
        return try settled(imported)
    }

    private mutating func entry() -> JSONValue {
        var all: [JSONValue.Member] = []
        func add(_ key: String, _ value: JSONValue?) {
            if let value { all.append(.init(key, value)) }
        }
        func list(_ values: [JSONValue]) -> JSONValue? { values.isEmpty ? nil : .array(values) }
        func texts(_ values: [String]) -> JSONValue? { list(values.map { .string($0) }) }
        add("accelerator", accelerator.map { .string($0) })
        add("vcpu", vcpu.map { JSONValue($0) })
        add("memory", memoryValue())
        add("disk", disk.map { .string($0.description) })
        // Without the key there would be an interface to `user`.
        add("interfaces", .array(interfaces))
        add("ports", texts(ports.map(\.description)))
        add("volumes", list(volumes))
        add("shares", list(shares))
        add("credentials", credentials.isEmpty ? nil : .object(credentials))
        // The guest looks for them under the names that they had.
        add("credentialPrefix", credentials.isEmpty ? nil : "")
        add("devices", list(devices))
        add("vsock", vsock.map { JSONValue($0) })
        add("tpm", tpm ? true : nil)
        add("uuid", uuid.map { .string($0) })
        add("oemStrings", texts(oemStrings))
        add("kernel", texts(kernelParameters).map { ["parameters": $0] })
        add("limits", limits.isEmpty ? nil : .object(limits))
        add("restart", restart.map { .string($0) })
        add("autostart", autostart ? nil : false)
        return .object(all)
    }

    private mutating func memoryValue() -> JSONValue? {
        guard let memory else { return nil }
        let least = ByteSize.mebibytes(128)
        var most = ByteSize(bytes: wholeMebibytes(min(memory, 1 << 50)))
        if most < least {
            note("\(most) of memory", "a guest of Martlet needs 112MiB to boot", "it has \(least)")
            most = least
        }
        guard let leastMemory, leastMemory < memory else { return .string(most.description) }
        let floor = max(least, ByteSize(bytes: wholeMebibytes(leastMemory)))
        if floor >= most { return .string(most.description) }
        return ["min": .string(floor.description), "max": .string(most.description)]
    }
}

/// The next whole number of MiB, in bytes.
func wholeMebibytes(_ bytes: UInt64) -> UInt64 {
    let mebibyte: UInt64 = 1 << 20
    let (sum, overflow) = bytes.addingReportingOverflow(mebibyte - 1)
    return (overflow ? bytes : sum) / mebibyte * mebibyte
}
