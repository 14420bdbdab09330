// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Glibc
package import Linux

/// Forwards ports of the host's loopback where the kernel cannot, in a process of its own.
///
/// The kernel translates 127.0.0.1:P to a VM, and cannot do so for `::1`: there is no IPv6
/// counterpart of route_localnet. On a bridge of the host, where route_localnet would open the
/// loopback to the whole LAN, it cannot for 127.0.0.1 either. One process serves all such ports of
/// a VM.
package enum Relay {
    /// One port that is forwarded.
    package struct Route: Sendable, Equatable {
        /// A listening (tcp) or bound (udp) socket, inherited from whoever started the process.
        package let socket: Int32
        package let transport: TransportProtocol
        /// Where it leads to, by IPv4.
        package let address: IPv4
        package let port: UInt16

        package init(
            socket: Int32, transport: TransportProtocol, to address: IPv4, _ port: UInt16
        ) {
            self.socket = socket
            self.transport = transport
            self.address = address
            self.port = port
        }

        /// Reads what `word` has written, such as `tcp:4:10.1.0.2:80`.
        package init?(_ word: String) {
            let parts = word.split(separator: ":").map(String.init)
            guard parts.count == 4, let transport = TransportProtocol(rawValue: parts[0]),
                let socket = Int32(parts[1]), let address = IPv4(parts[2]),
                let port = UInt16(parts[3])
            else { return nil }
            self.init(socket: socket, transport: transport, to: address, port)
        }

        /// How the process that does it is told.
        package var word: String { "\(transport.rawValue):\(socket):\(address):\(port)" }

        var target: SocketAddress { .v4(address.value, port: port) }
    }

    /// What UDP, which knows no end, is ended by.
    package struct Limits: Sendable {
        /// Seconds without a datagram after which a client is forgotten.
        package var idle = 60.0
        /// Clients of one port that are remembered at a time; a further one replaces the oldest.
        package var sessions = 1024

        package init() {}
    }

    /// Binds an address, and listens where the transport is tcp; EADDRINUSE when it is taken.
    ///
    /// The corresponding C functions are `bind` and `listen`.
    package static func listen(
        _ transport: TransportProtocol, at address: SocketAddress
    ) throws(SystemError) -> Descriptor {
        let socket = try InetSocket.make(
            for: address, transport == .tcp ? .stream : .datagram, nonBlocking: true)
        // Connections that a relay before us had open must not keep the port for a minute. Of
        // UDP sockets two that both ask for it would share the port.
        if transport == .tcp { try InetSocket.set(socket.raw, SOL_SOCKET, SO_REUSEADDR, 1) }
        try InetSocket.bind(socket.raw, address)
        if transport == .tcp { try check("listen") { Glibc.listen(socket.raw, 4096) } }
        return socket
    }

    /// Forwards until the process behind the pidfd ends, or SIGTERM or SIGINT comes; returns 0.
    ///
    /// It is all that its process does: signals are its own, and the limit of descriptors is
    /// raised. Returns 1 when it cannot start or wait.
    package static func run(
        routes: [Route], watching pidfd: Int32, limits: Limits = Limits(), log: Log = Log()
    ) -> Int32 {
        do throws(SystemError) {
            let signals = try Signals.pipe([SIGTERM, SIGINT])
            Signals.ignoreBrokenPipes()
            raiseDescriptorLimit()
            let reactor = Reactor()
            var isOver = false
            reactor.onReadable(pidfd) { isOver = true }
            reactor.onReadable(signals) { isOver = true }
            var tcp: [TCPRelay] = []
            var udp: [UDPRelay] = []
            for route in routes {
                try setNonBlocking(route.socket)
                switch route.transport {
                case .tcp: tcp.append(TCPRelay(route, reactor, log))
                case .udp: udp.append(UDPRelay(route, reactor, limits))
                }
            }
            while !isOver { try reactor.turn() }
            withExtendedLifetime((tcp, udp)) {}
            return 0
        } catch {
            log.error("relay: \(error)")
            return 1
        }
    }

    /// Room for 4000 connections where the hard limit allows it: at 32 KiB for each direction
    /// that nobody reads, they hold 256 MiB at the worst.
    ///
    /// The corresponding C function is `setrlimit`.
    private static func raiseDescriptorLimit() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = max(limit.rlim_cur, min(limit.rlim_max, 8192))
        // Without it there is room for fewer, and the others wait.
        _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
}

/// The errors that say that there is no descriptor or no memory for one more socket.
func isExhausted(_ error: SystemError) -> Bool {
    [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(error.code)
}
