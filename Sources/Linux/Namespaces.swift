// SPDX-License-Identifier: Apache-2.0
import CLinux

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
