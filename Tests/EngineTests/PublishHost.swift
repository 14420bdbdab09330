// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Testing

/// A host of its own with a guest's service played by a small server, and visitors by curl.
final class PublishHost {
    static let isPossible = getuid() == 0 && findProgram("caddy") != nil
    let host: NetworkHost
    var world: World { host.world }
    private var server: Child?

    /// A server that answers with the headers that it saw.
    private static let page = """
        import http.server, sys
        class Page(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def do_GET(self):
                text = str(self.headers).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            def log_message(self, *words): pass
        http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
        """

    init() async throws {
        host = try await NetworkHost()
        try Files.write(host.world.folder + "/page.py", Self.page, mode: 0o644)
    }

    /// Declares the VM `web`, whose port 80 is the host's 8080.
    func declare(_ publish: String, fleet: String = "", more: String = "") throws {
        try host.declare(
            fleet,
            vms: "web: {ports: [\"127.0.0.1:8080:80\"], publish: [\(publish)]\(more)}")
    }

    /// Starts a program in the background; it ends with the host.
    @discardableResult
    func run(_ words: [String]) throws -> Child {
        try Program("/sbin/ip", ["netns", "exec", host.name] + words).spawn()
    }

    func startService() async throws {
        server = try run(["/usr/bin/python3", world.folder + "/page.py", "8080"])
        try await world.until("the service answers") {
            try await answers("http://127.0.0.1:8080/")
        }
    }

    /// Whether anybody answers at a URL, whatever he says.
    func answers(_ url: String, _ options: String = "") async throws -> Bool {
        try await host.sh("curl -s -o /dev/null \(options) \(url) && echo yes || true") == "yes\n"
    }

    func killService() throws {
        server?.signal(SIGKILL)
        _ = try server?.waitBlocking()
        server = nil
    }

    var publishing: String { world.layout.root + "/publishing" }
    var rootCertificate: String { publishing + "/storage/pki/authorities/local/root.crt" }

    /// Asks the proxy as a visitor does; what came with status and headers, empty when nothing did.
    func visit(
        _ url: String, trusting: String? = nil, _ options: String = ""
    ) async throws -> String {
        let name = url.split(separator: "/")[1]
        let trust = trusting.map { "--cacert \($0)" } ?? ""
        return try await host.sh(
            "curl -s -i --max-time 10 --resolve \(name):443:127.0.0.1 "
                + "--resolve \(name):80:127.0.0.1 \(trust) \(options) \(url) || true")
    }

    /// The process of the proxy; nil when there is none.
    var proxy: Int32? {
        let file = world.layout.run + "/.publishing/caddy.json"
        return ((try? Files.list("/proc")) ?? []).compactMap { Int32($0) }.first { pid in
            (try? Files.readText("/proc/\(pid)/cmdline"))?.contains("\0\(file)\0") == true
        }
    }
}
