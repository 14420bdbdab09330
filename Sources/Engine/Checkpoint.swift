// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Synchronization

/// A place between two changes of the host, where being killed must do no harm.
///
/// A test kills the process at the n-th place by setting MARTLET_KILL_AT=n, for every n until a
/// run gets through: that is how "killed at any point" is tried at every point and not by luck.
enum Checkpoint {
    private static let passed = Mutex(0)
    private static let deadly = environment("MARTLET_KILL_AT").flatMap { Int($0) }

    static func pass() {
        guard let deadly else { return }
        let count = passed.withLock { count in
            count += 1
            return count
        }
        if count == deadly { kill(getpid(), SIGKILL) }
    }
}
