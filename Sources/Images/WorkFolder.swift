// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// A folder below ROOT/tmp that lives as long as the build that uses it.
///
/// Its lock file is held while the build runs, so that the next martlet can tell the leftovers of
/// a killed one from a build that goes on.
struct WorkFolder: ~Copyable {
    let path: String
    private let lock: FileLock

    static func make(_ root: String) throws(SystemError) -> WorkFolder {
        let parent = "\(root)/tmp"
        try Files.makeFolder(parent)
        // Without it, a sweep could come between making the folder and locking it.
        let guardLock = try FileLock.wait("\(parent)/lock")
        defer { withExtendedLifetime(guardLock) {} }
        for number in 1... {
            let path = "\(parent)/build.\(getpid()).\(number)"
            if mkdir(path, 0o755) != 0 {
                if errno == EEXIST { continue }
                throw SystemError("mkdir \(path)")
            }
            return WorkFolder(path: path, lock: try FileLock.wait("\(path)/lock"))
        }
        throw SystemError("mkdir \(parent)", EEXIST)
    }

    private init(path: String, lock: consuming FileLock) {
        self.path = path
        self.lock = lock
    }

    /// Removes the folder with all that is in it.
    func remove() throws(SystemError) { try Files.remove(path) }

    /// How many builds are running.
    static func active(_ root: String) throws(SystemError) -> Int {
        var count = 0
        for name in try Files.list("\(root)/tmp") where name.hasPrefix("build.") {
            if try FileLock.isHeld("\(root)/tmp/\(name)/lock") { count += 1 }
        }
        return count
    }

    /// Removes the folders of builds that were killed and returns the bytes that became free.
    @discardableResult
    static func sweep(_ root: String) throws(SystemError) -> Int64 {
        guard Files.exists("\(root)/tmp") else { return 0 }
        let guardLock = try FileLock.wait("\(root)/tmp/lock")
        defer { withExtendedLifetime(guardLock) {} }
        let before = try Files.freeSpace(root)
        var swept = false
        for name in try Files.list("\(root)/tmp") where name.hasPrefix("build.") {
            let path = "\(root)/tmp/\(name)"
            guard try !FileLock.isHeld("\(path)/lock") else { continue }
            try Files.remove(path)
            swept = true
        }
        return swept ? max(0, try Files.freeSpace(root) - before) : 0
    }
}
