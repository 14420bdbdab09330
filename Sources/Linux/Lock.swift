// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// An exclusive lock on a file, held until the value goes away.
///
/// It is a `flock`: a child that inherits the descriptor holds it too. That is how "the lock is
/// free" means that neither a supervisor nor its hypervisor is left.
package struct FileLock: ~Copyable, Sendable {
    package let raw: Int32

    /// Takes over the descriptor of a lock that `release` handed out.
    package init(owning raw: Int32) { self.raw = raw }

    /// Hands out the descriptor: the lock is held until it is closed everywhere.
    package consuming func release() -> Int32 {
        let raw = self.raw
        discard self
        return raw
    }

    /// Unlocks before closing: a child that another thread has just forked has a copy of the
    /// descriptor until its exec, and would keep the lock for that long.
    deinit {
        flock(raw, LOCK_UN)
        close(raw)
    }

    private static func open(_ path: String, _ flags: Int32) throws(SystemError) -> FileLock {
        FileLock(owning: try Descriptor.open(path, flags | O_NOFOLLOW).release())
    }

    /// Takes the lock, or returns nil when another process holds it.
    ///
    /// The corresponding C function is `flock`.
    package static func attempt(_ path: String) throws(SystemError) -> FileLock? {
        let lock = try open(path, O_RDWR | O_CREAT)
        while flock(lock.raw, LOCK_EX | LOCK_NB) != 0 {
            // An observer shares the lock for a moment, and must not be taken for a holder.
            let isHeld = errno == EWOULDBLOCK && flock(lock.raw, LOCK_SH | LOCK_NB) != 0
            if isHeld, errno == EWOULDBLOCK { return nil }
            if errno != EINTR, errno != EWOULDBLOCK { throw SystemError("flock \(path)") }
        }
        return lock
    }

    /// Waits for the lock.
    package static func wait(_ path: String) throws(SystemError) -> FileLock {
        let lock = try open(path, O_RDWR | O_CREAT)
        try check("flock \(path)") { flock(lock.raw, LOCK_EX) }
        return lock
    }

    /// Tells whether some process holds the lock.
    ///
    /// A missing file is not locked.
    package static func isHeld(_ path: String) throws(SystemError) -> Bool {
        guard Files.exists(path) else { return false }
        let lock = try open(path, O_RDONLY)
        // A shared attempt fails only against the exclusive holder, so two observers never see each other.
        while flock(lock.raw, LOCK_SH | LOCK_NB) != 0 {
            if errno == EWOULDBLOCK { return true }
            if errno != EINTR { throw SystemError("flock \(path)") }
        }
        return false
    }
}
