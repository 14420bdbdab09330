// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Moves the calling thread into a new, empty network namespace with loopback up.
///
/// The corresponding C function is `unshare(CLONE_NEWNET)`. The other threads stay where they are,
/// so this is for a thread that is one's own.
package func enterNewNetwork() throws(SystemError) {
    try checkNegative("unshare(CLONE_NEWNET)", ml_new_network())
}

/// Gives the calling thread mounts of its own: what it mounts from now on is seen by no other.
///
/// With `following`, what others mount and unmount happens here as well: else a file system that is
/// mounted now stays in use for as long as the thread and its programs live, whoever unmounts it.
///
/// The corresponding C function is `unshare(CLONE_NEWNS)`. Programs that this thread starts see
/// the same mounts.
package func enterNewMounts(following: Bool = false) throws(SystemError) {
    try checkNegative("unshare(CLONE_NEWNS)", ml_new_mounts(following ? 1 : 0))
}

/// Mounts an open folder, and what is mounted below it now, at another path: without device nodes
/// and set-id programs, and read-only when asked.
///
/// For a thread with mounts of its own. The folder must have been opened by that thread, for a
/// descriptor from outside leads to the mounts that are seen there.
///
/// The corresponding C functions are `open_tree`, `mount_setattr` and `move_mount`.
package func bindFolder(
    _ folder: borrowing Descriptor, at target: String, readOnly: Bool
) throws(SystemError) {
    try checkNegative(
        "mount \(target)", ml_bind_folder(folder.raw, target, readOnly ? 1 : 0))
}

/// Whether files in a folder can have extended attributes; the C function is `getxattr`.
package func hasAttributes(_ path: String) -> Bool { ml_has_attributes(path) != 0 }

/// Whether more users than its mode names may use a file; the C function is `getxattr`.
package func hasAccessList(_ path: String) -> Bool { ml_has_access_list(path) != 0 }

/// Moves the calling thread into the network namespace that a file stands for, such as
/// `/run/netns/NAME` or `/proc/PID/ns/net`.
///
/// The corresponding C function is `setns(CLONE_NEWNET)`. The other threads stay where they are, so
/// this is for a thread that is one's own. What it starts is in the namespace too, and so is what it
/// reads below `/proc/sys/net`; `/proc/net` and `/sys/class/net` still show the old one.
package func enterNetwork(_ path: String) throws(SystemError) {
    let namespace = try Descriptor.open(path, O_RDONLY)
    try checkNegative("setns \(path)", ml_enter_network(namespace.raw))
}
