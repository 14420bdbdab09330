// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux

/// What an OCI image says of itself: parts of its manifest and its configuration.
struct OCIImage: Equatable {
    struct Blob: Equatable {
        /// SHA-256 in hexadecimal.
        let digest: String
        let bytes: Int64
    }

    /// What is wrong with a manifest or configuration.
    struct Failure: Error, Equatable { let text: String }

    let config: Blob
    /// The lowest first.
    let layers: [Blob]

    /// The digest of the manifest for a platform, where this is an index; nil where it is a manifest.
    static func choice(
        from text: [UInt8], architecture: String
    ) throws(Failure) -> String? {
        guard let list = try parse(text, "the manifest")["manifests"] else { return nil }
        let fits = list.elements.filter {
            $0["platform"]?["os"] == "linux"
                && $0["platform"]?["architecture"] == .string(architecture)
        }
        guard let digest = fits.first?["digest"]?.string.flatMap(hex) else {
            let all = list.elements.compactMap { $0["platform"]?["architecture"]?.string }
            throw Failure(
                text:
                    "it has nothing for linux/\(architecture), only for \(Set(all).sorted().joined(separator: ", "))"
            )
        }
        return digest
    }

    /// Reads a manifest, of OCI or of Docker's second schema.
    init(manifest text: [UInt8]) throws(Failure) {
        let json = try OCIImage.parse(text, "the manifest")
        guard let config = json["config"].flatMap(OCIImage.blob), let list = json["layers"],
            !list.elements.isEmpty, list.elements.count <= 512
        else { throw Failure(text: "its manifest names no configuration or no layers") }
        var layers: [Blob] = []
        for element in list.elements {
            guard let layer = OCIImage.blob(element) else {
                throw Failure(text: "its manifest names a layer without a SHA-256")
            }
            layers.append(layer)
        }
        self.config = config
        self.layers = layers
    }

    private static func blob(_ json: JSONValue) -> Blob? {
        guard let digest = json["digest"]?.string.flatMap(hex), let size = json["size"]?.integer,
            (0...(1 << 40)).contains(size)
        else { return nil }
        return Blob(digest: digest, bytes: size)
    }

    static func hex(_ digest: String) -> String? {
        guard digest.hasPrefix("sha256:") else { return nil }
        let hex = String(digest.dropFirst(7))
        return isDigest(hex) ? hex : nil
    }

    static func parse(_ text: [UInt8], _ what: String) throws(Failure) -> JSONValue {
        do throws(JSONError) { return try JSONValue(parsing: text) } catch {
            throw Failure(text: "\(what) cannot be read: \(error.description)")
        }
    }
}

/// How an OCI image wants to be run.
struct OCIConfig: Equatable {
    var architecture = ""
    /// As it stands there: `user`, `1000`, `user:group`; empty for root.
    var user = ""
    var entrypoint: [String] = []
    var command: [String] = []
    /// `NAME=value`.
    var environment: [String] = []
    var folder = "/"
    /// Absolute paths, sorted.
    var volumes: [String] = []
    var ports: [ProtocolPort] = []
    /// Such as `SIGQUIT`, or a number.
    var stopSignal = "SIGTERM"

    init() {}

    init(_ text: [UInt8]) throws(OCIImage.Failure) {
        let json = try OCIImage.parse(text, "its configuration")
        let config = json["config"] ?? .null
        func texts(_ key: String) -> [String] {
            (config[key]?.elements ?? []).compactMap(\.string)
        }
        architecture = json["architecture"]?.string ?? ""
        user = config["User"]?.string ?? ""
        entrypoint = texts("Entrypoint")
        command = texts("Cmd")
        environment = texts("Env")
        folder = try OCIConfig.path(config["WorkingDir"]?.string ?? "", "its working folder")
        var volumes: [String] = []
        for member in config["Volumes"]?.members ?? [] {
            let path = try OCIConfig.path(member.key, "its volume '\(member.key)'")
            guard path != "/", !path.contains(":") else {
                throw .init(text: "its volume '\(path)' cannot be one")
            }
            volumes.append(path)
        }
        self.volumes = Set(volumes).sorted()
        for member in config["ExposedPorts"]?.members ?? [] {
            let parts = member.key.split(separator: "/")
            let transport = parts.count > 1 ? String(parts[1]) : "tcp"
            guard parts.count <= 2, let number = parts.first.flatMap({ UInt16($0) }), number > 0
            else { throw .init(text: "its port '\(member.key)' is none") }
            // Of SCTP, guests have no modules.
            guard let transport = TransportProtocol(rawValue: transport) else { continue }
            ports.append(ProtocolPort(transport, number))
        }
        ports.sort { ($0.port, $0.transport.rawValue) < ($1.port, $1.transport.rawValue) }
        if let signal = config["StopSignal"]?.string, !signal.isEmpty {
            stopSignal = try OCIConfig.signal(signal)
        }
        guard !(entrypoint + command).isEmpty else {
            throw .init(
                text: "it says neither an entrypoint nor a command: there is nothing to run")
        }
        for text in entrypoint + command + environment + [user]
        where text.unicodeScalars.contains(where: { $0 == "\0" }) {
            throw .init(text: "its configuration holds a zero byte")
        }
    }

    /// A path in one form; no part of it may lead up.
    private static func path(_ text: String, _ what: String) throws(OCIImage.Failure) -> String {
        let parts = text.split(separator: "/").filter { $0 != "." }
        guard !parts.contains(".."), text.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else {
            throw .init(text: "\(what) is no path")
        }
        return "/" + parts.joined(separator: "/")
    }

    private static func signal(_ text: String) throws(OCIImage.Failure) -> String {
        if let number = Int(text), (1...64).contains(number) { return String(number) }
        let name = text.uppercased()
        let long = name.hasPrefix("SIG") ? name : "SIG" + name
        guard
            long.utf8.allSatisfy({
                (65...90).contains($0) || (48...57).contains($0) || $0 == 43 || $0 == 45
            }),
            long.utf8.count <= 12
        else { throw .init(text: "its stop signal '\(text)' is none") }
        return long
    }
}

/// Whom an image's program runs as, by numbers.
struct OCIUser: Equatable {
    var user: UInt32 = 0
    var group: UInt32 = 0
    var groups: [UInt32] = []
    var home = "/"

    init(user: UInt32 = 0, group: UInt32 = 0, groups: [UInt32] = [], home: String = "/") {
        (self.user, self.group, self.groups, self.home) = (user, group, groups, home)
    }

    /// Looks up what the configuration says in the image's own `passwd` and `group`; pure.
    init(_ text: String, passwd: String, group table: String) throws(OCIImage.Failure) {
        func rows(_ text: String) -> [[Substring]] {
            text.split(separator: "\n").map {
                $0.split(separator: ":", omittingEmptySubsequences: false)
            }
        }
        let users = rows(passwd).filter { $0.count >= 6 }
        let all = rows(table).filter { $0.count >= 3 }
        let parts = (text.isEmpty ? "0" : text).split(
            separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        let row = users.first { $0[0] == parts[0] } ?? users.first { $0[2] == parts[0] }
        guard let number = UInt32(row?[2] ?? parts[0]), number < .max else {
            throw .init(
                text: "it runs as the user '\(parts[0])', whom its /etc/passwd does not have")
        }
        user = number
        group = row.flatMap { UInt32($0[3]) } ?? 0
        if let home = row?[5], home.hasPrefix("/") { self.home = String(home) }
        if parts.count > 1 {
            let found = all.first { $0[0] == parts[1] } ?? all.first { $0[2] == parts[1] }
            guard let number = UInt32(found?[2] ?? parts[1]), number < .max else {
                throw .init(
                    text: "it runs with the group '\(parts[1])', which its /etc/group does not have"
                )
            }
            group = number
            return
        }
        guard let name = row?[0] else { return }
        groups = all.filter { $0.count > 3 && $0[3].split(separator: ",").contains(name) }
            .compactMap { UInt32($0[2]) }.filter { $0 != group && $0 < .max }.sorted()
    }
}
