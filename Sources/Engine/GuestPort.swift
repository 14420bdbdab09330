// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// The host's end of the port that leads to the guest's sshd.
///
/// A serial port has no connections: bytes of an earlier session may still be under way in both
/// directions. So every session begins with a word of ours that carries a new number, and what
/// comes before the guest's answer with that number is dropped.
package enum GuestPort {
    /// Joins standard input and output with the guest's sshd until one of them ends.
    ///
    /// It blocks its thread, so it is for a process that does nothing else.
    package static func serve(_ path: String) throws {
        let socket = try UnixSocket.connect(path)
        let early = try greet(socket)
        try write(1, early)
        try relay(socket)
    }

    /// Says hello until the guest answers, and returns what came behind the answer.
    private static func greet(_ socket: borrowing Descriptor) throws -> [UInt8] {
        // A guest that is busy booting answers late; each hello has a number of its own, so an
        // answer to an older one is told from the one that counts.
        for patience in [1, 2, 4, 8, 15, 30] as [Int32] {
            let nonce = randomHex(32)
            try socket.write("\u{1}martlet-hello \(nonce)\n".utf8)
            if let rest = try answer(socket, nonce: nonce, seconds: patience) { return rest }
        }
        throw StoreError.failed(what: "the guest's port", reason: "sshd does not answer on it")
    }

    private static func answer(
        _ socket: borrowing Descriptor, nonce: String, seconds: Int32
    ) throws -> [UInt8]? {
        let expected = Array("\u{1}martlet-ready \(nonce)\n".utf8)
        let end = Clock.monotonic() + UInt64(seconds) * 1_000_000_000
        var seen: [UInt8] = []
        while Clock.monotonic() < end {
            var one = pollfd(fd: socket.raw, events: Int16(POLLIN), revents: 0)
            let left = Int32((end - min(end, Clock.monotonic())) / 1_000_000) + 1
            guard poll(&one, 1, left) > 0 else { continue }
            let chunk = try socket.read(65536)
            if chunk.isEmpty { throw SystemError("the guest's port", ECONNRESET) }
            seen += chunk
            if let found = position(of: expected, in: seen) {
                return Array(seen[(found + expected.count)...])
            }
            // Only an answer that has begun can still become whole.
            if seen.count > expected.count { seen.removeFirst(seen.count - expected.count) }
        }
        return nil
    }

    static func position(of needle: [UInt8], in bytes: [UInt8]) -> Int? {
        guard bytes.count >= needle.count else { return nil }
        return (0...(bytes.count - needle.count)).first {
            bytes[$0..<($0 + needle.count)].elementsEqual(needle)
        }
    }

    /// Copies both ways; ends when standard input or the guest ends.
    ///
    /// Each way waits on its own: were a write to block, a full pipe one way could hold up the
    /// other, and with it the side that would have emptied the first.
    private static func relay(_ socket: borrowing Descriptor) throws {
        var ways = [Way(from: 0, to: socket.raw), Way(from: socket.raw, to: 1)]
        for fd in [0, 1, socket.raw] { try setNonBlocking(fd) }
        while true {
            var waits = ways.map(\.wait)
            try check("poll") { poll(&waits, nfds_t(waits.count), -1) }
            for index in ways.indices where waits[index].revents != 0 {
                guard try ways[index].step() else { return }
            }
        }
    }

    /// One direction of the relay, and what has been read and not yet written.
    private struct Way {
        let from: Int32
        let to: Int32
        var pending: ArraySlice<UInt8> = []

        var wait: pollfd {
            pending.isEmpty
                ? pollfd(fd: from, events: Int16(POLLIN), revents: 0)
                : pollfd(fd: to, events: Int16(POLLOUT), revents: 0)
        }

        /// Moves what can be moved; false at the end.
        mutating func step() throws -> Bool {
            if pending.isEmpty {
                let chunk = try read(from, 65536)
                pending = chunk[...]
                return !chunk.isEmpty
            }
            let written = pending.withUnsafeBytes { Glibc.write(to, $0.baseAddress, $0.count) }
            if written < 0, errno != EAGAIN, errno != EINTR { throw SystemError("write") }
            if written > 0 { pending.removeFirst(written) }
            return true
        }
    }
}
