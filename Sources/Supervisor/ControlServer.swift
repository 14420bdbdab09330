// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Hypervisors
import Linux

/// The listening end of `control.sock`: lines become requests, replies become lines.
final class ControlServer {
    typealias Client = Int

    private let reactor: Reactor
    private let listener: Descriptor
    private var streams: [Client: Stream] = [:]
    private var subscribers: Set<Client> = []
    private var waiting: [Lifecycle.Wait: [Client]] = [:]
    private var clients = 0
    var onRequest: ((ControlRequest, Client) -> Void)?
    /// A client has gone, or was let go.
    var onEnd: ((Client) -> Void)?

    private static let most = 64
    /// A reply may carry the 16 MiB that the agent buffers of each of two streams, in base64.
    private static let backlog = 48 << 20
    private static let eventBacklog = 256 << 10

    init(_ reactor: Reactor, socket: String) throws(SystemError) {
        self.reactor = reactor
        listener = try UnixSocket.listen(socket)
        try listener.setNonBlocking()
        reactor.onReadable(listener.raw) { [unowned self] in accept() }
    }

    /// Only the VM's own user and root may command it.
    static func mayConnect(_ socket: Int32) -> Bool {
        guard let user = try? UnixSocket.peerUser(socket) else { return false }
        return user == 0 || user == geteuid()
    }

    func reply(_ client: Client, _ reply: ControlReply) {
        guard let stream = streams[client] else { return }
        if !stream.send(line(reply.wire)) { drop(client) }
    }

    /// The client is answered by `resolve`.
    func wait(_ client: Client, for wait: Lifecycle.Wait) {
        waiting[wait, default: []].append(client)
    }

    func resolve(_ wait: Lifecycle.Wait, _ answer: ControlReply) {
        for client in waiting.removeValue(forKey: wait) ?? [] { reply(client, answer) }
    }

    func subscribe(_ client: Client) { subscribers.insert(client) }

    func publish(_ event: VMEvent) {
        let bytes = line(event.wire)
        for client in subscribers {
            guard let stream = streams[client] else { continue }
            // Whoever does not read his events is let go rather than served with gaps.
            if stream.backlog > ControlServer.eventBacklog || !stream.send(bytes) { drop(client) }
        }
    }

    /// Gives the last replies a moment to leave, then hangs up.
    func finish() throws(SystemError) {
        let end = Reactor.now + 1
        reactor.forget(listener.raw)
        reactor.arm("control-finish", after: 1) {}
        while streams.values.contains(where: { !$0.isDrained }), Reactor.now < end {
            try reactor.turn()
        }
        streams = [:]
    }

    private func accept() {
        guard let socket = try? UnixSocket.accept(listener.raw),
            streams.count < ControlServer.most, ControlServer.mayConnect(socket.raw),
            let stream = try? Stream(socket, reactor, limit: ControlServer.backlog)
        else { return }
        clients += 1
        let client = clients
        streams[client] = stream
        var lines = LineBuffer(limit: 4 << 20)
        stream.onBytes { [unowned self] bytes in
            if bytes.isEmpty { return drop(client) }
            for line in lines.append(bytes) { received(line, client) }
        }
    }

    private func received(_ line: [UInt8], _ client: Client) {
        let value = try? JSONValue(parsing: line)
        let request = value.flatMap(ControlRequest.init(wire:))
        guard let request else {
            return reply(
                client,
                .failed(
                    "the supervisor does not know this request: it is of another version of "
                        + "martlet; restart the VM"))
        }
        onRequest?(request, client)
    }

    private func drop(_ client: Client) {
        guard streams.removeValue(forKey: client) != nil else { return }
        subscribers.remove(client)
        onEnd?(client)
    }
}
