// SPDX-License-Identifier: Apache-2.0

/// Who may log in over SSH.
package struct SSH: Record {
    /// Nil stands for the keys of whoever runs `up`.
    package var authorizedKeys: [AuthorizedKey]?
    package var user = "admin"

    package init() {}

    package mutating func declare(_ key: Fields) {
        key(
            "authorizedKeys", &authorizedKeys,
            "Public keys; those of whoever runs `up` unless given.")
        key("user", &user, "The account they open: admin, or root.")
    }
}

/// One line of an authorized_keys file: type, key in base64, comment.
package struct AuthorizedKey: Notation {
    package let text: String

    private static let types = [
        "ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
    ]

    package init?(_ text: String) {
        let words = text.split(separator: " ", maxSplits: 2)
        guard words.count >= 2, Self.types.contains(String(words[0])), !words[1].isEmpty,
            !text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F })
        else { return nil }
        let body = words[1].utf8.reversed().drop { $0 == UInt8(ascii: "=") }
        guard
            body.allSatisfy({
                isLetterOrDigit($0) || $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "/")
            }), words[1].utf8.count - body.count <= 2
        else { return nil }
        self.text = text
    }

    package var description: String { text }
    package static var expected: String {
        "a public key such as \"ssh-ed25519 AAAA… me\" (type, base64, comment)"
    }
    package static var pattern: String { "^(ssh|ecdsa|sk)-\\S+ [A-Za-z0-9+/]+=*( .*)?$" }
}

/// An account of the guest.
package struct User: Record {
    package var name = ""
    package var authorizedKeys: [AuthorizedKey] = []
    package var sudo = false
    package var groups: [String] = []

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("name", &name, .required, "The login name.")
        key("authorizedKeys", &authorizedKeys, "Public keys that open the account.")
        key("sudo", &sudo, "Whether it may become root, without a password.")
        key("groups", &groups, "Further groups of the guest.")
    }
}

/// What a guest gets as a credential: a secret of the fleet, or plain text.
package struct Credential: Record {
    package var secret: String?
    package var text: String?

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("secret", &secret, "The name of an entry of `secrets`.")
        key("text", &text, "Text that is not secret.")
    }

    package mutating func finish(_ scope: Scope) {
        if (secret == nil) == (text == nil) { scope.fail("give either 'secret' or 'text'") }
    }
}

/// A crypt(3) hash for the console login of root.
package struct PasswordHash: Notation {
    package let text: String

    package init?(_ text: String) {
        guard text.hasPrefix("$"), text.split(separator: "$").count >= 3,
            text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: ":") })
        else { return nil }
        self.text = text
    }

    package var description: String { text }
    package static var expected: String { "a hash from `mkpasswd`, such as $y$…" }
    package static var pattern: String { #"^\$[^:\s]+$"# }
    /// Unlike others it never shows what was found: it may be the password itself.
    package static func read(_ scope: Scope) -> PasswordHash? {
        if let text = scope.scalar(), let hash = PasswordHash(text) { return hash }
        scope.fail("expected \(expected); a password never stands in this file")
        return nil
    }
}

package struct Kernel: Record {
    package var parameters: [String] = []
    package var modules: [String] = []

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("parameters", &parameters, "Words to add to the kernel command line.")
        key("modules", &modules, "Modules to load at boot.")
    }
}

/// How the guest and the process around it are locked down.
package struct Hardening: Record {
    package enum Level: String, Choice { case standard, strict, off }

    package var kernel = Level.standard
    package var confine = Confinement.standard
    package var exceptions: [String] = []

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("kernel", &kernel, "Kernel settings of the guest: standard, strict or off.")
        key("confine", &confine, "Sandbox of the VM's process: true, false, or unit settings.")
        key("exceptions", &exceptions, "Kernel settings to leave as they are, by name.")
    }
}

package enum Confinement: Declared {
    case standard
    case off
    /// Settings of systemd.exec that are added to the standard ones.
    case custom([String: String])

    package static func read(_ scope: Scope) -> Confinement? {
        if case .mapping = scope.node.content {
            return [String: UnitSetting].read(scope).map { .custom($0.mapValues(\.text)) }
        }
        return Bool.read(scope).map { $0 ? .standard : .off }
    }
    package var json: JSONValue {
        switch self {
        case .standard: true
        case .off: false
        case .custom(let settings): settings.json
        }
    }
    package static var schema: JSONValue { ["anyOf": [Bool.schema, [String: UnitSetting].schema]] }
}

/// The value of a unit's setting: any scalar, as written.
struct UnitSetting: Declared {
    let text: String

    static func read(_ scope: Scope) -> UnitSetting? {
        scope.parse("a value such as true or invisible") { UnitSetting(text: $0) }
    }
    var json: JSONValue { .string(text) }
    static var schema: JSONValue { ["type": ["string", "boolean", "integer"]] }
}

/// The guest's vsock address.
package enum VsockAddress: Declared {
    case auto
    case off
    case cid(UInt32)

    package static func read(_ scope: Scope) -> VsockAddress? {
        scope.parse("auto, off, or a number from 3 to 4294967294") {
            switch $0 {
            case "auto": .auto
            case "off": .off
            default: UInt32($0).flatMap { (3..<UInt32.max).contains($0) ? .cid($0) : nil }
            }
        }
    }
    package var json: JSONValue {
        switch self {
        case .auto: "auto"
        case .off: "off"
        case .cid(let number): JSONValue(number)
        }
    }
    package static var schema: JSONValue {
        [
            "anyOf": [
                ["enum": ["auto", "off"]],
                ["type": "integer", "minimum": 3, "maximum": 4_294_967_294],
            ]
        ]
    }
}

/// A device of the host that the guest gets for itself.
package struct Device: Record {
    package var pci: PCIAddress?
    package var usb: USBIdentifier?

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("pci", &pci, "A PCI address, such as 0000:01:00.0.")
        key("usb", &usb, "Vendor and product of a USB device, such as 046d:c52b.")
    }

    package mutating func finish(_ scope: Scope) {
        if (pci == nil) == (usb == nil) { scope.fail("give either 'pci' or 'usb'") }
    }
}

package struct PCIAddress: Notation {
    package let text: String

    package init?(_ text: String) {
        guard isHexPattern(text, "xxxx:xx:xx.x") else { return nil }
        self.text = text.lowercased()
    }
    package var description: String { text }
    package static var expected: String { "a PCI address such as 0000:01:00.0" }
    package static var pattern: String { #"^[0-9A-Fa-f]{4}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]$"# }
}

package struct USBIdentifier: Notation {
    package let text: String

    package init?(_ text: String) {
        guard isHexPattern(text, "xxxx:xxxx") else { return nil }
        self.text = text.lowercased()
    }
    package var description: String { text }
    package static var expected: String { "vendor and product such as 046d:c52b" }
    package static var pattern: String { "^[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}$" }
}

/// A UUID in lower case.
package struct MachineUUID: Notation {
    package let text: String

    package init?(_ text: String) {
        guard isHexPattern(text, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx") else { return nil }
        self.text = text.lowercased()
    }
    package var description: String { text }
    package static var expected: String { "a UUID such as 0d3f8c1e-…" }
    package static var pattern: String {
        "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
    }
}

/// Bounds on what a VM may take from its host.
package struct Limits: Record {
    package var cpu: Percent?
    package var memoryOverhead = ByteSize.mebibytes(256)
    package var io: ByteRate?
    package var network: BitRate?
    package var tasks = 128

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("cpu", &cpu, "CPU time, in percent of one CPU; unbounded unless given.")
        key(
            "memoryOverhead", &memoryOverhead,
            "Memory the VM's processes may take beyond the guest's.")
        key("io", &io, "Disk throughput; unbounded unless given.")
        key("network", &network, "Network throughput; unbounded unless given.")
        key("tasks", &tasks, "Threads and processes of the VM on the host.")
    }
}

/// A name under which the VM is reachable from outside, through the reverse proxy.
package struct Publication: Record {
    package var host = ""
    /// Nil stands for the service's own port.
    package var port: Port?
    package var tls = TLS.auto

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("host", &host, .required, "The host name that visitors use.")
        key("port", &port, "The guest's port; the service's own, else 80.")
        key("tls", &tls, "auto (ACME), internal, dns:PROVIDER:SECRET, { cert, key }, or off.")
    }
}

package enum TLS: Declared {
    case auto
    case `internal`
    case off
    case dns(provider: String, secret: String)
    case files(certificate: String, key: String)

    private struct Files: Record {
        var certificate = ""
        var privateKey = ""

        mutating func declare(_ key: Fields) {
            key.path("cert", &certificate, .required, "The certificate chain in PEM.")
            key.path("key", &privateKey, .required, "The private key in PEM.")
        }
    }

    package static func read(_ scope: Scope) -> TLS? {
        if case .mapping = scope.node.content {
            return Files.read(scope).map { .files(certificate: $0.certificate, key: $0.privateKey) }
        }
        return scope.parse("auto, internal, dns:PROVIDER:SECRET, { cert, key } or off") { text in
            switch text {
            case "auto": return .auto
            case "internal": return .internal
            case "off": return .off
            default:
                let parts = text.pieces(":")
                guard parts.count == 3, parts[0] == "dns", !parts[1].isEmpty, !parts[2].isEmpty
                else { return nil }
                return .dns(provider: String(parts[1]), secret: String(parts[2]))
            }
        }
    }
    package var json: JSONValue {
        switch self {
        case .auto: "auto"
        case .internal: "internal"
        case .off: "off"
        case .dns(let provider, let secret): "dns:\(provider):\(secret)"
        case .files(let certificate, let key):
            ["cert": .string(certificate), "key": .string(key)]
        }
    }
    package static var schema: JSONValue {
        [
            "anyOf": [
                ["type": "string", "pattern": "^(auto|internal|off|dns:[^:]+:[^:]+)$"],
                Files.schema,
            ]
        ]
    }
}

package enum HypervisorChoice: String, Choice {
    case auto, qemu
    case cloudHypervisor = "cloud-hypervisor"
    case firecracker
}
package enum Accelerator: String, Choice { case auto, kvm, tcg }
package enum MachineType: String, Choice { case auto, microvm, q35 }
package enum Mode: String, Choice { case immutable, overlay, mutable }
