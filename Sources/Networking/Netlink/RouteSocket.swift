// SPDX-License-Identifier: Apache-2.0
package import Linux

import Glibc
import Synchronization

/// A socket to the kernel's interfaces, addresses and routes.
///
/// It belongs to the network namespace of the thread that makes it, and stays with that one. Calls
/// wait for the kernel's answer, and must not run on two threads at once.
///
/// Errors have the kernel's reason as their code: EPERM without CAP_NET_ADMIN, EEXIST for a name
/// that is taken, ENODEV for an interface that is not there, EBUSY, EOPNOTSUPP for a kind that this
/// kernel does not know. A malformed answer is EBADMSG.
///
/// The corresponding C function is `socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)`.
package struct RouteSocket: ~Copyable {
    private let socket: Descriptor
    private let sequence = Atomic<UInt32>(0)

    package init() throws(SystemError) { socket = try Self.open() }

    private static func open() throws(SystemError) -> Descriptor {
        let kind = Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue)
        let socket = Descriptor(
            owning: try check("netlink socket") { Glibc.socket(AF_NETLINK, kind, 0) })
        let raw = socket.raw
        for option in NL.options {
            var on: Int32 = 1
            try check("netlink option \(option)") {
                setsockopt(raw, NL.optionLevel, option, &on, 4)
            }
        }
        // The kernel answers before `send` returns. Should it ever not, an error beats a hang.
        var patience = timeval(tv_sec: 30, tv_usec: 0)
        try check("SO_RCVTIMEO") {
            setsockopt(
                raw, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        }
        return socket
    }

    /// Sends a request and waits until it is acknowledged; returns what came before that.
    @discardableResult
    func run(_ what: String, _ message: NetlinkMessage) throws(SystemError) -> [NetlinkReply] {
        try exchange(what, message).replies
    }

    /// Asks for a list, again when it changed while it was read.
    func list(_ what: String, _ message: NetlinkMessage) throws(SystemError) -> [NetlinkReply] {
        for _ in 0..<50 {
            let (replies, isConsistent) = try exchange(what, message)
            if isConsistent { return replies }
        }
        throw SystemError(what, EAGAIN)
    }

    private func exchange(
        _ what: String, _ message: NetlinkMessage
    ) throws(SystemError) -> (replies: [NetlinkReply], isConsistent: Bool) {
        let number = sequence.add(1, ordering: .relaxed).newValue
        let out = message.bytes(sequence: number)
        let raw = socket.raw
        try check(what) { send(raw, out, out.count, 0) }
        var replies: [NetlinkReply] = []
        var isConsistent = true
        while true {
            // What an earlier request that failed half way left behind has another number.
            for reply in try NetlinkReply.parse(try receive(what)) where reply.sequence == number {
                if reply.flags & NL.wasInterrupted != 0 { isConsistent = false }
                guard reply.type == NL.error || reply.type == NL.done else {
                    replies.append(reply)
                    continue
                }
                if let failure = try reply.failure(what) { throw failure }
                return (replies, isConsistent)
            }
        }
    }

    private func receive(_ what: String) throws(SystemError) -> [UInt8] {
        let raw = socket.raw
        // The kernel makes no message of a list longer than 32 KiB.
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = try check(what) { recv(raw, &buffer, buffer.count, Int32(MSG_TRUNC)) }
        guard count <= buffer.count else { throw SystemError(what, EMSGSIZE) }
        buffer.removeSubrange(count...)
        return buffer
    }
}
