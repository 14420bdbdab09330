// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Synchronization

/// A service on a unix socket that keeps what it is asked and answers what it is told.
package final class LocalServer: Sendable {
    package struct Request: Sendable, Equatable {
        package let line: String
        package let fields: [String: String]
        package let body: String
    }

    private let folder: TemporaryFolder
    private let listener: Descriptor
    private let asked = Mutex<[Request]>([])
    private let answer: @Sendable (Request) -> Reply
    /// How many more connections are answered.
    private let remaining: Mutex<Int>
    /// Milliseconds without a connection after which nobody is waited for any more.
    private let patience: Int32
    package var path: String { folder.path + "/daemon.sock" }
    package var requests: [Request] { asked.withLock { $0 } }

    package enum Reply: Sendable {
        /// These bytes, then the end.
        case bytes(String)
        /// These bytes, then nothing for as long as the client stays.
        case hang(String)

        package static func ok(_ body: String) -> Reply {
            .bytes("HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        }

        package static func status(_ status: String, _ body: String) -> Reply {
            .bytes("HTTP/1.1 \(status)\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        }
    }

    /// Answers one connection after the other; none after the last reply.
    package convenience init(_ replies: Reply...) throws {
        let rest = Mutex(replies)
        // A test that asks less often than it said must not leave the thread waiting.
        try self.init(count: replies.count, patience: 10_000) { _ in
            rest.withLock { $0.removeFirst() }
        }
    }

    /// Answers every request until `stop`.
    package convenience init(answer: @escaping @Sendable (Request) -> Reply) throws {
        try self.init(count: .max, patience: 300_000, answer)
    }

    private init(
        count: Int, patience: Int32, _ answer: @escaping @Sendable (Request) -> Reply
    ) throws {
        folder = try TemporaryFolder()
        self.answer = answer
        self.patience = patience
        remaining = Mutex(count)
        listener = try UnixSocket.listen(folder.path + "/daemon.sock")
        // The thread holds the server until its last reply is given.
        if count > 0 { detachThread { self.serve() } }
    }

    /// Ends a server; nobody listens on its socket any more.
    package func stop() {
        remaining.withLock { $0 = 0 }
        shutdown(listener.raw, Int32(SHUT_RDWR))
    }

    private func serve() {
        while remaining.withLock({ $0 }) > 0 {
            var one = pollfd(fd: listener.raw, events: Int16(POLLIN), revents: 0)
            guard poll(&one, 1, patience) > 0, let client = try? UnixSocket.accept(listener.raw),
                let request = read(client.raw)
            else { return }
            asked.withLock { $0.append(request) }
            remaining.withLock { $0 -= 1 }
            switch answer(request) {
            case .bytes(let text): send(client.raw, text)
            case .hang(let text):
                send(client.raw, text)
                while let more = try? client.read(100), !more.isEmpty {}
            }
        }
    }

    private func send(_ fd: Int32, _ text: String) {
        let bytes = Array(text.utf8)
        _ = Glibc.send(fd, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    private func read(_ fd: Int32) -> Request? {
        var text = ""
        while true {
            guard let chunk = try? Linux.read(fd, 65536), !chunk.isEmpty else { return nil }
            text += String(decoding: chunk, as: UTF8.self)
            guard let end = text.range(of: "\r\n\r\n") else { continue }
            let lines = text[..<end.lowerBound].split(separator: "\r\n")
            var fields: [String: String] = [:]
            for line in lines.dropFirst() {
                let parts = line.split(separator: ":", maxSplits: 1)
                fields[parts[0].lowercased()] = parts[1].drop { $0 == " " }.description
            }
            let body = String(text[end.upperBound...])
            guard body.utf8.count >= Int(fields["content-length"] ?? "0") ?? 0 else { continue }
            return Request(line: String(lines[0]), fields: fields, body: body)
        }
    }
}

extension String {
    /// The first place of a piece; bytes of HTTP have no characters of several.
    fileprivate func range(of piece: String) -> Range<String.Index>? {
        ranges(of: piece).first
    }
}
