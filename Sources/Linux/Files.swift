// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Files and folders by path.
///
/// Every write is atomic and durable.
package enum Files {
    /// Reads a whole file, at most `limit` bytes.
    package static func read(_ path: String, limit: Int = 64 << 20) throws(SystemError) -> [UInt8] {
        let file = try Descriptor.open(path, O_RDONLY)
        do {
            return try file.readAll(limit: limit)
        } catch {
            throw SystemError("read \(path)", error.code)
        }
    }

    package static func readText(_ path: String) throws(SystemError) -> String {
        String(decoding: try read(path), as: UTF8.self)
    }

    /// Replaces a file: temporary file, fsync, rename, fsync of the folder.
    ///
    /// A reader sees the old or the new content and never a part, whatever moment the power fails.
    package static func write(
        _ path: String, _ bytes: some Collection<UInt8>, mode: UInt32 = 0o600
    ) throws(SystemError) {
        let temporary = "\(path).new.\(getpid())"
        do {
            let file = try Descriptor.open(
                temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: mode)
            try check("fchmod \(temporary)") { fchmod(file.raw, mode) }
            try file.write(bytes)
            try file.sync()
            try rename(temporary, path)
        } catch {
            unlink(temporary)
            throw SystemError("write \(path)", error.code)
        }
        try syncFolder(parent(path))
    }

    package static func write(
        _ path: String, _ text: String, mode: UInt32 = 0o600
    ) throws(SystemError) {
        try write(path, text.utf8, mode: mode)
    }

    /// Reads a regular file that somebody less trusted may have put there.
    ///
    /// Links are not followed, a pipe does not block us, and more than `limit` bytes is EFBIG.
    package static func readUntrusted(_ path: String, limit: Int) throws(SystemError) -> [UInt8] {
        let file = try Descriptor.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
        var info = stat()
        try check("stat \(path)") { fstat(file.raw, &info) }
        guard info.st_mode & S_IFMT == S_IFREG else { throw SystemError("read \(path)", EINVAL) }
        return try file.readAll(limit: limit)
    }

    /// Reads at most the first `count` bytes of a file.
    package static func readPrefix(_ path: String, _ count: Int) throws(SystemError) -> [UInt8] {
        try Descriptor.open(path, O_RDONLY).read(count)
    }

    /// Makes an empty file that looks `bytes` long and takes no space.
    ///
    /// The corresponding C function is `ftruncate`.
    package static func makeSparse(
        _ path: String, bytes: Int64, mode: UInt32 = 0o600
    ) throws(SystemError) {
        let file = try Descriptor.open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode: mode)
        try check("ftruncate \(path)") { ftruncate(file.raw, off_t(bytes)) }
    }

    /// Changes owner and group without following a link; the corresponding C function is `lchown`.
    package static func setOwner(
        _ path: String, user: UInt32, group: UInt32
    ) throws(SystemError) {
        try check("lchown \(path)") { lchown(path, user, group) }
    }

    /// Sets the permission bits; the corresponding C function is `chmod`.
    package static func setMode(_ path: String, _ mode: UInt32) throws(SystemError) {
        try check("chmod \(path)") { chmod(path, mode) }
    }

    /// The corresponding C function is `rename`.
    package static func rename(_ from: String, _ to: String) throws(SystemError) {
        try check("rename \(from) to \(to)") { Glibc.rename(from, to) }
    }

    /// Makes a symbolic link, replacing one of that name at once.
    ///
    /// The corresponding C functions are `symlink` and `rename`.
    package static func link(_ target: String, at path: String) throws(SystemError) {
        let temporary = "\(path).new.\(getpid())"
        unlink(temporary)
        try check("symlink \(temporary)") { symlink(target, temporary) }
        try rename(temporary, path)
        try syncFolder(parent(path))
    }

    /// What a symbolic link points to; the corresponding C function is `readlink`.
    package static func readLink(_ path: String) throws(SystemError) -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = try check("readlink \(path)") { readlink(path, &buffer, buffer.count) }
        return String(decoding: buffer[..<count].map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    /// Where a path leads to, without links, `.` and `..`; ENOENT when it leads nowhere.
    ///
    /// The corresponding C function is `realpath`.
    package static func realPath(_ path: String) throws(SystemError) -> String {
        guard let text = realpath(path, nil) else { throw SystemError(path) }
        defer { free(text) }
        return String(cString: text)
    }

    /// Renames unless the target exists (EEXIST).
    ///
    /// The corresponding C function is `renameat2`.
    package static func renameNew(_ from: String, _ to: String) throws(SystemError) {
        try checkNegative("rename \(from) to \(to)", ml_rename_noreplace(from, to))
    }

    /// Makes the entries of a folder durable.
    ///
    /// The corresponding C function is `fsync`.
    package static func syncFolder(_ path: String) throws(SystemError) {
        try Descriptor.open(path, O_RDONLY | O_DIRECTORY).sync()
    }

    /// Makes a folder and its parents; an existing folder is left as it is.
    ///
    /// They get the mode as it is asked for, whatever the umask: others may have to pass them.
    package static func makeFolder(_ path: String, mode: UInt32 = 0o755) throws(SystemError) {
        if mkdir(path, mode) == 0 { return try setModeOfNew(path, mode) }
        if errno == EEXIST, isFolder(path) { return }
        guard errno == ENOENT, path != "/", !path.isEmpty else {
            throw SystemError("mkdir \(path)")
        }
        try makeFolder(parent(path), mode: mode)
        if mkdir(path, mode) == 0 { return try setModeOfNew(path, mode) }
        if errno != EEXIST { throw SystemError("mkdir \(path)") }
    }

    /// By descriptor, and not along a link: whoever owns the parent may have put one there.
    private static func setModeOfNew(_ path: String, _ mode: UInt32) throws(SystemError) {
        let folder = try Descriptor.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        try check("chmod \(path)") { fchmod(folder.raw, mode) }
    }

    /// The names in a folder, sorted, without `.` and `..`; none when the folder does not exist.
    package static func list(_ path: String) throws(SystemError) -> [String] {
        guard let folder = opendir(path) else {
            if errno == ENOENT { return [] }
            throw SystemError("open \(path)")
        }
        return names(in: folder)
    }

    /// Reads a folder to its end, and closes it.
    private static func names(in folder: OpaquePointer) -> [String] {
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// Removes a file or a whole folder without following links; a missing one is no error.
    ///
    /// Below the path everything goes by descriptors: whoever may write there could put a link in a
    /// folder's place meanwhile, and have root empty another one. The corresponding C function is
    /// `unlinkat`.
    package static func remove(_ path: String) throws(SystemError) {
        try remove(path, in: AT_FDCWD, path)
    }

    private static func remove(
        _ name: String, in folder: Int32, _ path: String
    ) throws(SystemError) {
        if unlinkat(folder, name, 0) == 0 || errno == ENOENT { return }
        let problem = SystemError("unlink \(path)")
        guard problem.code == EISDIR || problem.code == EPERM else { throw problem }
        let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
        let inner: Descriptor
        do throws(SystemError) {
            inner = Descriptor(
                owning: try check("open \(path)") { openat(folder, name, flags) })
        } catch {
            // No folder: then it could not be removed for another reason.
            throw error.code == ENOTDIR || error.code == ELOOP ? problem : error
        }
        let copy = try inner.duplicate().release()
        guard let stream = fdopendir(copy) else {
            let problem = SystemError("open \(path)")
            close(copy)
            throw problem
        }
        for entry in names(in: stream) { try remove(entry, in: inner.raw, "\(path)/\(entry)") }
        if unlinkat(folder, name, AT_REMOVEDIR) != 0, errno != ENOENT {
            throw SystemError("rmdir \(path)")
        }
    }

    package static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }
    package static func isExecutable(_ path: String) -> Bool {
        access(path, X_OK) == 0 && !isFolder(path)
    }

    package static func isFolder(_ path: String, followLinks: Bool = true) -> Bool {
        var info = stat()
        guard (followLinks ? stat(path, &info) : lstat(path, &info)) == 0 else { return false }
        return info.st_mode & S_IFMT == S_IFDIR
    }

    /// Apparent size, allocated size and time of change of a file.
    package struct Status: Sendable, Equatable {
        /// Bytes that a reader sees.
        package let size: Int64
        /// Bytes that the file takes on disk (a sparse file takes fewer than its size).
        package let allocated: Int64
        /// Seconds since 1970.
        package let modified: Int64
        package let owner: UInt32
        package let mode: UInt32
    }

    /// The corresponding C function is `lstat`.
    package static func status(_ path: String) throws(SystemError) -> Status {
        var info = stat()
        try check("stat \(path)") { lstat(path, &info) }
        return Status(
            size: Int64(info.st_size), allocated: Int64(info.st_blocks) * 512,
            modified: Int64(info.st_mtim.tv_sec), owner: info.st_uid, mode: info.st_mode & 0o7777)
    }

    /// The folder that relative paths start from, empty when it is gone.
    ///
    /// The corresponding C function is `getcwd`.
    package static func workingFolder() -> String {
        guard let text = getcwd(nil, 0) else { return "" }
        defer { free(text) }
        return String(cString: text)
    }

    /// The folder that holds a path: `/a` for `/a/b`, `.` for `b`.
    package static func parent(_ path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// The last component of a path.
    package static func name(_ path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return path }
        return String(path[path.index(after: slash)...])
    }

    /// Bytes that an unprivileged process may still write below `path`.
    ///
    /// The corresponding C function is `statvfs`.
    package static func freeSpace(_ path: String) throws(SystemError) -> Int64 {
        var info = statvfs()
        try check("statvfs \(path)") { statvfs(path, &info) }
        return Int64(info.f_bavail) * Int64(info.f_frsize)
    }
}

/// Finds a program in PATH and the administrator's folders; nil when it is not installed.
package func findProgram(_ name: String, path: String? = nil) -> String? {
    if name.contains("/") { return Files.isExecutable(name) ? name : nil }
    // Debian keeps mkfs.ext4 and others in sbin, which is not in a user's PATH.
    let folders = (path ?? environment("PATH") ?? "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    for folder in folders.split(separator: ":") where Files.isExecutable("\(folder)/\(name)") {
        return "\(folder)/\(name)"
    }
    return nil
}

/// The value of an environment variable.
///
/// The corresponding C function is `getenv`.
package func environment(_ name: String) -> String? {
    getenv(name).map { String(cString: $0) }
}
