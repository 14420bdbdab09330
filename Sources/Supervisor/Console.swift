// SPDX-License-Identifier: Apache-2.0
import Glibc
import Hypervisors
import Linux

/// The guest's serial console: a bounded log, and any number of clients.
final class Console {
    private let reactor: Reactor
    private let log: BoundedLog
    private let listener: Descriptor
    private var clients: [Int32: Stream] = [:]
    private var guest: Stream?
    /// Sees every line that the guest prints.
    var onLine: (([UInt8]) -> Void)?
    private var lines = LineBuffer(limit: 1024)

    /// Clients may be this far behind; what comes then passes them by.
    private static let backlog = 256 << 10
    private static let most = 32
    static let logLimit = 1 << 20

    init(_ reactor: Reactor, socket: String, log path: String) throws(SystemError) {
        self.reactor = reactor
        log = try BoundedLog(path, limit: Console.logLimit)
        listener = try UnixSocket.listen(socket)
        try listener.setNonBlocking()
        reactor.onReadable(listener.raw) { [unowned self] in accept() }
    }

    /// Connects the console of a hypervisor that was just started.
    func attach(_ guest: Stream) {
        self.guest = guest
        lines = LineBuffer(limit: 1024)
        guest.onBytes { [unowned self] bytes in
            if bytes.isEmpty { guest.close() } else { take(bytes) }
        }
    }

    /// Takes in what a hypervisor that has ended left behind.
    func drain() {
        // At most a socket buffer's worth: the writer is gone.
        while let bytes = guest?.take(), !bytes.isEmpty { take(bytes) }
        guest?.close()
        guest = nil
    }

    private func take(_ bytes: [UInt8]) {
        log.append(bytes)
        for client in clients.values { client.send(bytes) }
        for line in lines.append(bytes) { onLine?(line) }
    }

    private func accept() {
        guard let socket = try? UnixSocket.accept(listener.raw), clients.count < Console.most,
            ControlServer.mayConnect(socket.raw),
            let client = try? Stream(socket, reactor, limit: Console.backlog)
        else { return }
        clients[client.fd] = client
        client.onBytes { [unowned self, unowned client] bytes in
            if bytes.isEmpty {
                clients[client.fd] = nil
            } else {
                // A guest that reads nothing loses input, as at a real serial port.
                guest?.send(bytes)
            }
        }
    }
}
