// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

// As <unistd.h> has them for _GNU_SOURCE, which the importer does not set.
private let seekData: Int32 = 3
private let seekHole: Int32 = 4

extension Files {
    /// Makes `target` a file that shares all blocks with `source`, and says whether it could.
    ///
    /// Neither follows a link, and `source` must be a regular file. False where the file system has
    /// no shared blocks, or the two lie on different ones; then there is no `target`. Writing to one
    /// of the two never changes the other. What the source has in memory is written out first.
    /// The corresponding C function is `ioctl(FICLONE)`.
    package static func share(
        _ source: String, as target: String, mode: UInt32 = 0o600
    ) throws(SystemError) -> Bool {
        let from = try openRegular(source)
        let to = try Descriptor.open(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: mode)
        do throws(SystemError) {
            try checkNegative("clone \(source)", ml_clone_file(to.raw, from.raw))
            try to.sync()
            return true
        } catch {
            unlink(target)
            guard [EOPNOTSUPP, ENOTTY, EXDEV, EINVAL, ENOSYS].contains(error.code) else {
                throw error
            }
            return false
        }
    }

    /// Copies a regular file byte by byte and leaves its holes holes; follows no link.
    ///
    /// The target must not exist. It is durable when this returns; on failure there is none.
    package static func copySparse(
        _ source: String, to target: String, mode: UInt32 = 0o600
    ) throws(SystemError) {
        let from = try openRegular(source)
        let to = try Descriptor.open(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: mode)
        do throws(SystemError) {
            var info = stat()
            try check("stat \(source)") { fstat(from.raw, &info) }
            try check("ftruncate \(target)") { ftruncate(to.raw, info.st_size) }
            try copyData(from.raw, to.raw, source)
            try to.sync()
        } catch {
            unlink(target)
            throw SystemError("copy \(source) to \(target)", error.code)
        }
    }

    /// Copies a regular file onto a blank device, its beginning last, and makes it last.
    ///
    /// Whatever tells what is on a device is at its beginning: one that was filled by half, by
    /// somebody who was killed, is not taken for whole.
    package static func copySparse(
        _ source: String, onto device: borrowing Descriptor
    ) throws(SystemError) {
        let from = try openRegular(source)
        let beginning: off_t = 1 << 20
        try copyData(from.raw, device.raw, source, from: beginning)
        try device.sync()
        try copyData(from.raw, device.raw, source, to: beginning)
        try device.sync()
    }

    private static func copyData(
        _ from: Int32, _ to: Int32, _ source: String, from first: off_t = 0, to limit: off_t = .max
    ) throws(SystemError) {
        var place = first
        while place < limit {
            let data = lseek(from, place, seekData)
            // ENXIO: nothing but a hole is left.
            if data < 0, errno == ENXIO { return }
            let start = try check("seek \(source)") { data }
            let end = min(limit, try check("seek \(source)") { lseek(from, start, seekHole) })
            try check("seek \(source)") { lseek(from, start, SEEK_SET) }
            try check("seek") { lseek(to, start, SEEK_SET) }
            place = start
            while place < end {
                let chunk = try Linux.read(from, Int(min(end - place, 1 << 20)))
                // It was made shorter behind our back.
                if chunk.isEmpty { throw SystemError("read \(source)", EIO) }
                try Linux.write(to, chunk)
                place += off_t(chunk.count)
            }
        }
    }

    /// Opens a file that somebody less trusted may have put there: no link, no pipe, no device.
    private static func openRegular(_ path: String) throws(SystemError) -> Descriptor {
        let file = try Descriptor.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
        var info = stat()
        try check("stat \(path)") { fstat(file.raw, &info) }
        guard info.st_mode & S_IFMT == S_IFREG else { throw SystemError("open \(path)", EINVAL) }
        return file
    }
}

extension Files {
    /// Whether a path is a regular file that no other name leads to; a link is not followed.
    ///
    /// The corresponding C function is `lstat`.
    package static func isOnlyName(_ path: String) throws(SystemError) -> Bool {
        var info = stat()
        try check("stat \(path)") { lstat(path, &info) }
        return info.st_mode & S_IFMT == S_IFREG && info.st_nlink == 1
    }

    /// Makes a file's content durable; the corresponding C function is `fsync`.
    package static func sync(_ path: String) throws(SystemError) {
        try Descriptor.open(path, O_RDONLY | O_NOFOLLOW).sync()
    }
}
