// SPDX-License-Identifier: Apache-2.0
import CLinux

/// Moves the calling thread into a new, empty network namespace with loopback up.
///
/// The corresponding C function is `unshare(CLONE_NEWNET)`. The other threads stay where they are,
/// so this is for a thread that is one's own.
package func enterNewNetwork() throws(SystemError) {
    try checkNegative("unshare(CLONE_NEWNET)", ml_new_network())
}
