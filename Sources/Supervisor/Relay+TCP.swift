// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// The connections of one forwarded port.
final class TCPRelay {
    private let route: Relay.Route
    private let reactor: Reactor
    private let log: Log
    private var connections: [ObjectIdentifier: RelayedConnection] = [:]
    private var isPaused = false
    /// At the limit, each connection that ends may bring the next shortage.
    private var nextWarning = 0.0
    private var name: String { "relay-accept-\(route.socket)" }

    init(_ route: Relay.Route, _ reactor: Reactor, _ log: Log) {
        self.route = route
        self.reactor = reactor
        self.log = log
        listen()
    }

    private func listen() {
        isPaused = false
        reactor.onReadable(route.socket) { [unowned self] in accept() }
    }

    /// Out of descriptors: clients wait in the kernel's queue until a connection has ended.
    ///
    /// The queue stays readable, so that going on to poll it would spin. Others may have taken
    /// the descriptors, hence the look from time to time.
    private func pause() {
        isPaused = true
        if Reactor.now >= nextWarning {
            nextWarning = Reactor.now + 60
            log.warning("relay: no descriptors left; clients of port \(route.port) wait")
        }
        reactor.pauseReading(route.socket)
        reactor.arm(name, after: 0.5) { [unowned self] in
            reactor.onReadable(route.socket) { [unowned self] in accept() }
        }
    }

    private func accept() {
        // Not without end: other descriptors have their turn as well.
        for _ in 0..<64 {
            do throws(SystemError) {
                // The target's socket first: a client is taken from the queue only when there is
                // a descriptor for either side.
                let target = try InetSocket.make(
                    for: route.target, .stream, nonBlocking: true)
                let client = try InetSocket.accept(route.socket)
                try client.setNonBlocking()
                isPaused = false
                open(client.release(), target.release())
            } catch {
                if isExhausted(error) { pause() }
                return
            }
        }
    }

    private func open(_ client: Int32, _ target: Int32) {
        let connection = RelayedConnection(client, target, reactor)
        let key = ObjectIdentifier(connection)
        connections[key] = connection
        connection.onEnd = { [unowned self] in
            connections[key] = nil
            guard isPaused else { return }
            reactor.disarm(name)
            listen()
        }
        connection.connect(to: route.target)
    }
}

/// A client's connection and the one that carries it on.
private final class RelayedConnection {
    private let client: Int32
    private let target: Int32
    private let reactor: Reactor
    private let up: RelayedStream
    private let down: RelayedStream
    private var isOver = false
    /// Called once, when both connections are closed.
    var onEnd: (() -> Void)?

    /// Takes ownership of both descriptors.
    init(_ client: Int32, _ target: Int32, _ reactor: Reactor) {
        self.client = client
        self.target = target
        self.reactor = reactor
        up = RelayedStream(from: client, to: target)
        down = RelayedStream(from: target, to: client)
        for fd in [client, target] {
            // We pass on what comes as it comes: whoever sends little at a time waits for no more.
            try? InetSocket.set(fd, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
        }
    }

    /// Nothing is read from the client before its target has answered.
    func connect(to address: SocketAddress) {
        do throws(SystemError) {
            guard try InetSocket.connect(target, address) else {
                // Asked again there: an event may be left over from an earlier use of the number.
                reactor.onWritable(target) { [unowned self] in connect(to: address) }
                return
            }
        } catch {
            return end(byReset: true)
        }
        watch(up)
        watch(down)
    }

    private func move(_ stream: RelayedStream) {
        guard !isOver else { return }
        do throws(SystemError) {
            try stream.move()
        } catch {
            // The last words of a side that hung up are passed on, and then the other side is to
            // see that it was cut off: no orderly end.
            try? (stream === up ? down : up).move()
            return end(byReset: true)
        }
        if up.isDone && down.isDone { return end(byReset: false) }
        watch(stream)
    }

    /// Has the reactor wait for what the direction needs to go on.
    private func watch(_ stream: RelayedStream) {
        let run = { [unowned self] in move(stream) }
        if stream.wantsToRead {
            reactor.onReadable(stream.from, run)
        } else {
            reactor.pauseReading(stream.from)
        }
        reactor.onWritable(stream.to, stream.wantsToWrite ? run : nil)
    }

    private func end(byReset: Bool) {
        guard !isOver else { return }
        isOver = true
        for fd in [client, target] {
            reactor.forget(fd)
            if byReset { InetSocket.resetOnClose(fd) }
            close(fd)
        }
        // Its owner lets go of us there.
        let onEnd = self.onEnd
        self.onEnd = nil
        onEnd?()
    }
}

/// One direction of a connection, with at most one chunk under way.
private final class RelayedStream {
    let from: Int32
    let to: Int32
    /// What was read and not taken yet; while there is any, nothing more is read.
    private var pending: ArraySlice<UInt8> = []
    private var hasEnded = false
    /// The end has been passed on.
    private(set) var isDone = false
    private static let chunk = 32 << 10

    init(from: Int32, to: Int32) {
        self.from = from
        self.to = to
    }

    var wantsToRead: Bool { !hasEnded && pending.isEmpty }
    var wantsToWrite: Bool { !pending.isEmpty }

    /// Reads and writes until one side has to be waited for, or a fair share is done.
    func move() throws(SystemError) {
        for _ in 0..<16 where !isDone {
            if wantsToRead {
                guard let bytes = try read() else { return }
                hasEnded = bytes.isEmpty
                pending = bytes[...]
            }
            if wantsToWrite {
                guard let count = try write() else { return }
                // An empty slice would keep its whole array.
                pending = count == pending.count ? [] : pending.dropFirst(count)
            }
            if hasEnded && pending.isEmpty {
                // Half-closed: the other direction may have much to say still.
                shutdown(to, Int32(SHUT_WR))
                isDone = true
            }
        }
    }

    /// Nil when nothing is there now.
    private func read() throws(SystemError) -> [UInt8]? {
        do throws(SystemError) {
            return try Linux.read(from, RelayedStream.chunk)
        } catch {
            if error.code == EAGAIN { return nil }
            throw error
        }
    }

    /// How many bytes were taken; nil when none are now.
    private func write() throws(SystemError) -> Int? {
        do throws(SystemError) {
            return try check("send") {
                pending.withUnsafeBytes { send(to, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            }
        } catch {
            if error.code == EAGAIN { return nil }
            throw error
        }
    }
}
