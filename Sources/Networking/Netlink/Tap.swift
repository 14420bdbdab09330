// SPDX-License-Identifier: Apache-2.0
package import Linux

import Glibc

/// Taps: interfaces whose other end is a descriptor that a VMM reads and writes.
package enum Tap {
    /// Makes a tap in the calling thread's network namespace.
    ///
    /// It carries Ethernet frames with a virtio header each, and vanishes with its last descriptor,
    /// however the processes that hold it end. A name that is taken is EBUSY (`isBusy`), whether by
    /// a tap in use or by any other interface: so the name is a lock against a second start, and an
    /// interface of somebody else is never taken over. ENOENT is a host without `/dev/net/tun`.
    ///
    /// `owner` is who may attach to it without privilege; a descriptor that is passed on needs none.
    package static func open(_ name: String, owner: UInt32?) throws(SystemError) -> Descriptor {
        _ = try interfaceName(name)
        let tap = try Descriptor.open("/dev/net/tun", O_RDWR)
        try attachTap(tap, name)
        if let owner { try setTapOwner(tap, owner) }
        return tap
    }
}

/// The character devices of macvtaps.
package enum Macvtap {
    /// Opens the descriptor that a VMM reads and writes.
    ///
    /// `/dev/tapN` is not to be trusted: N is the index of the interface, which is unique in its
    /// network namespace only, and the node belongs to whichever namespace came first. What names
    /// the device for certain is its number, which sysfs tells for the calling thread's namespace.
    /// So this works in a namespace of one's own, and without udev or devtmpfs.
    ///
    /// Without CAP_SYS_ADMIN the `/sys` and `/dev` that are there have to do. ENOENT is an interface
    /// that is no macvtap. Unlike a tap, a second opening succeeds and shares the traffic with the
    /// first: this is no lock.
    package static func open(_ index: Int32) throws(SystemError) -> Descriptor {
        let number = try readNumber(index)
        let parts = number.split { !$0.isNumber }
        guard parts.count == 2, let major = UInt32(parts[0]), let minor = UInt32(parts[1]) else {
            throw SystemError("number of the macvtap \(index)", EBADMSG)
        }
        return try openDevice("/dev/tap\(index)", major: major, minor: minor)
    }

    /// The `major:minor` of the device.
    private static func readNumber(_ index: Int32) throws(SystemError) -> String {
        let file = "class/macvtap/tap\(index)/dev"
        do {
            let sysfs = try mountSysfs()
            return try Files.readText("/proc/self/fd/\(sysfs.raw)/\(file)")
        } catch {
            guard error.isPermission else { throw error }
            return try Files.readText("/sys/\(file)")
        }
    }
}
