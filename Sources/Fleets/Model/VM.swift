// SPDX-License-Identifier: Apache-2.0

/// One VM as it shall be: merged, checked, and with its defaults filled in.
///
/// The initial values are the defaults of the fleet file. Encoded as JSON a VM reads like its entry
/// in the file, so the record of a generation can be compared with it key by key.
package struct VM: Record {
    package var name = ""
    package var enable = true
    package var service: String?
    package var with = Parameters()
    package var host: String?
    package var hypervisor = HypervisorChoice.auto
    package var accelerator = Accelerator.auto
    package var machine = MachineType.auto
    package var image = ImageReference.named("core")
    package var vcpu = 1
    package var memory = Memory(.mebibytes(512))
    package var disk = ByteSize.gibibytes(8)
    package var interfaces: [Interface] = [Interface(network: "user")]
    package var ports: [PortForward] = []
    package var firewall = Firewall()
    package var ssh = SSH()
    package var dns: [IPAddress] = []
    package var uuid: MachineUUID?
    package var users: [User] = []
    package var rootPasswordHash: PasswordHash?
    package var timezone = "UTC"
    package var autostart = true
    package var restart = RestartPolicy.onFailure
    package var restartIfChanged = true
    package var after: [String] = []
    package var boot = Boot()
    package var stop = Stop()
    package var health: [HealthCheck] = []
    package var publish: [Publication] = []
    package var limits = Limits()
    package var shared = false
    package var volumes: [Volume] = []
    package var shares: [Share] = []
    package var credentials: [String: Credential] = [:]
    package var credentialPrefix = "HOST-"
    package var oemStrings: [String] = []
    package var vsock = VsockAddress.auto
    package var devices: [Device] = []
    package var tpm = false
    package var secureBoot = false
    package var kernel = Kernel()
    package var hardening = Hardening()
    package var snapshots: SnapshotPolicy?
    package var backups: BackupPolicy?
    package var warm = false
    package var mode = Mode.immutable

    package init() {}
    package init(name: String) { self.name = name }

    package mutating func declare(_ key: Fields) {
        declareMachine(key)
        declareGuest(key)
        declareLifecycle(key)
        declareStorage(key)
        declareSecurity(key)
    }

    private mutating func declareMachine(_ key: Fields) {
        key("enable", &enable, "false keeps the definition and stops the VM.")
        key("service", &service, "A ready service of the catalogue.")
        key("with", &with, "The service's own parameters.")
        key("host", &host, "The entry of `hosts` to run on; this machine unless given.")
        key("hypervisor", &hypervisor, "The program that runs the VM.")
        key("accelerator", &accelerator, "auto is KVM where the CPU offers it, else emulation.")
        key("machine", &machine, "The machine type of QEMU.")
        key("image", &image, "The operating system: an image's name, or a recipe.")
        key("vcpu", &vcpu, "Virtual CPUs.")
        key("memory", &memory, "Memory: a size, or { min, max } for a balloon.")
        key("disk", &disk, "The data volume, which holds /var, /home and /root.")
        key("vsock", &vsock, "The vsock address: auto, a number, or off.")
        key("devices", &devices, "Devices of the host to pass through.")
        key("tpm", &tpm, "Whether the VM has a virtual TPM.")
        key("secureBoot", &secureBoot, "Whether UEFI checks signatures.")
        key("oemStrings", &oemStrings, "SMBIOS strings for the guest; not secret.")
    }

    private mutating func declareGuest(_ key: Fields) {
        key("interfaces", &interfaces, "Connections to networks; one to `user` unless given.")
        key("ports", &ports, "Ports of the host that lead to the guest.")
        key("firewall", &firewall, "Ports that the guest's firewall opens.")
        key("ssh", &ssh, "Who may log in over SSH.")
        key("dns", &dns, "Resolvers of the guest; those of its network unless given.")
        key("uuid", &uuid, "The machine's UUID; made once and kept unless given.")
        key("users", &users, "Further accounts.")
        key(
            "rootPasswordHash", &rootPasswordHash, "Opens the console to root; locked unless given."
        )
        key("timezone", &timezone, "The guest's time zone, such as Europe/Berlin.")
        key("kernel", &kernel, "Kernel parameters and modules.")
        key("mode", &mode, "Whether the system can be written to, and what becomes of it.")
    }

    private mutating func declareLifecycle(_ key: Fields) {
        key("autostart", &autostart, "Whether the VM starts with its host.")
        key("restart", &restart, "What happens when the guest ends by itself.")
        key("restartIfChanged", &restartIfChanged, "Whether `up` may restart it for a change.")
        key("after", &after, "VMs that must be healthy first.")
        key("boot", &boot, "Limits of a start.")
        key("stop", &stop, "Limits of a stop.")
        var checks = OneOrMore(health)
        key("health", &checks, "Checks of the guest: one, or a list.")
        health = checks.elements
        key("publish", &publish, "Host names under which the VM is reachable from outside.")
        key("warm", &warm, "Whether a memory snapshot is kept for a warm start.")
    }

    private mutating func declareStorage(_ key: Fields) {
        key("volumes", &volumes, "Further disks.")
        key("shares", &shares, "Directories of the host inside the guest.")
        key("shared", &shared, "Memory that other processes may map; set where shares need it.")
        key("snapshots", &snapshots, "When snapshots are made and how many are kept.")
        key("backups", &backups, "When backups are made, where to, and how many are kept.")
    }

    private mutating func declareSecurity(_ key: Fields) {
        key("limits", &limits, "Bounds on what the VM takes from its host.")
        key("credentials", &credentials, "Secrets and texts handed to the guest, by name.")
        key(
            "credentialPrefix", &credentialPrefix,
            "Goes before each credential's name in the guest.")
        key("hardening", &hardening, "How guest and process are locked down.")
    }
}

extension VM: Codable {
    /// Reads an encoded VM; a key that this version does not know is an error, never dropped.
    package init(from decoder: any Decoder) throws {
        let encoded = try JSONValue(from: decoder)
        try self.init(record: .object(encoded.members.filter { $0.key != "name" }))
        name = encoded["name"]?.string ?? ""
    }

    /// Writes the name as well: it is no key of an entry in the file, whose place is its name.
    package func encode(to encoder: any Encoder) throws {
        let name = JSONValue.Member("name", .string(name))
        try JSONValue.object([name] + json.members).encode(to: encoder)
    }
}

/// Free-form parameters of a service.
package struct Parameters: Declared {
    package var value: JSONValue = .object([])

    package init() {}

    package static func read(_ scope: Scope) -> Parameters? {
        guard scope.mapping() != nil else { return nil }
        var parameters = Parameters()
        parameters.value = JSONValue(scope.node)
        return parameters
    }
    package var json: JSONValue { value }
    package static var schema: JSONValue { ["type": "object"] }
}

extension JSONValue {
    /// The document of a YAML tree, by YAML's core schema.
    package init(_ node: Node) {
        switch node.content {
        case .sequence(let items): self = .array(items.map { JSONValue($0) })
        case .mapping(let entries):
            self = .object(entries.map { Member($0.name, JSONValue($0.value)) })
        case .scalar(let text, let plain):
            if !plain {
                self = .string(text)
            } else if node.isNull {
                self = .null
            } else if text == "true" || text == "false" {
                self = .bool(text == "true")
            } else if let value = Int64(text) {
                self = .integer(value)
            } else if text.utf8.first.map({ (0x2D...0x39).contains($0) }) == true,
                let value = Double(text), value.isFinite
            {
                self = .number(value)
            } else {
                self = .string(text)
            }
        }
    }
}
