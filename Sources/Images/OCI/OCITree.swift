// SPDX-License-Identifier: Apache-2.0
import Archives
import Fleets
import Glibc
import Linux

/// Lays an OCI image ready for a layer: its root, and the units that run its program.
struct OCITree {
    let folder: String
    /// What is shown as the image's name.
    let name: String
    /// What a service of the catalogue wants of it.
    let service: OCIService?

    /// Returns the ports that the image wants open.
    ///
    /// Blocks the thread.
    func make(_ pulled: OCIPull.Pulled) throws -> [ProtocolPort] {
        do {
            return try lay(pulled)
        } catch let error as OCIImage.Failure {
            throw ArchiveEntries.Failure(text: error.text)
        }
    }

    private func lay(_ pulled: OCIPull.Pulled) throws -> [ProtocolPort] {
        let config = try OCIConfig(pulled.config)
        guard config.architecture == LayerRecipe.architecture else {
            throw OCIImage.Failure(
                text:
                    "it is for \(config.architecture), and this host is \(LayerRecipe.architecture)"
            )
        }
        let rootfs = "\(folder)/rootfs"
        try Files.makeFolder(rootfs)
        let unpacker = try LayerUnpacker(rootfs)
        for layer in pulled.layers { try unpacker.add(layer) }
        let root = try Descriptor.open(rootfs, O_RDONLY | O_DIRECTORY)
        let top = try Files.readLink("/proc/self/fd/\(root.raw)")
        let tree = TreeWriter(root, followLinks: true)
        try complete(tree, config)
        let folders = try OCIFolder.all(config, service) { path in
            // Its own links are followed, and none leads out of it.
            let there = try tree.folder(path.split(separator: "/"))
            return String(try Files.readLink("/proc/self/fd/\(there.raw)").dropFirst(top.count))
        }
        let user = try OCIUser(
            config.user, passwd: read("passwd", tree), group: read("group", tree))
        let units = OCIUnits(
            config: config, user: user, name: name, folders: folders, secrets: service?.secrets)
        try Files.write("\(folder)/\(OCIUnits.service)", units.serviceUnit)
        try Files.write("\(folder)/\(OCIUnits.rootService)", units.rootUnit)
        try Files.write("\(folder)/prepare", units.prepareScript)
        // systemd takes no number that is nobody's: the layer gets accounts for them.
        let numbers = [user.user, user.group] + user.groups
        try Files.write(
            "\(folder)/account", numbers.map(String.init).joined(separator: " ") + "\n")
        return config.ports
    }

    /// Makes what a running service has mounted over it.
    private func complete(_ tree: TreeWriter, _ config: OCIConfig) throws {
        for name in ["proc", "sys", "dev", "run", "tmp", "etc"] { try tree.realFolder(name) }
        for path in ["/var/tmp", config.folder] {
            _ = try tree.folder(path.split(separator: "/"))
        }
        for name in ["resolv.conf", "hosts", "hostname"] {
            _ = try tree.file(["etc", name[...]], mode: 0o644)
        }
    }

    /// A table of accounts; empty where there is none, or something else than a file.
    private func read(_ name: String, _ tree: TreeWriter) throws -> String {
        let etc = try tree.existing(["etc"])
        let raw = openat(etc.raw, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
        guard raw >= 0 else { return "" }
        let file = Descriptor(owning: raw)
        var info = stat()
        guard fstat(raw, &info) == 0, info.st_mode & S_IFMT == S_IFREG else { return "" }
        return String(decoding: try file.readAll(limit: 4 << 20), as: UTF8.self)
    }
}
