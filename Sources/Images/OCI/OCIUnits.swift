// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux

/// The units that run an OCI image in a guest; pure.
///
/// Its files are read-only below `rootfs`. At each start of the VM they get an empty layer on top,
/// so that what is written outside of the volumes is gone with the next start, as with a container
/// that is replaced.
struct OCIUnits {
    static let home = "/usr/lib/martlet/oci"
    static let state = "/var/lib/martlet-oci"
    /// Where the guest has the root of the image.
    static let root = "/run/martlet-oci/root"
    static let prepare = "\(home)/prepare"
    /// Variables of secrets, for systemd alone.
    static let secretsFile = "/run/martlet-oci/secrets"

    static let service = OCIService.unit
    static let rootService = "martlet-oci-root.service"

    /// What stands for the form of the units in a layer's key: with another one, layers are new.
    static func form(_ service: OCIService?) -> String {
        var config = OCIConfig()
        config.command = ["x"]
        config.volumes = ["/x"]
        config.ports = [ProtocolPort(.tcp, 80)]
        let folders = OCIFolder.all(config, service) { $0 }
        let units = [OCIUser(), OCIUser(user: 1, group: 1, groups: [2])].map { user in
            let units = OCIUnits(
                config: config, user: user, name: "x", folders: folders,
                secrets: service?.secrets)
            return units.serviceUnit + units.rootUnit + units.prepareScript
        }
        return SHA256.hex(units.joined().utf8)
    }

    let config: OCIConfig
    let user: OCIUser
    /// What is shown as the image's name.
    let name: String
    let folders: [OCIFolder]
    /// Those that the program is handed; nil for all credentials of the VM.
    let secrets: [String: ServiceSecret]?

    /// Puts the image's root together.
    ///
    /// It is not there before, so no process can be in it.
    var rootUnit: String {
        let mounts = ["/var"] + folders.filter { $0.mode != nil }.map(\.place)
        return """
            [Unit]
            Description=The files of the OCI image
            RequiresMountsFor=\(mounts.joined(separator: " "))
            [Service]
            Type=oneshot
            RemainAfterExit=yes
            ExecStart=\(OCIUnits.prepare)
            ExecStart=/bin/sh -euc 'cd \(OCIUnits.state) && rm -rf upper work && mkdir -m 755 upper work && \\
                mkdir -p \(OCIUnits.root) && mount -t overlay -o lowerdir=\(OCIUnits.home)/rootfs,upperdir=\(OCIUnits.state)/upper,workdir=\(OCIUnits.state)/work overlay \(OCIUnits.root) && \\
                mount --bind \(OCIUnits.root)/run \(OCIUnits.root)/run && hostname >/run/martlet-oci/hostname'
            ExecStop=/bin/umount -R \(OCIUnits.root)

            """
    }

    /// Lays ready what the program keeps and is told, as root of the guest.
    ///
    /// What an image has in a folder is copied once, and gets its name when all of it is on the
    /// disk: what the program removes from there stays away, also when the image changes.
    var prepareScript: String {
        let quote = LayerSteps.quote
        var lines = [
            "#!/bin/sh", "set -eu", "export LC_ALL=C", "fill() {", "\t[ ! -d \"$1\" ] || return 0",
            "\tnew=\"${1%/*}/.martlet-new.${1##*/}\"", "\tmkdir -p \"${1%/*}\"",
            "\trm -rf \"$new\"", "\tcp -a \"\(OCIUnits.home)/rootfs$2\" \"$new\"",
            "\tsync -f \"$new\"", "\tmv -T \"$new\" \"$1\"", "}",
        ]
        for folder in folders {
            lines.append("fill \(quote(folder.place)) \(quote(folder.origin))")
            guard let mode = folder.mode else { continue }
            // Root's programs hand their folders over as they like. A share may refuse owners.
            if user.user != 0 {
                lines.append("chown \(user.user):\(user.group) \(quote(folder.place)) || :")
            }
            lines.append("chmod \(mode) \(quote(folder.place)) || :")
        }
        let variables = secretVariables
        if !variables.isEmpty {
            lines += [
                "umask 077", "mkdir -p -m 755 /run/martlet-oci",
                "variable() {", "\tfile=\"/run/credentials/@system/$2\"",
                "\t[ ! -e \"$file\" ] || " + OCIUnits.variableLine, "}", "{",
            ]
            lines += variables.map { "\tvariable \($0.variable) \(quote($0.credential))" }
            lines.append("} >\(OCIUnits.secretsFile)")
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// Writes one as an EnvironmentFile has it, where these four would say something else.
    private static let variableLine =
        #"printf '%s="%s"\n' "$1" "$(sed 's/[\"$`]/\\&/g' "$file")""#

    private var secretVariables: [(variable: String, credential: String)] {
        (secrets ?? [:]).sorted { $0.key < $1.key }.compactMap { name, secret in
            secret.env.map { ($0, ServiceCredential.prefix + name) }
        }
    }

    /// The service itself.
    var serviceUnit: String {
        var lines = [
            "[Unit]", "Description=OCI image \(OCIUnits.escape(name))",
            "Requires=martlet-oci-root.service", "After=martlet-oci-root.service network.target",
            "[Service]", "Type=exec", "ExecStart=\(commandLine)",
            "RootDirectory=\(OCIUnits.root)", "WorkingDirectory=\(OCIUnits.escape(config.folder))",
            "User=\(user.user)", "Group=\(user.group)",
        ]
        if !user.groups.isEmpty {
            lines.append(
                "SupplementaryGroups=" + user.groups.map(String.init).joined(separator: " "))
        }
        // s6-overlay, for one, refuses to be anything but the first process.
        if config.entrypoint.first == "/init" { lines.append("PrivatePIDs=yes") }
        lines += environment.map { "Environment=\(OCIUnits.quote($0))" }
        lines += told
        if let path = searchPath { lines.append("ExecSearchPath=\(OCIUnits.escape(path))") }
        lines += [
            "BindReadOnlyPaths=/run/martlet/resolv.conf:/etc/resolv.conf "
                + "/run/martlet/hosts:/etc/hosts /run/martlet-oci/hostname:/etc/hostname"
        ]
        for folder in folders {
            // Each in quotes of its own: a colon inside of them would part nothing.
            lines.append(
                "BindPaths=\(OCIUnits.quote(folder.place)):\(OCIUnits.quote(folder.path))")
        }
        lines += [
            "KillSignal=\(config.stopSignal)", "KillMode=mixed", "TimeoutStopSec=30",
            "SuccessExitStatus=143", "Restart=on-failure", "RestartSec=5", "LimitNOFILE=524288",
            "UMask=0022",
        ]
        return (lines + sandbox + ["[Install]", "WantedBy=multi-user.target", ""])
            .joined(separator: "\n")
    }

    /// What the VM says to the program: its variables, which win over the image's, and secrets.
    private var told: [String] {
        let prefix = ServiceCredential.prefix
        let variables = "/run/credentials/@system/\(prefix)\(ServiceCredential.environment)"
        var lines = ["EnvironmentFile=-\(variables)"]
        if !secretVariables.isEmpty { lines.append("EnvironmentFile=\(OCIUnits.secretsFile)") }
        guard let secrets else { return lines + ["ImportCredential=\(prefix)*"] }
        // One that is loaded must be there; one that is imported may be missing.
        return lines
            + secrets.sorted { $0.key < $1.key }.map { name, secret in
                secret.optional
                    ? "ImportCredential=\(prefix)\(name)"
                    : "LoadCredential=\(prefix)\(name):\(prefix)\(name)"
            }
    }

    /// What no image needs of a container either.
    private var sandbox: [String] {
        let isRoot = user.user == 0
        // Root's programs become somebody else, and hand their files over to them.
        let root =
            "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_NET_BIND_SERVICE "
            + "CAP_SETGID CAP_SETUID"
        let bind = config.ports.contains { $0.port < 1024 } ? "CAP_NET_BIND_SERVICE" : ""
        return [
            "NoNewPrivileges=yes", "CapabilityBoundingSet=\(isRoot ? root : bind)",
            "AmbientCapabilities=\(isRoot ? "" : bind)", "PrivateTmp=yes", "PrivateDevices=yes",
            "PrivateIPC=yes", "MountAPIVFS=yes", "ProtectProc=invisible", "ProtectClock=yes",
            "ProtectControlGroups=yes", "ProtectHostname=yes", "ProtectKernelLogs=yes",
            "ProtectKernelModules=yes", "ProtectKernelTunables=yes",
            "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK", "RestrictNamespaces=yes",
            "RestrictRealtime=yes", "LockPersonality=yes", "RemoveIPC=yes", "KeyringMode=private",
            "DevicePolicy=closed", "SystemCallArchitectures=native",
            "SystemCallFilter=@system-service", "SystemCallErrorNumber=EPERM", "LimitCORE=0",
        ]
    }

    private var commandLine: String {
        var words = config.entrypoint + config.command
        // systemd knows no path that is relative to the working folder.
        if let first = words.first, first.contains("/"), !first.hasPrefix("/") {
            let folder = config.folder == "/" ? "" : config.folder
            words[0] = "\(folder)/\(first.hasPrefix("./") ? String(first.dropFirst(2)) : first)"
        }
        // The colon: "$" stands for nothing but itself.
        words[0] = ":" + words[0]
        return words.map(OCIUnits.quote).joined(separator: " ")
    }

    /// Those that systemd takes, and HOME as a container has it.
    private var environment: [String] {
        let given = config.environment.filter { entry in
            let name = entry.prefix { $0 != "=" }
            return name.utf8.count < entry.utf8.count && !name.isEmpty
                && name.first?.isNumber == false
                && name.utf8.allSatisfy {
                    (48...57).contains($0) || (65...90).contains($0 & 0xDF) || $0 == 95
                }
        }
        let hasHome = given.contains { $0.hasPrefix("HOME=") }
        return (hasHome ? [] : ["HOME=\(user.home)"]) + given
    }

    private var searchPath: String? {
        let path = config.environment.last { $0.hasPrefix("PATH=") }?.dropFirst(5)
        let folders = (path ?? "").split(separator: ":").filter { $0.hasPrefix("/") }
        return folders.isEmpty ? nil : folders.joined(separator: ":")
    }

    /// A word for a unit's line, in quotes and without specifiers.
    static func quote(_ text: String) -> String {
        var out = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "%": out += "%%"
            case "\n": out += "\\n"
            case _ where scalar.value < 0x20 || scalar.value == 0x7F:
                let hex = String(scalar.value, radix: 16)
                out += "\\x" + (hex.count < 2 ? "0" : "") + hex
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }

    /// A text for a line that takes no quotes; a control character would end the line.
    static func escape(_ text: String) -> String {
        String(
            text.unicodeScalars.filter { $0.value >= 0x20 && $0.value != 0x7F }.map(Character.init)
        )
        .replacing("%", with: "%%")
    }
}
