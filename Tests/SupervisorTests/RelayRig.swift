// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Supervisor

/// A real relay process between a port of `::1` and one of 127.0.0.1, and what it watches.
final class RelayRig {
    let relay: Child
    private let watched: Child
    /// Where clients connect to.
    let front: SocketAddress
    /// The socket of 127.0.0.1 that the relay leads to; closed already when nobody is to listen.
    var target: Socket?
    private let back: SocketAddress
    private let transport: TransportProtocol
    private var isWatchedOver = false
    private var isRelayOver = false

    init(
        _ transport: TransportProtocol, idle: Double = 60, sessions: Int = 1024,
        descriptors: Int = 0
    ) throws {
        self.transport = transport
        let listener = try Relay.listen(transport, at: .loopback6(0))
        front = try InetSocket.address(of: listener.raw)
        let target = try Socket(transport, at: .loopback4(0))
        back = try InetSocket.address(of: target.raw)
        self.target = target
        watched = try Program("/usr/bin/sleep", ["600"]).spawn()
        var program = Program(
            Rig.tool,
            ["relay", "3", "\(idle)", "\(sessions)", "\(descriptors)"]
                + ["\(transport.rawValue):4:127.0.0.1:\(back.port)"])
        program.descriptors = [2: 2, 3: watched.pidfd, 4: listener.raw]
        relay = try program.spawn()
    }

    deinit {
        endWatched()
        guard !isRelayOver else { return }
        relay.signal(SIGKILL)
        _ = try? relay.waitBlocking()
    }

    /// Waits for the end of the relay.
    func end() async throws -> Exit {
        isRelayOver = true
        return try await relay.wait()
    }

    func endWatched() {
        guard !isWatchedOver else { return }
        isWatchedOver = true
        watched.signal(SIGKILL)
        _ = try? watched.waitBlocking()
    }

    /// Binds the target's port again after it was closed.
    ///
    /// A child that another test has just forked holds the old one until its exec.
    func reopenTarget() throws {
        try until("the target's port is free") {
            target = try? Socket(transport, at: back)
            return target != nil
        }
    }

    func client() throws -> Socket {
        let socket = try Socket(transport, for: front)
        try #require(try InetSocket.connect(socket.raw, front))
        return socket
    }

    func accept() throws -> Socket {
        let listener = try #require(target)
        return Socket(try InetSocket.accept(listener.raw))
    }

    /// How many descriptors the relay has open.
    var descriptors: Int {
        get throws { try Files.list("/proc/\(relay.pid)/fd").count }
    }

    /// Looks again and again until it is so; a minute is long for what takes milliseconds.
    func until(_ what: String, _ isSo: () throws -> Bool) throws {
        for _ in 0..<6000 {
            if try isSo() { return }
            usleep(10_000)
        }
        Issue.record("in vain: \(what)")
    }
}

/// A blocking socket whose reads and writes end with EAGAIN after a minute rather than never.
final class Socket: Sendable {
    private let descriptor: Descriptor
    var raw: Int32 { descriptor.raw }

    init(_ descriptor: consuming Descriptor) {
        self.descriptor = descriptor
        let limit = timeval(tv_sec: 60, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            _ = withUnsafePointer(to: limit) {
                setsockopt(
                    raw, SOL_SOCKET, option, $0, socklen_t(MemoryLayout<timeval>.size))
            }
        }
    }

    /// One that may be connected to the address.
    convenience init(_ transport: TransportProtocol, for address: SocketAddress) throws {
        self.init(
            try InetSocket.make(for: address, transport == .tcp ? .stream : .datagram))
    }

    /// One that is bound, and listens where the transport is tcp.
    convenience init(_ transport: TransportProtocol, at address: SocketAddress) throws {
        try self.init(transport, for: address)
        if transport == .tcp { try InetSocket.set(raw, SOL_SOCKET, SO_REUSEADDR, 1) }
        try InetSocket.bind(raw, address)
        if transport == .tcp { try check("listen") { listen(raw, 512) } }
    }

    func write(_ bytes: [UInt8]) throws {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = try check("send") {
                rest.withUnsafeBytes {
                    Glibc.send(raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
                }
            }
            rest = rest.dropFirst(count)
        }
    }

    func write(_ text: String) throws { try write(Array(text.utf8)) }
    /// Cuts the connection off.
    func reset() {
        InetSocket.resetOnClose(raw)
        // The number stays taken, by another file: it is closed again with its owner.
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        dup2(null, raw)
        close(null)
    }

    func finish() { shutdown(raw, Int32(SHUT_WR)) }
    func read(_ count: Int = 65536) throws -> [UInt8] { try Linux.read(raw, count) }
    func readText() throws -> String { String(decoding: try read(), as: UTF8.self) }

    func readToEnd() throws -> [UInt8] {
        var all: [UInt8] = []
        while true {
            let chunk = try read()
            if chunk.isEmpty { return all }
            all += chunk
        }
    }

    /// A datagram and whose it is.
    func receive() throws -> (text: String, from: SocketAddress) {
        var buffer = [UInt8](repeating: 0, count: 65536)
        let (count, from) = try InetSocket.receive(raw, into: &buffer)
        return (String(decoding: buffer[..<count], as: UTF8.self), try #require(from))
    }

    func send(_ text: String, to address: SocketAddress? = nil) throws {
        try InetSocket.send(raw, Array(text.utf8), count: text.utf8.count, to: address)
    }
}
