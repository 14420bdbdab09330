// SPDX-License-Identifier: Apache-2.0

/// A program that runs a VM: it turns a spec into arguments, and knows what it cannot do.
package protocol Hypervisor: Sendable {
    /// The name in fleet files and in `list`.
    static var name: String { get }
    /// The Debian package that brings the program.
    static var package: String { get }

    /// The arguments after the program's name; pure.
    func commandLine(_ spec: LaunchSpec, _ channels: Channels) throws(LaunchError) -> [String]

    /// Further arguments that make it wait for memory instead of booting.
    var waitForMemory: [String] { get }
}

/// The descriptor numbers that the hypervisor inherits, as it sees them.
///
/// Each is one end of a socket pair whose other end the supervisor holds: there is no path that
/// another process could connect to in our place. `ssh` listens, for it serves clients one by one.
package struct Channels: Sendable, Equatable {
    package var console: Int32 = 3
    package var qmp: Int32 = 4
    package var agent: Int32 = 5
    package var ready: Int32 = 6
    package var ssh: Int32 = 7
    /// The VM's lock: inherited and never used, so that "free" means that nothing runs.
    package var lock: Int32 = 8
    package var taps: [Int32] = []
    /// Block devices of the host, in the order of the disks.
    package var devices: [Int32] = []
    /// Connections to the daemons of the shares.
    package var shares: [Int32] = []

    package init(taps: Int = 0, devices: Int = 0, shares: Int = 0) {
        func range(_ count: Int, after used: Int) -> [Int32] {
            (0..<count).map { 9 + Int32(used + $0) }
        }
        self.taps = range(taps, after: 0)
        self.devices = range(devices, after: taps)
        self.shares = range(shares, after: taps + devices)
    }
}

/// A spec that the hypervisor cannot run.
package enum LaunchError: Error, Equatable, CustomStringConvertible {
    case memorySize(Int64)
    case hostAddress(String)
    case serial(String)
    case firmwareName(String)
    case oemStrings
    case tapSlot(Int)
    case deviceSlot(String)
    case shareSlot(String)
    case sharesOnMicrovm
    case tooManyDevices(Int)

    package var description: String {
        switch self {
        case .memorySize(let bytes):
            "memory of \(bytes) bytes is not a multiple of 1 MiB: round it up"
        case .hostAddress(let address):
            "QEMU forwards ports of IPv4 addresses only, not of '\(address)': "
                + "name an IPv4 address or use a network"
        case .serial(let serial):
            "the disk serial '\(serial)' is longer than the 20 bytes that virtio-blk carries"
        case .firmwareName(let name):
            "the firmware entry '\(name)' is longer than the 55 bytes that fw_cfg allows"
        case .oemStrings:
            "the machine type microvm has no SMBIOS, so it cannot carry OEM strings: use q35"
        case .tapSlot(let slot):
            "no tap descriptor was passed for slot \(slot)"
        case .deviceSlot(let path):
            "no descriptor was passed for the device \(path)"
        case .shareSlot(let tag): "no connection was passed for the share '\(tag)'"
        case .sharesOnMicrovm:
            "shares hang on the machine type microvm without KVM: use q35"
        case .tooManyDevices(let count):
            "\(count) disks, interfaces and shares do not fit into the 24 places of the machine"
        }
    }
}
