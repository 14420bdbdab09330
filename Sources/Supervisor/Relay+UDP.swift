// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// The clients of one forwarded UDP port: each has a socket of its own towards the target, so that
/// an answer finds the way back.
final class UDPRelay {
    private final class Session {
        let socket: Descriptor
        var lastUse: Double

        init(_ socket: consuming Descriptor) {
            self.socket = socket
            lastUse = Reactor.now
        }
    }

    private let route: Relay.Route
    private let reactor: Reactor
    private let limits: Relay.Limits
    private var sessions: [SocketAddress: Session] = [:]
    /// No datagram is longer.
    private var buffer = [UInt8](repeating: 0, count: 65536)

    init(_ route: Relay.Route, _ reactor: Reactor, _ limits: Relay.Limits) {
        self.route = route
        self.reactor = reactor
        self.limits = limits
        reactor.onReadable(route.socket) { [unowned self] in receive() }
    }

    private func receive() {
        // Not without end: other descriptors have their turn as well.
        for _ in 0..<64 {
            // What goes wrong here is a datagram lost, which UDP allows for.
            guard let (count, from) = try? InetSocket.receive(route.socket, into: &buffer) else {
                return
            }
            guard let from, let session = session(of: from) else { continue }
            session.lastUse = Reactor.now
            send(count, over: session)
        }
    }

    private func send(_ count: Int, over session: Session) {
        do throws(SystemError) {
            try InetSocket.send(session.socket.raw, buffer, count: count)
        } catch {
            // An earlier datagram's answer, "nobody listens", ends this one: it goes once more.
            guard error.code == ECONNREFUSED else { return }
            try? InetSocket.send(session.socket.raw, buffer, count: count)
        }
    }

    private func answer(_ client: SocketAddress) {
        guard let session = sessions[client] else { return }
        for _ in 0..<64 {
            do throws(SystemError) {
                let (count, _) = try InetSocket.receive(session.socket.raw, into: &buffer)
                session.lastUse = Reactor.now
                try? InetSocket.send(route.socket, buffer, count: count, to: client)
            } catch {
                // "Nobody listens" is read here as well, and is not the end.
                if error.code != ECONNREFUSED { return }
            }
        }
    }

    private func session(of client: SocketAddress) -> Session? {
        if let session = sessions[client] { return session }
        if sessions.count >= limits.sessions { endOldest() }
        do throws(SystemError) {
            return try open(client)
        } catch {
            guard isExhausted(error), !sessions.isEmpty else { return nil }
            endOldest()
            return try? open(client)
        }
    }

    private func open(_ client: SocketAddress) throws(SystemError) -> Session {
        let target = route.target
        let socket = try InetSocket.make(for: target, .datagram, nonBlocking: true)
        _ = try InetSocket.connect(socket.raw, target)
        let session = Session(socket)
        sessions[client] = session
        reactor.onReadable(session.socket.raw) { [unowned self] in answer(client) }
        if sessions.count == 1 { expect(session.lastUse) }
        return session
    }

    /// Looks again when the oldest session may have been idle long enough.
    private func expect(_ oldest: Double) {
        reactor.arm("relay-idle-\(route.socket)", after: oldest + limits.idle - Reactor.now) {
            [unowned self] in
            let now = Reactor.now
            for (client, session) in sessions where session.lastUse + limits.idle <= now {
                end(client)
            }
            if let oldest = sessions.values.map(\.lastUse).min() { expect(oldest) }
        }
    }

    private func endOldest() {
        if let oldest = sessions.min(by: { $0.value.lastUse < $1.value.lastUse }) {
            end(oldest.key)
        }
    }

    private func end(_ client: SocketAddress) {
        // The descriptor is closed with the session.
        if let session = sessions.removeValue(forKey: client) {
            reactor.forget(session.socket.raw)
        }
    }
}
