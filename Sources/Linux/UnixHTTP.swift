// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Why a request over a unix socket brought no reply.
package enum HTTPError: Error, Equatable {
    case timeout
    /// What came back is no HTTP, more than we take, or cut short.
    case garbled(String)
    /// ENOENT and ECONNREFUSED: nothing listens on the socket.
    case system(SystemError)
}

/// An HTTP/1.1 client for a local service on a unix socket; one connection per request.
///
/// It blocks its thread, and takes the reply as from a stranger: bounded in length and time.
package struct UnixHTTP: Sendable {
    private let socket: String
    /// What the service wants to be called in `Host`.
    private let host: String
    /// Seconds for the whole exchange.
    private let timeout: Double
    private static let limit = 8 << 20

    package init(socket: String, host: String, timeout: Double) {
        self.socket = socket
        self.host = host
        self.timeout = timeout
    }

    /// Sends one request, with a body of JSON or none, and returns its reply whatever its status.
    package func call(
        _ method: String, _ path: String, body: String? = nil
    ) throws(HTTPError) -> HTTPReply {
        let end = Clock.monotonic() + UInt64(timeout * 1e9)
        let connection = try system { () throws(SystemError) in
            try UnixSocket.connect(socket, timeout: timeout)
        }
        try system { () throws(SystemError) in try connection.setNonBlocking() }
        var head = "\(method) \(path) HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n"
        if let body {
            head += "Content-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n"
        }
        try send(connection.raw, Array("\(head)\r\n\(body ?? "")".utf8), before: end)
        return try receive(connection.raw, before: end)
    }

    private func send(_ fd: Int32, _ bytes: [UInt8], before end: UInt64) throws(HTTPError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes {
                Glibc.send(fd, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count >= 0 {
                rest = rest.dropFirst(count)
            } else if errno == EPIPE || errno == ECONNRESET {
                // A server may refuse before it has read all, and has said so.
                return
            } else if errno == EAGAIN {
                try wait(fd, POLLOUT, before: end)
            } else if errno != EINTR {
                throw .system(SystemError("send"))
            }
        }
    }

    private func receive(_ fd: Int32, before end: UInt64) throws(HTTPError) -> HTTPReply {
        var bytes: [UInt8] = []
        while true {
            try wait(fd, POLLIN, before: end)
            let chunk: [UInt8]
            do throws(SystemError) {
                chunk = try Linux.read(fd, 65536)
            } catch {
                if error.code == EAGAIN { continue }
                // The end of a server that did not read our request to its end.
                guard error.code == ECONNRESET else { throw .system(error) }
                chunk = []
            }
            bytes += chunk
            if let reply = try HTTPReply(parsing: bytes, isWhole: chunk.isEmpty) { return reply }
            if bytes.count > UnixHTTP.limit { throw .garbled("a reply of more than 8 MiB") }
        }
    }

    private func wait(_ fd: Int32, _ events: Int32, before end: UInt64) throws(HTTPError) {
        var one = pollfd(fd: fd, events: Int16(events), revents: 0)
        while true {
            let now = Clock.monotonic()
            if now >= end { throw .timeout }
            if poll(&one, 1, Int32(min((end - now) / 1_000_000 + 1, 3_600_000))) > 0 { return }
        }
    }

    private func system<R: ~Copyable>(
        _ body: () throws(SystemError) -> R
    ) throws(HTTPError) -> R {
        do {
            return try body()
        } catch {
            // The time that the socket was given for connecting is over.
            throw error.code == EAGAIN ? .timeout : .system(error)
        }
    }
}

/// What a server answered.
package struct HTTPReply: Equatable {
    package let status: Int
    package let body: [UInt8]

    package var text: String { String(decoding: body, as: UTF8.self) }

    /// Reads what has come so far: nil when more must come, an error when it never will.
    ///
    /// `isWhole` says that the server has hung up.
    package init?(parsing bytes: [UInt8], isWhole: Bool) throws(HTTPError) {
        var rest = bytes[...]
        while true {
            guard let head = try Head(taking: &rest) else {
                if isWhole || rest.count > 65536 { throw .garbled("no header") }
                return nil
            }
            // An interim answer: the one that counts follows it.
            if (100..<200).contains(head.status) { continue }
            guard let body = try head.body(rest, isWhole: isWhole) else {
                if isWhole { throw .garbled("it ends in the middle") }
                return nil
            }
            (status, self.body) = (head.status, body)
            return
        }
    }
}

/// The status line and those fields of a reply's header that say where its body ends.
private struct Head {
    var status = 0
    var length: Int?
    var isChunked = false

    init?(taking bytes: inout ArraySlice<UInt8>) throws(HTTPError) {
        var rest = bytes
        guard let first = Head.line(&rest) else { return nil }
        let words = first.split(separator: " ", maxSplits: 2)
        guard words.count >= 2, words[0].hasPrefix("HTTP/1."), words[1].utf8.count == 3,
            let status = Int(words[1]), (100...999).contains(status)
        else { throw .garbled("'\(first.prefix(40))'") }
        self.status = status
        while let line = Head.line(&rest) {
            if line.isEmpty {
                bytes = rest
                return
            }
            let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2 else { throw .garbled("header '\(line.prefix(40))'") }
            try take(parts[0].lowercased(), parts[1].filter { $0 != " " && $0 != "\t" })
        }
        return nil
    }

    private mutating func take(_ name: String, _ value: String) throws(HTTPError) {
        if name == "content-length" {
            guard let number = Head.number(value, radix: 10), length ?? number == number else {
                throw .garbled("a length of '\(value.prefix(40))'")
            }
            length = number
        } else if name == "transfer-encoding" {
            guard value.lowercased() == "chunked" else { throw .garbled("encoding \(value)") }
            isChunked = true
        }
    }

    /// The body that follows; nil while it is not whole.
    func body(_ bytes: ArraySlice<UInt8>, isWhole: Bool) throws(HTTPError) -> [UInt8]? {
        if status == 204 || status == 304 { return [] }
        // Chunks win over a length, as RFC 9112 has it.
        if isChunked { return try Head.unchunked(bytes) }
        guard let length else { return isWhole ? Array(bytes) : nil }
        return bytes.count < length ? nil : Array(bytes.prefix(length))
    }

    private static func unchunked(_ bytes: ArraySlice<UInt8>) throws(HTTPError) -> [UInt8]? {
        var rest = bytes
        var body: [UInt8] = []
        while let line = line(&rest) {
            let digits = line.prefix { $0 != ";" && $0 != " " }
            guard let size = number(digits, radix: 16) else {
                throw .garbled("a chunk of '\(line.prefix(40))'")
            }
            if size == 0 {
                // Fields may follow; an empty line ends them.
                while let field = Self.line(&rest) { if field.isEmpty { return body } }
                return nil
            }
            guard rest.count >= size + 2 else { return nil }
            body += rest.prefix(size)
            rest = rest.dropFirst(size)
            guard rest.starts(with: [13, 10]) else { throw .garbled("a chunk without an end") }
            rest = rest.dropFirst(2)
        }
        return nil
    }

    /// At most eight digits, so that no sum overflows.
    private static func number(_ text: some StringProtocol, radix: Int) -> Int? {
        guard (1...8).contains(text.utf8.count), text.allSatisfy(\.isHexDigit) else { return nil }
        return Int(text, radix: radix)
    }

    /// Takes a line off the front, without its end; nil when no end has come yet.
    private static func line(_ bytes: inout ArraySlice<UInt8>) -> String? {
        guard let end = bytes.firstIndex(of: 10) else { return nil }
        var line = bytes[..<end]
        if line.last == 13 { line.removeLast() }
        bytes = bytes[(end + 1)...]
        return String(decoding: line, as: UTF8.self)
    }
}
