// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux

/// Refuses a file system that cannot be made here, for its program is missing.
package func checkTools(for filesystem: Filesystem) throws(StorageError) {
    let maker = Maker(filesystem, label: "", uuid: "", bytes: 0, isZeroed: true)
    _ = try tool(maker.program, package: maker.package)
}

/// How the host makes a file system for a guest; pure.
///
/// The host makes it, not the guest: the first start is as fast as any other, and the guest needs
/// no tool for it. The root folder belongs to root, mode 0755, whoever runs this.
struct Maker: Equatable {
    let program: String
    /// The Debian package that brings the program.
    let package: String
    /// The arguments, before the path of the disk.
    let arguments: [String]
    /// Further ones, which not every version of the program takes.
    var wanted: [String] = []

    /// `isZeroed` says that the disk reads as zeros everywhere, as a new sparse file does.
    init(_ filesystem: Filesystem, label name: String, uuid: String, bytes: Int64, isZeroed: Bool) {
        let label = Maker.label(name, filesystem)
        switch filesystem {
        case .ext4:
            program = "mkfs.ext4"
            package = "e2fsprogs"
            // Room to describe 64 times the size is 0.3 MiB; mkfs would set 4 MiB aside for 1024
            // times. Beyond that the guest's kernel finds another way to grow.
            let limit = max(bytes / 4096, 1 << 15) * 64
            var options = "packed_meta_blocks=1,resize=\(limit),root_owner=0:0"
            // With that said, mkfs writes only a few hundred KiB, and the guest's kernel has no
            // inode tables to clear behind our back.
            if isZeroed { options = "assume_storage_prezeroed=1," + options }
            arguments = ["-q", "-F", "-L", label, "-U", uuid, "-m", "1", "-G", "64", "-E", options]
        case .xfs:
            program = "mkfs.xfs"
            package = "xfsprogs"
            arguments = ["-q", "-f", "-L", label, "-m", "uuid=\(uuid)"]
            wanted = Maker.forOldKernel
        case .btrfs:
            program = "mkfs.btrfs"
            package = "btrfs-progs"
            arguments = ["-q", "-f", "-L", label, "-U", uuid]
        case .vfat:
            program = "mkfs.vfat"
            package = "dosfstools"
            let number = uuid.filter { $0 != "-" }.prefix(8)
            // -I: on a whole disk, as all of ours are.
            arguments = ["-I", "-n", label, "-i", String(number)]
        }
    }

    /// Makes the file system on the disk `path`; `run` runs the program with these arguments.
    ///
    /// An argument that the program does not know is refused before anything is written.
    func make(on path: String, _ run: ([String]) async throws -> Void) async throws {
        guard !wanted.isEmpty else { return try await run(arguments + [path]) }
        do {
            try await run(arguments + wanted + [path])
        } catch let error as StorageError {
            guard case .failed(_, let output) = error, output.contains("config file") else {
                throw error
            }
            try await run(arguments + [path])
        }
    }

    /// Keeps a newer mkfs.xfs from using what the guest's kernel, a 6.1, cannot mount.
    ///
    /// Debian 12's brings this file and does not understand it.
    private static let forOldKernel: [String] = {
        let options = "/usr/share/xfsprogs/mkfs/lts_6.1.conf"
        return Files.exists(options) ? ["-c", "options=\(options)"] : []
    }()

    /// The volume's name as far as the file system has room for it.
    static func label(_ name: String, _ filesystem: Filesystem) -> String {
        switch filesystem {
        case .ext4: String(name.prefix(16))
        case .xfs: String(name.prefix(12))
        case .btrfs: name
        case .vfat: name.prefix(11).uppercased()
        }
    }
}
