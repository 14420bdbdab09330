// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Who holds the ports of this host, as the calling thread's network namespace has it.
package enum Ports {
    /// Whether a program could bind the port now: false when another one has it.
    ///
    /// 0.0.0.0 and `::` ask for all addresses of their family, and a socket that is bound to all
    /// of them holds each one. A listener counts, an open connection from that port too; what a
    /// closed connection leaves behind for a minute (TIME_WAIT) does not. The test binds the port
    /// for a moment, and a child that another thread forks meanwhile holds it until its exec.
    /// Errors: EADDRNOTAVAIL for an address that the host does not have, EACCES for
    /// a port that this user may not bind, EAFNOSUPPORT where IPv6 is off.
    ///
    /// The corresponding C function is `bind`.
    package static func isFree(
        _ address: SocketAddress, _ kind: InetSocket.Kind
    ) throws(SystemError) -> Bool {
        let socket = try InetSocket.make(for: address, kind)
        // TCP: without it TIME_WAIT counts, with it a listener still does. UDP: with it two
        // sockets that both have it share the port, and a holder would not be seen.
        if kind == .stream { try InetSocket.set(socket.raw, SOL_SOCKET, SO_REUSEADDR, 1) }
        do throws(SystemError) {
            try InetSocket.bind(socket.raw, address)
            return true
        } catch {
            guard error.code == EADDRINUSE else { throw error }
            // The remains of a server that did not set SO_REUSEADDR itself refuse us all the same.
            return kind == .stream && isHeldByRemainsAlone(address.port)
        }
    }

    /// Whether connections on their way out are all that the kernel lists for the TCP port.
    private static func isHeldByRemainsAlone(_ port: UInt16) -> Bool {
        var found = false
        // Not /proc/net: that is the namespace of the process's first thread, not of this one.
        for name in ["tcp", "tcp6"] {
            guard let table = try? Files.readText("/proc/thread-self/net/\(name)") else { continue }
            for line in table.split(separator: "\n").dropFirst() {
                let fields = line.split(separator: " ", maxSplits: 4)
                guard fields.count == 5, let digits = fields[1].split(separator: ":").last,
                    UInt16(digits, radix: 16) == port
                else { continue }
                guard remains.contains(String(fields[3])) else { return false }
                found = true
            }
        }
        // Bound and not listening yet: such a socket is in no table, and its program holds it.
        return found
    }

    /// FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING: this side has said that it is done.
    private static let remains: Set<String> = ["04", "05", "06", "09", "0B"]
}
