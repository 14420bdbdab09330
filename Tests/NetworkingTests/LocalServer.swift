// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Support
import Synchronization

/// A service on a unix socket that keeps what it is asked and answers what it is told.
final class LocalServer: Sendable {
    struct Request: Equatable {
        let line: String
        let fields: [String: String]
        let body: String
    }

    private let folder: TemporaryFolder
    private let listener: Descriptor
    private let asked = Mutex<[Request]>([])
    private let replies: Mutex<[Reply]>
    var path: String { folder.path + "/daemon.sock" }
    var requests: [Request] { asked.withLock { $0 } }

    enum Reply: Sendable {
        /// These bytes, then the end.
        case bytes(String)
        /// These bytes, then nothing for as long as the client stays.
        case hang(String)

        static func ok(_ body: String) -> Reply {
            .bytes("HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        }

        static func status(_ status: String, _ body: String) -> Reply {
            .bytes("HTTP/1.1 \(status)\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        }
    }

    /// Answers one connection after the other; none after the last reply.
    init(_ replies: Reply...) throws {
        folder = try TemporaryFolder()
        self.replies = Mutex(replies)
        listener = try UnixSocket.listen(folder.path + "/daemon.sock")
        // The thread holds the server until its last reply is given.
        if !replies.isEmpty { detachThread { self.serve() } }
    }

    private func serve() {
        while let reply = replies.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) {
            // A test that asks less often than it said must not leave the thread waiting.
            var one = pollfd(fd: listener.raw, events: Int16(POLLIN), revents: 0)
            guard poll(&one, 1, 10_000) > 0, let client = try? UnixSocket.accept(listener.raw),
                let request = read(client.raw)
            else { return }
            asked.withLock { $0.append(request) }
            switch reply {
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
