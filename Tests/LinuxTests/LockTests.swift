// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(20))) struct LockTests {
    private final class Looks: Sendable {
        let count = Atomic(0)
        let isOver = Atomic(false)
    }

    /// A look at the lock must never keep anybody from taking it.
    @Test func observersAreNotTakenForHolders() throws {
        var template = Array("/tmp/martlet-lock-XXXXXX".utf8CString)
        let folder = try #require(mkdtemp(&template).map { String(cString: $0) })
        defer { try? Files.remove(folder) }
        let path = folder + "/lock"
        try Files.write(path, "")
        let looks = Looks()
        defer { looks.isOver.store(true, ordering: .relaxed) }
        for _ in 0..<2 {
            detachThread {
                while !looks.isOver.load(ordering: .relaxed) {
                    _ = try? FileLock.isHeld(path)
                    looks.count.add(1, ordering: .relaxed)
                }
            }
        }
        while looks.count.load(ordering: .relaxed) < 100 { sched_yield() }
        var failures = 0
        for _ in 0..<5000 where try !take(path) { failures += 1 }
        #expect(failures == 0)
    }

    @Test func aHeldLockIsNotTakenTwice() throws {
        var template = Array("/tmp/martlet-lock-XXXXXX".utf8CString)
        let folder = try #require(mkdtemp(&template).map { String(cString: $0) })
        defer { try? Files.remove(folder) }
        let held = try FileLock.wait(folder + "/lock")
        #expect(try !take(folder + "/lock"))
        #expect(try FileLock.isHeld(folder + "/lock"))
        _ = consume held
        #expect(try take(folder + "/lock"))
    }

    /// Takes the lock and lets it go.
    private func take(_ path: String) throws -> Bool {
        if let lock = try FileLock.attempt(path) {
            _ = consume lock
            return true
        }
        return false
    }
}
