// SPDX-License-Identifier: Apache-2.0
import CLinux

/// Makes a tap and attaches it to an open `/dev/net/tun`; it vanishes with that descriptor.
///
/// A name that is taken, by whatever kind of interface, is EBUSY.
///
/// The corresponding C function is `ioctl(TUNSETIFF)`.
package func attachTap(_ tun: borrowing Descriptor, _ name: String) throws(SystemError) {
    try checkNegative("tap \(name)", ml_tap_attach(tun.raw, name))
}

/// Sets the user who may attach to a tap without privilege.
///
/// The corresponding C function is `ioctl(TUNSETOWNER)`.
package func setTapOwner(_ tun: borrowing Descriptor, _ user: UInt32) throws(SystemError) {
    try checkNegative("owner of a tap", ml_tap_set_owner(tun.raw, user))
}

/// Mounts sysfs as the calling thread's network namespace sees it, at no path.
///
/// `/sys` shows the namespace of whoever mounted it. This needs CAP_SYS_ADMIN; what is mounted is
/// reached below `/proc/self/fd` and goes with the descriptor.
///
/// The corresponding C functions are `fsopen` and `fsmount`.
package func mountSysfs() throws(SystemError) -> Descriptor {
    Descriptor(owning: try checkNegative("mount sysfs", ml_mount_detached("sysfs")))
}

/// Opens a character device by its number, for reading and writing.
///
/// It needs no node in `/dev`: `path` is used if it is the node of this very device, and else one
/// on a file system of our own that no path leads to, which needs CAP_SYS_ADMIN and CAP_MKNOD.
///
/// The corresponding C functions are `open` and `mknod`.
package func openDevice(
    _ path: String, major: UInt32, minor: UInt32
) throws(SystemError) -> Descriptor {
    Descriptor(owning: try checkNegative("open \(path)", ml_open_device(path, major, minor)))
}
