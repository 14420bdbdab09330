// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Unix stream sockets, under paths of any length.
package enum UnixSocket {
    /// Binds and listens; an old socket file of that name is replaced.
    ///
    /// A socket address holds 108 bytes. The folder is opened first and the name goes through
    /// `/proc/self/fd`, so that a long MARTLET_ROOT works.
    package static func listen(_ path: String, mode: UInt32 = 0o600) throws(SystemError)
        -> Descriptor
    {
        let listener = try make()
        unlink(path)
        try withAddress(path) { (address, length) throws(SystemError) in
            try check("bind \(path)") { bind(listener.raw, address, length) }
        }
        try check("chmod \(path)") { chmod(path, mode) }
        try check("listen \(path)") { Glibc.listen(listener.raw, 64) }
        return listener
    }

    /// Connects to a listening socket.
    ///
    /// With a timeout, in seconds, connecting and each later write wait no longer than that for a
    /// listener that accepts nobody: the error is EAGAIN.
    package static func connect(
        _ path: String, timeout: Double? = nil
    ) throws(SystemError) -> Descriptor {
        let socket = try make()
        if let timeout { try setSendTimeout(socket.raw, timeout) }
        try withAddress(path) { (address, length) throws(SystemError) in
            try check("connect \(path)") { Glibc.connect(socket.raw, address, length) }
        }
        return socket
    }

    /// Two connected sockets.
    ///
    /// The corresponding C function is `socketpair`.
    package static func pair() throws(SystemError) -> (Int32, Int32) {
        var ends: [Int32] = [-1, -1]
        try check("socketpair") {
            socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends)
        }
        return (ends[0], ends[1])
    }

    /// Takes the next connection of a listener.
    ///
    /// The corresponding C function is `accept4`.
    package static func accept(_ listener: Int32) throws(SystemError) -> Descriptor {
        Descriptor(owning: try checkNegative("accept", ml_accept(listener)))
    }

    /// Sends bytes, and with the first of them descriptors, at most 8; they stay ours as well.
    ///
    /// Returns how many bytes were taken, at least one. The corresponding C function is `sendmsg`.
    package static func send(
        _ bytes: [UInt8], descriptors: [Int32], on socket: Int32
    ) throws(SystemError) -> Int {
        let count = bytes.withUnsafeBytes { bytes in
            descriptors.withUnsafeBufferPointer { descriptors in
                ml_send_fds(
                    socket, bytes.baseAddress, bytes.count, descriptors.baseAddress,
                    descriptors.count)
            }
        }
        return Int(try checkNegative("sendmsg", count))
    }

    /// Reads bytes, none at the end, and the descriptors that came with them, the caller's to close.
    ///
    /// The corresponding C function is `recvmsg`.
    package static func receive(
        _ limit: Int, from socket: Int32
    ) throws(SystemError) -> (bytes: [UInt8], descriptors: [Int32]) {
        var bytes = [UInt8](repeating: 0, count: limit)
        var descriptors = [Int32](repeating: -1, count: 8)
        var found = 0
        let count = bytes.withUnsafeMutableBytes { bytes in
            descriptors.withUnsafeMutableBufferPointer { descriptors in
                ml_recv_fds(
                    socket, bytes.baseAddress, bytes.count, descriptors.baseAddress,
                    descriptors.count, &found)
            }
        }
        let read = Int(try checkNegative("recvmsg", count))
        return (Array(bytes.prefix(read)), Array(descriptors.prefix(found)))
    }

    /// The user at the other end.
    ///
    /// The corresponding C function is `getsockopt(SO_PEERCRED)`.
    package static func peerUser(_ socket: Int32) throws(SystemError) -> UInt32 {
        UInt32(try checkNegative("SO_PEERCRED", ml_peer_uid(socket)))
    }

    /// The corresponding C function is `setsockopt(SO_SNDTIMEO)`.
    private static func setSendTimeout(_ fd: Int32, _ seconds: Double) throws(SystemError) {
        // All zeros would mean to wait for ever.
        let microseconds = max(1, Int(seconds * 1e6))
        let limit = timeval(
            tv_sec: microseconds / 1_000_000, tv_usec: suseconds_t(microseconds % 1_000_000))
        try check("setsockopt") {
            withUnsafePointer(to: limit) {
                setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, $0, socklen_t(MemoryLayout<timeval>.size))
            }
        }
    }

    private static func make() throws(SystemError) -> Descriptor {
        Descriptor(
            owning: try check("socket") {
                socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
            })
    }

    private static func withAddress(
        _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) throws(SystemError) -> Void
    ) throws(SystemError) {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let capacity = MemoryLayout.size(ofValue: address.sun_path)
        var short = path
        var folder: Int32 = -1
        if path.utf8.count >= capacity {
            folder = try Descriptor.open(Files.parent(path), O_PATH_DIRECTORY).release()
            short = "/proc/self/fd/\(folder)/\(Files.name(path))"
        }
        defer { if folder >= 0 { close(folder) } }
        guard short.utf8.count < capacity else { throw SystemError(path, ENAMETOOLONG) }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: short.utf8) }
        let length = socklen_t(MemoryLayout<sockaddr_un>.size)
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                Result { () throws(SystemError) in try body(address, length) }
            }
        }
        try result.get()
    }
}

/// O_PATH is hidden behind _GNU_SOURCE; opening for reading serves as well.
private let O_PATH_DIRECTORY = O_RDONLY | O_DIRECTORY
