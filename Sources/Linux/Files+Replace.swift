// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

extension Files {
    /// Replaces the content of a file that belongs to the system, keeping its mode and its owner.
    ///
    /// A link is followed and stays a link. The new content takes the old one's place at once,
    /// by rename; where that cannot be, because the file itself is a mount (`ip netns exec` puts
    /// /etc/netns/NAME/hosts over /etc/hosts, a container engine its own) or its folder is
    /// read-only, the file is written in place. A missing file is ENOENT.
    package static func replaceContent(
        _ path: String, _ bytes: [UInt8]
    ) throws(SystemError) {
        let target = try resolve(path)
        do throws(SystemError) {
            try replaceByRename(target, bytes)
        } catch {
            guard [EBUSY, EROFS, EACCES, EXDEV].contains(error.code) else {
                throw SystemError("write \(path)", error.code)
            }
            try overwrite(target, bytes)
        }
    }

    private static func resolve(_ path: String) throws(SystemError) -> String {
        guard let resolved = realpath(path, nil) else { throw SystemError("open \(path)") }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    private static func replaceByRename(
        _ path: String, _ bytes: [UInt8]
    ) throws(SystemError) {
        var info = stat()
        try check("stat \(path)") { stat(path, &info) }
        let temporary = "\(path).new.\(getpid()).\(randomHex(8))"
        do throws(SystemError) {
            let file = try Descriptor.open(
                temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
            // The owner first: a change of owner clears the set-user-id bits of the mode.
            if info.st_uid != geteuid() || info.st_gid != getegid() {
                try check("fchown \(temporary)") { fchown(file.raw, info.st_uid, info.st_gid) }
            }
            try check("fchmod \(temporary)") { fchmod(file.raw, info.st_mode & 0o7777) }
            try file.write(bytes)
            try file.sync()
            try rename(temporary, path)
        } catch {
            unlink(temporary)
            throw error
        }
        try syncFolder(parent(path))
    }

    private static func overwrite(_ path: String, _ bytes: [UInt8]) throws(SystemError) {
        do throws(SystemError) {
            let file = try Descriptor.open(path, O_WRONLY)
            // Cut to length last: whoever reads meanwhile finds the end of the old text, not none.
            try file.write(bytes)
            try check("ftruncate \(path)") { ftruncate(file.raw, off_t(bytes.count)) }
            try file.sync()
        } catch {
            throw SystemError("write \(path)", error.code)
        }
    }
}

extension Files {
    /// Removes what `write`, `link` and `replaceContent` were writing into a folder when their process
    /// was killed.
    ///
    /// What a living process of that number writes stays; the corresponding C function is `kill`.
    package static func removeAbandoned(in folder: String) throws(SystemError) {
        for name in try list(folder) {
            guard let mark = name.firstRange(of: ".new."),
                let writer = Int32(name[mark.upperBound...].prefix { $0 != "." }), writer > 0,
                kill(writer, 0) < 0, errno == ESRCH
            else { continue }
            try remove("\(folder)/\(name)")
        }
    }
}

extension Files {
    /// Whether what is written below a folder stays in memory: on tmpfs or ramfs.
    ///
    /// The corresponding C function is `statfs`.
    package static func isInMemory(_ folder: String) throws(SystemError) -> Bool {
        try checkNegative("statfs \(folder)", ml_is_in_memory(folder)) == 1
    }
}

extension Files {
    /// Gives a part of a file back to the disk; it reads as zeros, and the file keeps its size.
    ///
    /// The corresponding C function is `fallocate(FALLOC_FL_PUNCH_HOLE)`; EOPNOTSUPP where the file
    /// system cannot.
    package static func punchHole(
        _ file: borrowing Descriptor, offset: Int64, length: Int64
    ) throws(SystemError) {
        try checkNegative("fallocate", ml_punch_hole(file.raw, offset, length))
    }
}
