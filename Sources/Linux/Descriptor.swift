// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// An owned file descriptor, closed exactly once.
package struct Descriptor: ~Copyable, Sendable {
    package let raw: Int32

    /// Takes ownership of a descriptor that the caller obtained from the system.
    package init(owning raw: Int32) { self.raw = raw }

    /// Gives up ownership: the caller closes it.
    package consuming func release() -> Int32 {
        let raw = self.raw
        discard self
        return raw
    }

    deinit { close(raw) }

    /// Opens a file.
    ///
    /// The corresponding C function is `open`; `O_CLOEXEC` is always set.
    package static func open(
        _ path: String, _ flags: Int32, mode: UInt32 = 0o600
    ) throws(SystemError) -> Descriptor {
        Descriptor(
            owning: try check("open \(path)") { Glibc.open(path, flags | O_CLOEXEC, mode) })
    }

    /// A second descriptor for the same open file.
    ///
    /// The corresponding C function is `fcntl(F_DUPFD_CLOEXEC)`.
    package func duplicate() throws(SystemError) -> Descriptor {
        Descriptor(owning: try check("dup") { fcntl(raw, F_DUPFD_CLOEXEC, 3) })
    }

    /// When the file was made, in nanoseconds since 1970; 0 where its file system does not know.
    ///
    /// The corresponding C function is `statx`.
    package func birthTime() throws(SystemError) -> Int64 {
        try checkNegative("statx", ml_birth_time(raw))
    }

    /// Makes reads and writes return EAGAIN instead of waiting.
    ///
    /// The corresponding C function is `fcntl(F_SETFL)`.
    package func setNonBlocking() throws(SystemError) { try Linux.setNonBlocking(raw) }

    /// Reads up to `count` bytes; an empty result is the end of the file.
    ///
    /// The corresponding C function is `read`.
    package func read(_ count: Int) throws(SystemError) -> [UInt8] {
        try Linux.read(raw, count)
    }

    /// Reads until the end of the file, at most `limit` bytes; more is the error EFBIG.
    package func readAll(limit: Int = 64 << 20) throws(SystemError) -> [UInt8] {
        var all: [UInt8] = []
        while true {
            let chunk = try read(65536)
            if chunk.isEmpty { return all }
            all += chunk
            if all.count > limit { throw SystemError("read", EFBIG) }
        }
    }

    /// Writes everything.
    ///
    /// The corresponding C function is `write`.
    package func write(_ bytes: some Collection<UInt8>) throws(SystemError) {
        try Linux.write(raw, bytes)
    }

    /// Flushes to the disk.
    ///
    /// The corresponding C function is `fsync`.
    package func sync() throws(SystemError) {
        try check("fsync") { fsync(raw) }
    }
}

/// Makes reads and writes of a borrowed descriptor return EAGAIN instead of waiting.
package func setNonBlocking(_ fd: Int32) throws(SystemError) {
    let flags = try check("fcntl") { fcntl(fd, F_GETFL) }
    try check("fcntl") { fcntl(fd, F_SETFL, flags | O_NONBLOCK) }
}

/// Reads up to `count` bytes from a borrowed descriptor; empty at the end of the file.
package func read(_ fd: Int32, _ count: Int) throws(SystemError) -> [UInt8] {
    var buffer = [UInt8](repeating: 0, count: count)
    let n = try check("read") { Glibc.read(fd, &buffer, count) }
    buffer.removeSubrange(n...)
    return buffer
}

/// Writes everything to a borrowed descriptor, waiting where it is non-blocking and full.
package func write(_ fd: Int32, _ bytes: some Collection<UInt8>) throws(SystemError) {
    let array = Array(bytes)
    var done = 0
    while done < array.count {
        let n = array.withUnsafeBytes {
            Glibc.write(fd, $0.baseAddress?.advanced(by: done), array.count - done)
        }
        if n >= 0 {
            done += n
        } else if errno == EAGAIN {
            var one = pollfd(fd: fd, events: Int16(POLLOUT), revents: 0)
            _ = poll(&one, 1, -1)
        } else if errno != EINTR {
            throw SystemError("write")
        }
    }
}

/// A pipe: what is written to `writer` is read from `reader`.
///
/// The corresponding C function is `pipe2`.
package struct Pipe: ~Copyable {
    package var reader: Descriptor
    package var writer: Descriptor

    package init() throws(SystemError) {
        var ends: [Int32] = [-1, -1]
        try checkNegative("pipe2", ml_pipe(&ends))
        reader = Descriptor(owning: ends[0])
        writer = Descriptor(owning: ends[1])
    }

    /// Splits the pipe into its ends.
    package consuming func split() -> (reader: Int32, writer: Int32) {
        (reader.release(), writer.release())
    }
}
