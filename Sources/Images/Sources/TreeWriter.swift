// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// Writes into a tree of files and never outside of it, whatever links the tree has.
///
/// Every call blocks. Paths are given in parts, none of which is empty, `.` or `..`.
final class TreeWriter {
    private let root: Descriptor
    /// Whether links in the middle of a path are followed, as below a root of its own.
    private let followLinks: Bool

    init(_ root: consuming Descriptor, followLinks: Bool) {
        self.root = root
        self.followLinks = followLinks
    }

    /// A folder, made with all that is above it where it is missing (0755).
    func folder(_ path: [Substring]) throws -> Descriptor {
        do throws(SystemError) {
            return try existing(path)
        } catch {
            guard error.code == ENOENT, let name = path.last.map(String.init) else { throw error }
            let parent = try folder(path.dropLast())
            if mkdirat(parent.raw, name, 0o755) != 0, errno != EEXIST {
                throw SystemError("mkdir \(name)")
            }
            return try existing(path)
        }
    }

    /// A folder right below the root, in the place of whatever else has its name.
    func realFolder(_ name: String) throws {
        let top = root.raw
        if unlinkat(top, name, 0) != 0, errno != ENOENT, errno != EISDIR {
            throw SystemError("remove \(name)")
        }
        if mkdirat(top, name, 0o755) != 0, errno != EEXIST { throw SystemError("mkdir \(name)") }
    }

    /// A folder that is there.
    func existing(_ path: [Substring]) throws(SystemError) -> Descriptor {
        try Files.openBelow(root, path.joined(separator: "/"), followLinks: followLinks)
    }

    /// A new empty file to write to, in the place of another one.
    func file(_ path: [Substring], mode: UInt32) throws -> Descriptor {
        let parent = try folder(path.dropLast())
        let name = try TreeWriter.name(path)
        try makeWay(parent, name)
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
        let file = Descriptor(
            owning: try check("open \(name)") { openat(parent.raw, name, flags, mode) })
        try check("chmod \(name)") { fchmod(file.raw, mode) }
        return file
    }

    func link(_ path: [Substring], to target: String) throws {
        let parent = try folder(path.dropLast())
        let name = try TreeWriter.name(path)
        try makeWay(parent, name)
        try check("symlink \(name)") { symlinkat(target, parent.raw, name) }
    }

    /// A second name for a file of the tree.
    func hardLink(_ path: [Substring], to target: [Substring]) throws {
        guard path != target else { return }
        guard let last = target.last.map(String.init) else { throw SystemError("link", ENOENT) }
        let from = try existing(target.dropLast())
        let parent = try folder(path.dropLast())
        let name = try TreeWriter.name(path)
        try makeWay(parent, name)
        // Without AT_SYMLINK_FOLLOW: a link as the target is not followed.
        try check("link \(name)") { linkat(from.raw, last, parent.raw, name, 0) }
    }

    /// Writes a piece of a file.
    func write(_ file: Int32, _ bytes: UnsafeRawBufferPointer, at offset: Int64) throws {
        var done = 0
        while done < bytes.count {
            let rest = UnsafeRawBufferPointer(rebasing: bytes[done...])
            let count = pwrite(file, rest.baseAddress, rest.count, off_t(offset) + off_t(done))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw SystemError("write") }
            done += count
        }
    }

    private static func name(_ path: [Substring]) throws(SystemError) -> String {
        guard let name = path.last else { throw SystemError("open", EINVAL) }
        return String(name)
    }

    /// Takes away what stands at a name, unless it is a folder (EISDIR).
    private func makeWay(_ parent: borrowing Descriptor, _ name: String) throws {
        if unlinkat(parent.raw, name, 0) != 0, errno != ENOENT {
            throw SystemError("remove \(name)")
        }
    }
}
