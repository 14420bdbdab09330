// SPDX-License-Identifier: Apache-2.0
import Linux

/// The program that serves a folder to a guest: one process for each share.
package struct FileDaemon: Codable, Sendable, Equatable {
    package enum Kind: String, Codable, Sendable {
        /// QEMU's own, in Debian 12; it needs root and cannot change owners.
        case c
        /// The one that replaced it, in Debian 13.
        case rust
    }

    package var path: String
    package var kind: Kind

    package init(path: String, kind: Kind) {
        self.path = path
        self.kind = kind
    }

    /// Where Debian has them, the better one first, and the packages that they come in.
    package static let places = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"]
    package static let package = "virtiofsd (in Debian 12: qemu-system-common)"

    /// Finds the daemon of this host; nil when there is none.
    ///
    /// MARTLET_VIRTIOFSD names another one.
    package static func find() async throws -> FileDaemon? {
        let candidates = environment("MARTLET_VIRTIOFSD").map { [$0] } ?? places
        guard let path = candidates.first(where: Files.isExecutable) else { return nil }
        let output = try await Program(path, ["--version"]).capture()
        return FileDaemon(path: path, kind: kind(version: output.text + output.errorText))
    }

    /// Which of the two says this of its version; pure.
    package static func kind(version: String) -> Kind {
        // `virtiofsd version 7.2.22 (Debian …)` against `virtiofsd 1.13.2`.
        version.hasPrefix("virtiofsd version ") ? .c : .rust
    }

    /// What a daemon is when it starts.
    package struct Footing: Sendable, Equatable {
        /// Whether it may read every file, and give files to others.
        package var isPrivileged: Bool
        /// Whether all around it shows nothing but its folder: it then makes no namespaces itself.
        package var isContained: Bool

        package init(isPrivileged: Bool, isContained: Bool) {
            self.isPrivileged = isPrivileged
            self.isContained = isContained
        }
    }

    /// The arguments that serve a folder to whoever connects to the listening socket `descriptor`;
    /// pure.
    ///
    /// `folder` shows the share's source and nothing else. As root it is mounted so that it cannot
    /// be written where it must not be; without, the daemon alone sees to that.
    package func arguments(
        _ share: SharedFolder, folder: String, descriptor: Int32, attributes: Bool,
        footing: Footing
    ) -> [String] {
        switch kind {
        case .c:
            // Its seccomp filter is always on, and so are its namespaces. A device node that a guest
            // makes would be one for the users of the host, too.
            let options =
                ["source=\(escaped(folder))", "sandbox=namespace", "cache=auto"]
                + ["announce_submounts", attributes ? "xattr" : "no_xattr", "modcaps=-mknod"]
                + ["log_level=err"]
            return ["--fd=\(descriptor)", "-o", options.joined(separator: ",")]
        case .rust:
            let isContained = footing.isContained
            return [
                "--fd=\(descriptor)", "--shared-dir=\(folder)",
                "--sandbox=\(isContained ? "none" : "namespace")", "--seccomp=kill",
                "--cache=auto", "--announce-submounts", "--log-level=error",
            ] + (isContained ? ["--rlimit-nofile=0"] : []) + (attributes ? ["--xattr"] : [])
                + (footing.isPrivileged ? ["--modcaps=-mknod"] : [])
                + (share.readOnly ? ["--readonly"] : []) + translation(share.owners, footing)
        }
    }

    private func translation(_ owners: SharedFolder.Owners, _ footing: Footing) -> [String] {
        let all = UInt32.max
        let maps: [String] =
            switch owners {
            case .host: []
            case .map(let base):
                ["map:0:\(base):65536", "forbid-guest:65536:\(all - 65536)"]
            case .squash(let user):
                // In a user namespace of its own it is 0, and there is nobody else.
                [
                    "squash-guest:0:\(footing.isContained ? user : 0):\(all)",
                    "squash-host:0:0:\(all)",
                ]
            }
        return ["uid", "gid"].flatMap { kind in maps.map { "--translate-\(kind)=\($0)" } }
    }

    /// An option ends at a comma unless that is escaped.
    private func escaped(_ path: String) -> String {
        path.replacing("\\", with: "\\\\").replacing(",", with: "\\,")
    }
}
