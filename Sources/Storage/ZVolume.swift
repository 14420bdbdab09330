// SPDX-License-Identifier: Apache-2.0

/// A volume of a ZFS pool that a VM has as a device, and the command lines that snapshot it.
///
/// Written to the documentation of ZFS: these have never met a real pool.
package struct ZVolume: Sendable, Equatable {
    /// Such as `tank/vms/web`.
    package let dataset: String

    /// Nil unless the device lies where udev names the volumes of pools.
    package init?(device: String) {
        let folder = "/dev/zvol/"
        guard device.hasPrefix(folder) else { return nil }
        let dataset = String(device.dropFirst(folder.count))
        // `@` would be a snapshot and a leading `-` an option.
        let isName = dataset.utf8.allSatisfy {
            isLetterOrDigit($0) || [45, 46, 47, 58, 95].contains($0)
        }
        guard isName, dataset.contains("/"), !dataset.hasPrefix("-"), !dataset.hasSuffix("/")
        else { return nil }
        self.dataset = dataset
    }

    package func snapshot(_ tag: String) -> String { "\(dataset)@\(tag)" }

    /// A volume that shows a snapshot's content for as long as it is copied.
    private func copy(_ tag: String) -> String { "\(dataset)-\(tag)" }
    package func copyDevice(_ tag: String) -> String { "/dev/zvol/\(copy(tag))" }

    /// One command for all volumes: ZFS takes the snapshots of one command at one moment.
    package static func take(_ volumes: [ZVolume], _ tag: String) -> [String] {
        ["zfs", "snapshot"] + volumes.map { $0.snapshot(tag) }
    }

    /// Restoring copies the content back from a clone.
    ///
    /// `zfs rollback` is no way: it goes back to the newest snapshot only, and with `-r` destroys
    /// all that are newer, which people have lost data by.
    package func beginRestore(_ tag: String) -> [String] {
        ["zfs", "clone", snapshot(tag), copy(tag)]
    }
    package func copyBack(_ tag: String) -> [String] {
        ["qemu-img"] + QEMUImage.convert
            + ["-n", "-f", "raw", "-O", "raw", copyDevice(tag), "/dev/zvol/\(dataset)"]
    }
    package func endRestore(_ tag: String) -> [String] { ["zfs", "destroy", copy(tag)] }

    package func remove(_ tag: String) -> [String] { ["zfs", "destroy", snapshot(tag)] }
}

private func isLetterOrDigit(_ byte: UInt8) -> Bool {
    (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
}
