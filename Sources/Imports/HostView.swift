// SPDX-License-Identifier: Apache-2.0

/// What an import may look at beside its document; it changes nothing, and each of it may be missing.
package struct HostView {
    package struct Disk: Equatable {
        /// What the guest sees as the disk's size.
        package var bytes: UInt64
        package var isQCOW2: Bool
        package var isDevice: Bool

        package init(bytes: UInt64, isQCOW2: Bool = false, isDevice: Bool = false) {
            (self.bytes, self.isQCOW2, self.isDevice) = (bytes, isQCOW2, isDevice)
        }
    }

    /// The bytes of a file; nil when it is not there or cannot be read.
    package var file: (String) -> [UInt8]?
    /// The disk that a file or device holds; nil when it is not there.
    package var disk: (String) -> Disk?
    /// The XML of a libvirt network; nil when it is not known.
    package var network: (String) -> [UInt8]?

    package init(
        file: @escaping (String) -> [UInt8]? = { _ in nil },
        disk: @escaping (String) -> Disk? = { _ in nil },
        network: @escaping (String) -> [UInt8]? = { _ in nil }
    ) {
        (self.file, self.disk, self.network) = (file, disk, network)
    }

    /// The lines of a text file; none when it is not there.
    func lines(_ path: String) -> [String] {
        (file(path) ?? []).split(separator: 0x0A).map { String(decoding: $0, as: UTF8.self) }
    }
}
