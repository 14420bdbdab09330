// SPDX-License-Identifier: Apache-2.0
import Glibc

/// An address and a port of TCP or UDP, in host byte order.
package enum SocketAddress: Sendable, Hashable {
    case v4(UInt32, port: UInt16)
    /// `scope` is the number of the interface that a link-local address belongs to, else 0.
    case v6(high: UInt64, low: UInt64, scope: UInt32 = 0, port: UInt16)

    /// 127.0.0.1.
    package static func loopback4(_ port: UInt16) -> SocketAddress { .v4(0x7F00_0001, port: port) }
    /// `::1`.
    package static func loopback6(_ port: UInt16) -> SocketAddress {
        .v6(high: 0, low: 1, port: port)
    }

    package var port: UInt16 {
        switch self {
        case .v4(_, let port), .v6(_, _, _, let port): port
        }
    }

    fileprivate var family: Int32 {
        switch self {
        case .v4: AF_INET
        case .v6: AF_INET6
        }
    }

    fileprivate init?(_ storage: sockaddr_storage) {
        let family = Int32(storage.ss_family)
        let parsed: SocketAddress? = withUnsafeBytes(of: storage) { bytes in
            switch family {
            case AF_INET:
                let raw = bytes.loadUnaligned(as: sockaddr_in.self)
                return .v4(
                    UInt32(bigEndian: raw.sin_addr.s_addr), port: UInt16(bigEndian: raw.sin_port))
            case AF_INET6:
                let raw = bytes.loadUnaligned(as: sockaddr_in6.self)
                let (high, low) = withUnsafeBytes(of: raw.sin6_addr) {
                    (
                        UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
                        UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
                    )
                }
                return .v6(
                    high: high, low: low, scope: raw.sin6_scope_id,
                    port: UInt16(bigEndian: raw.sin6_port))
            default: return nil
            }
        }
        guard let parsed else { return nil }
        self = parsed
    }

    fileprivate func withRaw<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
        switch self {
        case .v4(let value, let port):
            var raw = sockaddr_in()
            raw.sin_family = sa_family_t(AF_INET)
            raw.sin_addr.s_addr = value.bigEndian
            raw.sin_port = port.bigEndian
            return Self.lend(raw, body)
        case .v6(let high, let low, let scope, let port):
            var raw = sockaddr_in6()
            raw.sin6_family = sa_family_t(AF_INET6)
            withUnsafeMutableBytes(of: &raw.sin6_addr) {
                $0.storeBytes(of: high.bigEndian, as: UInt64.self)
                $0.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
            }
            raw.sin6_scope_id = scope
            raw.sin6_port = port.bigEndian
            return Self.lend(raw, body)
        }
    }

    private static func lend<T, R>(
        _ raw: T, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R
    ) -> R {
        withUnsafePointer(to: raw) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<T>.size))
            }
        }
    }
}

/// TCP and UDP sockets by descriptor; all of them are close-on-exec.
package enum InetSocket {
    package enum Kind: Sendable { case stream, datagram }

    /// A socket of the address's family, neither bound nor connected.
    ///
    /// An IPv6 socket is for IPv6 alone (IPV6_V6ONLY): without that, one bound to `::` takes the
    /// port of IPv4 too. The corresponding C function is `socket`.
    package static func make(
        for address: SocketAddress, _ kind: Kind, nonBlocking: Bool = false
    ) throws(SystemError) -> Descriptor {
        var type = kind == .stream ? SOCK_STREAM.rawValue : SOCK_DGRAM.rawValue
        type |= SOCK_CLOEXEC.rawValue
        if nonBlocking { type |= SOCK_NONBLOCK.rawValue }
        let socket = Descriptor(
            owning: try check("socket") { Glibc.socket(address.family, Int32(type), 0) })
        if address.family == AF_INET6 { try set(socket.raw, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1) }
        return socket
    }

    /// Sets an option whose value is an integer.
    ///
    /// The corresponding C function is `setsockopt`.
    package static func set(
        _ socket: Int32, _ level: Int32, _ option: Int32, _ value: Int32
    ) throws(SystemError) {
        try check("setsockopt") {
            withUnsafePointer(to: value) {
                setsockopt(socket, level, option, $0, socklen_t(MemoryLayout<Int32>.size))
            }
        }
    }

    /// The corresponding C function is `bind`.
    package static func bind(_ socket: Int32, _ address: SocketAddress) throws(SystemError) {
        try check("bind port \(address.port)") {
            address.withRaw { Glibc.bind(socket, $0, $1) }
        }
    }

    /// Connects; of a non-blocking socket, false says that it is still under way.
    ///
    /// Called again when the socket takes bytes, it says how that went. The corresponding C
    /// function is `connect`.
    package static func connect(
        _ socket: Int32, _ address: SocketAddress
    ) throws(SystemError) -> Bool {
        if address.withRaw({ Glibc.connect(socket, $0, $1) }) == 0 { return true }
        switch errno {
        case EISCONN: return true
        case EINPROGRESS, EALREADY, EINTR: return false
        default: throw SystemError("connect port \(address.port)")
        }
    }

    /// Where the socket is bound; the corresponding C function is `getsockname`.
    package static func address(of socket: Int32) throws(SystemError) -> SocketAddress {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        try check("getsockname") {
            lendAny(&storage) { getsockname(socket, $0, &length) }
        }
        guard let address = SocketAddress(storage) else {
            throw SystemError("getsockname", EAFNOSUPPORT)
        }
        return address
    }

    /// Takes the next connection of a listener; the corresponding C function is `accept4`.
    package static func accept(_ listener: Int32) throws(SystemError) -> Descriptor {
        try UnixSocket.accept(listener)
    }

    /// Reads one datagram into the buffer: how many bytes of it are the datagram, and whose it is.
    ///
    /// Zero bytes are an empty datagram, not an end. The corresponding C function is `recvfrom`.
    package static func receive(
        _ socket: Int32, into buffer: inout [UInt8]
    ) throws(SystemError) -> (count: Int, from: SocketAddress?) {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let count = try check("recvfrom") {
            lendAny(&storage) { recvfrom(socket, &buffer, buffer.count, 0, $0, &length) }
        }
        return (count, SocketAddress(storage))
    }

    /// Sends one datagram: the first `count` bytes of the buffer, to the address or the peer.
    ///
    /// The corresponding C function is `sendto`.
    package static func send(
        _ socket: Int32, _ buffer: [UInt8], count: Int, to address: SocketAddress? = nil
    ) throws(SystemError) {
        let flags = Int32(MSG_NOSIGNAL)
        try check("sendto") {
            guard let address else { return Glibc.send(socket, buffer, count, flags) }
            return address.withRaw { sendto(socket, buffer, count, flags, $0, $1) }
        }
    }

    /// Makes the close of a TCP connection a reset: the other side learns that something failed.
    ///
    /// The corresponding C function is `setsockopt(SO_LINGER)`.
    package static func resetOnClose(_ socket: Int32) {
        let value = linger(l_onoff: 1, l_linger: 0)
        // A socket that is past resetting needs none.
        _ = withUnsafePointer(to: value) {
            setsockopt(socket, SOL_SOCKET, SO_LINGER, $0, socklen_t(MemoryLayout<linger>.size))
        }
    }

    private static func lendAny<R>(
        _ storage: inout sockaddr_storage, _ body: (UnsafeMutablePointer<sockaddr>) -> R
    ) -> R {
        withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1, body)
        }
    }
}
