// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Synchronization

/// A web server of files on 127.0.0.1, which can break off in the middle of one.
package final class WebServer: Sendable {
    private let listener: Descriptor
    private let files: Mutex<[String: [UInt8]]>
    private let asked = Mutex<[String]>([])
    private let limit = Mutex<Int?>(nil)
    package let port: UInt16

    package init(_ files: [String: [UInt8]] = [:]) throws {
        self.files = Mutex(files)
        let socket = try InetSocket.make(for: .loopback4(0), .stream).release()
        listener = Descriptor(owning: socket)
        try InetSocket.bind(socket, .loopback4(0))
        try check("listen") { listen(socket, 16) }
        port = try InetSocket.address(of: socket).port
        detachThread { self.serve() }
    }

    package func url(_ path: String) -> String { "http://127.0.0.1:\(port)/\(path)" }

    package func put(_ path: String, _ content: [UInt8]) {
        files.withLock { $0[path] = content }
    }

    /// What was asked for: the path, and a range where one was wanted.
    package var requests: [String] { asked.withLock { $0 } }

    /// The next answer ends after so many bytes of its content, as when a line breaks.
    package func breakOff(after bytes: Int) { limit.withLock { $0 = bytes } }

    package func stop() { shutdown(listener.raw, Int32(SHUT_RDWR)) }

    private func serve() {
        while let client = try? InetSocket.accept(listener.raw) { answer(client.raw) }
    }

    private func answer(_ client: Int32) {
        var text = ""
        while !text.contains("\r\n\r\n") {
            guard let chunk = try? Linux.read(client, 65536), !chunk.isEmpty else { return }
            text += String(decoding: chunk, as: UTF8.self)
        }
        let lines = text.split(separator: "\r\n")
        let path = String(lines[0].split(separator: " ")[1].dropFirst())
        let range = lines.first { $0.lowercased().hasPrefix("range: bytes=") }
        let start = range.flatMap { Int($0.split(separator: "=")[1].prefix { $0 != "-" }) } ?? 0
        asked.withLock { $0.append(start > 0 ? "\(path) from \(start)" : path) }
        guard let content = files.withLock({ $0[path] }), start <= content.count else {
            return send(client, Array("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".utf8))
        }
        let rest = content[start...]
        var head = "HTTP/1.1 \(start > 0 ? "206 Partial Content" : "200 OK")\r\n"
        if start > 0 {
            head += "Content-Range: bytes \(start)-\(content.count - 1)/\(content.count)\r\n"
        }
        if path.hasSuffix("/") { head += "Content-Type: text/html\r\n" }
        head += "Content-Length: \(rest.count)\r\nConnection: close\r\n\r\n"
        let cut = limit.withLock { limit in
            defer { limit = nil }
            return limit
        }
        send(client, Array(head.utf8) + (cut.map { Array(rest.prefix($0)) } ?? Array(rest)))
    }

    private func send(_ client: Int32, _ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let sent = Array(rest.prefix(1 << 20)).withUnsafeBytes {
                Glibc.send(client, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard sent > 0 else { return }
            rest = rest.dropFirst(sent)
        }
    }
}
