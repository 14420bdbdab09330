// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Testing

@Suite(.timeLimit(.minutes(20))) struct PortsTests {
    /// Bound, and listening where it is a stream; an address with port 0 gets a free one.
    private static func held(
        _ address: SocketAddress, _ kind: InetSocket.Kind, reuse: Bool = false,
        listening: Bool = true
    ) throws -> (socket: Held, port: UInt16) {
        let socket = try InetSocket.make(for: address, kind)
        if reuse { try InetSocket.set(socket.raw, SOL_SOCKET, SO_REUSEADDR, 1) }
        try InetSocket.bind(socket.raw, address)
        if kind == .stream, listening { try check("listen") { listen(socket.raw, 8) } }
        let port = try InetSocket.address(of: socket.raw).port
        return (Held(socket), port)
    }

    private final class Held {
        let descriptor: Descriptor
        init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }
    }

    private static func any4(_ port: UInt16) -> SocketAddress { .v4(0, port: port) }
    private static func any6(_ port: UInt16) -> SocketAddress { .v6(high: 0, low: 0, port: port) }

    @Test(arguments: [InetSocket.Kind.stream, .datagram], [true, false])
    func aHeldPortIsTakenAndThenFree(kind: InetSocket.Kind, reuse: Bool) async throws {
        try await blocking {
            try enterNewNetwork()
            for address in [SocketAddress.loopback4, SocketAddress.loopback6] {
                let port = try Self.expectTaken(address, kind, reuse)
                #expect(try Self.becomesFree(address(port), kind))
            }
        }
    }

    @Test(arguments: [InetSocket.Kind.stream, .datagram])
    func allAddressesAndOneAreInEachOthersWay(kind: InetSocket.Kind) async throws {
        try await blocking {
            try enterNewNetwork()
            let one = try Self.held(.loopback4(0), kind)
            #expect(try !Ports.isFree(Self.any4(one.port), kind))
            #expect(try Ports.isFree(.v4(0x7F00_0002, port: one.port), kind))
            #expect(try Ports.isFree(Self.any6(one.port), kind))
            let all = try Self.held(Self.any4(0), kind)
            #expect(try !Ports.isFree(.loopback4(all.port), kind))
            #expect(try Ports.isFree(.loopback6(all.port), kind))
            withExtendedLifetime((one, all)) {}
        }
    }

    @Test func aListenerOfBothFamiliesTakesBoth() async throws {
        try await blocking {
            try enterNewNetwork()
            let socket = try InetSocket.make(for: Self.any6(0), .stream)
            try InetSocket.set(socket.raw, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 0)
            try InetSocket.bind(socket.raw, Self.any6(0))
            try check("listen") { listen(socket.raw, 8) }
            let port = try InetSocket.address(of: socket.raw).port
            #expect(try !Ports.isFree(.loopback4(port), .stream))
            #expect(try !Ports.isFree(.loopback6(port), .stream))
        }
    }

    /// In a namespace of its own: the test must look at the thread's, not at the process's.
    @Test(arguments: [true, false])
    func whatAClosedConnectionLeavesBehindDoesNotCount(reuse: Bool) async throws {
        try await blocking {
            try enterNewNetwork()
            let port = try Self.leaveRemains(reuse)
            for _ in 0..<1000 {
                if try Files.readText("/proc/thread-self/net/tcp").contains(" 06 ") { break }
                usleep(10_000)
            }
            try #require(try Files.readText("/proc/thread-self/net/tcp").contains(" 06 "))
            #expect(try Self.becomesFree(.loopback4(port), .stream))
        }
    }

    @Test func aPortThatIsBoundButNotListenedOnIsTaken() async throws {
        try await blocking {
            try enterNewNetwork()
            let held = try Self.held(.loopback4(0), .stream, listening: false)
            #expect(try !Ports.isFree(.loopback4(held.port), .stream))
            withExtendedLifetime(held) {}
        }
    }

    @Test(arguments: [InetSocket.Kind.stream, .datagram])
    func anAddressOfAnotherHostIsAnError(kind: InetSocket.Kind) async throws {
        try await blocking {
            try enterNewNetwork()
            let foreign: [SocketAddress] = [
                .v4(0xC000_0201, port: 4000), .v6(high: 0x2001_0DB8 << 32, low: 1, port: 4000),
            ]
            for address in foreign {
                #expect(throws: SystemError("bind port 4000", EADDRNOTAVAIL)) {
                    _ = try Ports.isFree(address, kind)
                }
            }
        }
    }

    /// Closes a connection of a server that is gone then; returns the server's port.
    private static func leaveRemains(_ reuse: Bool) throws -> UInt16 {
        let (server, port) = try held(.loopback4(0), .stream, reuse: reuse)
        let client = try InetSocket.make(for: .loopback4(port), .stream)
        try #require(try InetSocket.connect(client.raw, .loopback4(port)))
        // It closes first, and keeps the memory of the connection.
        let accepted = try InetSocket.accept(server.descriptor.raw)
        shutdown(accepted.raw, Int32(SHUT_WR))
        #expect(try client.read(1).isEmpty)
        return port
    }

    /// The port of a socket that is closed again.
    private static func expectTaken(
        _ address: (UInt16) -> SocketAddress, _ kind: InetSocket.Kind, _ reuse: Bool
    ) throws -> UInt16 {
        let held = try held(address(0), kind, reuse: reuse)
        defer { withExtendedLifetime(held) {} }
        #expect(try !Ports.isFree(address(held.port), kind))
        #expect(try Ports.isFree(address(held.port), kind == .stream ? .datagram : .stream))
        return held.port
    }

    /// A child that another test has just forked holds a copy of our sockets until its exec.
    private static func becomesFree(
        _ address: SocketAddress, _ kind: InetSocket.Kind
    ) throws -> Bool {
        for _ in 0..<1000 {
            if try Ports.isFree(address, kind) { return true }
            usleep(10_000)
        }
        return false
    }
}
