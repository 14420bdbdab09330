// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Publishing

/// The real Caddy in a network of its own, changed while visitors come.
@Suite(
    "Caddy under load", .timeLimit(.minutes(2)), .serialized,
    .enabled(if: getuid() == 0 && findProgram("caddy") != nil, "needs root and caddy"))
struct ReloadTests {
    /// A server, and visitors for as long as there is the file `load`.
    ///
    /// One half of them comes anew each time, the other half stays connected. A connection that was
    /// used before and is closed before a byte of the answer came is opened again, as browsers do.
    private static let visitors = """
        import http.client, http.server, os, sys, threading
        folder = sys.argv[1]
        class Page(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")
            def log_message(self, *words): pass
        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128
            def handle_error(self, *words): pass
        server = Server(("127.0.0.1", 8080), Page)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        open(folder + "/ready", "w").close()
        good, bad = [], []
        def visit(stays):
            connection = None
            while os.path.exists(folder + "/load"):
                isFresh = connection is None
                try:
                    if isFresh: connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=20)
                    connection.request("GET", "/", headers={"Host": "www.lan"})
                    answer = connection.getresponse()
                    text = answer.read()
                    (good if (answer.status, text) == (200, b"ok") else bad).append(answer.status)
                    if not stays or answer.will_close: connection = None
                except (ConnectionError, http.client.RemoteDisconnected) as error:
                    if isFresh: bad.append(repr(error))
                    connection = None
                except Exception as error:
                    bad.append(repr(error))
                    connection = None
        while not os.path.exists(folder + "/load"): pass
        visitors = [threading.Thread(target=visit, args=[n % 2 == 0]) for n in range(6)]
        for one in visitors: one.start()
        for one in visitors: one.join()
        print(len(good), len(bad), *bad[:5])
        """

    @Test("48 reloads under load: no failed request")
    func reloads() async throws {
        var template = Array("/tmp/martlet-reload-XXXXXX".utf8CString)
        let folder = try #require(mkdtemp(&template).map { String(cString: $0) })
        defer { try? Files.remove(folder) }
        try Files.setMode(folder, 0o755)
        try Files.write(folder + "/visitors.py", Self.visitors, mode: 0o644)
        let said = try await inNewNetwork { try Self.drive(folder) }
        let words = said.split(separator: " ")
        #expect(words.count == 2 && words.last == "0\n", "\(said)")
        #expect(words.first.flatMap { Int($0) } ?? 0 > 200, "\(said)")
    }

    private static func drive(_ folder: String) throws -> String {
        let server = CaddyServer(
            lasting: folder + "/root", run: folder + "/run", user: Derived.proxy, name: "test")
        defer { _ = try? server.apply(caddy([], server)) }
        let output = try Descriptor.open(folder + "/said", O_RDWR | O_CREAT)
        var program = Program("/usr/bin/python3", [folder + "/visitors.py", folder])
        program.descriptors = [1: output.raw, 2: output.raw]
        let visitors = try program.spawn()
        defer { visitors.signal(SIGKILL) }
        while !Files.exists(folder + "/ready") { usleep(20_000) }
        #expect(try server.apply(caddy([1], server)) == .started)
        #expect(try server.apply(caddy([1], server)) == .none)
        try Files.write(folder + "/load", "")
        for number in 1...48 {
            #expect(try server.apply(caddy([1, 1 + number], server)) == .loaded)
            usleep(30_000)
        }
        try Files.remove(folder + "/load")
        #expect(try visitors.waitBlocking().isSuccess)
        #expect(try server.apply(caddy([], server)) == .ended)
        #expect(!server.isRunning && !Files.exists(folder + "/run"))
        return try Files.readText(folder + "/said")
    }

    @Test("a log that is full is compressed, and a fresh one begun, behind the filter")
    func fullLog() async throws {
        var template = Array("/tmp/martlet-log-XXXXXX".utf8CString)
        let folder = try #require(mkdtemp(&template).map { String(cString: $0) })
        defer { try? Files.remove(folder) }
        try Files.setMode(folder, 0o755)
        let server = CaddyServer(
            lasting: folder + "/root", run: folder + "/run", user: Derived.proxy, name: "test")
        try server.makeFolders()
        let log = server.logs + "/caddy.log"
        try Files.write(log, String(repeating: "x", count: 5 << 20), mode: 0o600)
        try Files.setOwner(log, user: Derived.proxy, group: Derived.proxy)
        try await inNewNetwork {
            defer { _ = try? server.apply(Self.caddy([], server)) }
            #expect(try server.apply(Self.caddy([1], server)) == .started)
            var found: [String] = []
            // It compresses when it likes, and takes the plain one away after that.
            for _ in 0..<400 {
                found = try Files.list(server.logs).sorted()
                if found.count == 2, found.allSatisfy({ $0 == "caddy.log" || $0.hasSuffix(".gz") })
                {
                    break
                }
                usleep(50_000)
            }
            #expect(found.count == 2 && found.first?.hasSuffix(".log.gz") == true, "\(found)")
            #expect(try Files.status(log).owner == Derived.proxy)
            #expect(try Files.readText(log).contains("\"level\":\"info\""))
        }
    }

    /// `www.lan`, and further sites by number.
    private static func caddy(_ numbers: [Int], _ server: CaddyServer) -> Caddy {
        let upstream = Upstream(IPv4(0x7F00_0001), 8080)
        let sites = numbers.map { number in
            Site(
                host: number == 1 ? "www.lan" : "n\(number).lan", fleet: "test", vm: "web",
                upstream: upstream, security: .off)
        }
        return Caddy(sites, Publishing(), server.folders)
    }
}
