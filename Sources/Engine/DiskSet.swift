// SPDX-License-Identifier: Apache-2.0
package import Fleets
package import Hypervisors

/// One disk of a VM that holds data: its data volume, or one of its further volumes.
package struct VMDisk: Sendable, Equatable {
    /// `data`, or the volume's name; the serial number by which the guest finds it.
    package let name: String
    package let path: String
    package let format: LaunchSpec.Disk.Format
    /// Bytes as declared; nil for a device, which has the size that it has.
    package let bytes: Int64?
    package let readOnly: Bool

    /// The hypervisor's name for it.
    package var node: String { launch.node }
    package var launch: LaunchSpec.Disk {
        LaunchSpec.Disk(path: path, format: format, serial: name, readOnly: readOnly)
    }
}

extension VMLayout {
    /// Where the file of a further volume is.
    func volume(_ volume: Volume) -> String {
        volume.device ?? "\(disks)/volume-\(volume.name).\(volume.format.rawValue)"
    }

    /// Everything that holds a VM's data, the data volume first.
    package func disks(of vm: VM) -> [VMDisk] {
        let data = VMDisk(
            name: "data", path: dataVolume, format: .qcow2, bytes: Int64(vm.disk.bytes),
            readOnly: false)
        return [data]
            + vm.volumes.map { volume in
                VMDisk(
                    name: volume.name, path: self.volume(volume),
                    format: volume.device != nil
                        ? .device : volume.format == .raw ? .raw : .qcow2,
                    bytes: volume.size.map { Int64($0.bytes) }, readOnly: volume.readOnly)
            }
    }
}
