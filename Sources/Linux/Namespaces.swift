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
/// The corresponding C function is `unshare(CLONE_NEWNS)`. Programs that this thread starts see
/// the same mounts.
package func enterNewMounts() throws(SystemError) {
    try checkNegative("unshare(CLONE_NEWNS)", ml_new_mounts())
}

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
