// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// An exclusive lock on a file, held until the value goes away.
///
/// It is a `flock`: a child that inherits the descriptor holds it too. That is how "the lock is
/// free" means that neither a supervisor nor its hypervisor is left.
package struct FileLock: ~Copyable, Sendable {
    package let descriptor: Descriptor

    /// Takes the lock, or returns nil when another process holds it.
    ///
    /// The corresponding C function is `flock`.
    package static func attempt(_ path: String) throws(SystemError) -> FileLock? {
        let file = try Descriptor.open(path, O_RDWR | O_CREAT | O_NOFOLLOW)
        while flock(file.raw, LOCK_EX | LOCK_NB) != 0 {
            // An observer shares the lock for a moment, and must not be taken for a holder.
            let isHeld = errno == EWOULDBLOCK && flock(file.raw, LOCK_SH | LOCK_NB) != 0
            if isHeld, errno == EWOULDBLOCK { return nil }
            if errno != EINTR, errno != EWOULDBLOCK { throw SystemError("flock \(path)") }
        }
        return FileLock(descriptor: file)
    }

    /// Waits for the lock.
    package static func wait(_ path: String) throws(SystemError) -> FileLock {
        let file = try Descriptor.open(path, O_RDWR | O_CREAT | O_NOFOLLOW)
        try check("flock \(path)") { flock(file.raw, LOCK_EX) }
        return FileLock(descriptor: file)
    }

    /// Tells whether some process holds the lock.
    ///
    /// A missing file is not locked.
    package static func isHeld(_ path: String) throws(SystemError) -> Bool {
        guard Files.exists(path) else { return false }
        let file = try Descriptor.open(path, O_RDONLY | O_NOFOLLOW)
        // A shared attempt fails only against the exclusive holder, so two observers never see each other.
        while flock(file.raw, LOCK_SH | LOCK_NB) != 0 {
            if errno == EWOULDBLOCK { return true }
            if errno != EINTR { throw SystemError("flock \(path)") }
        }
        return false
    }
}
