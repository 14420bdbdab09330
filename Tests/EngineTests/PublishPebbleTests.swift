// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Linux
import Testing

/// Certificates by ACME from pebble, the test server of Let's Encrypt's makers, with a name server of
/// the test's own: all in a network that nothing leaves.
@Suite(
    .timeLimit(.minutes(5)),
    .enabled(
        if: PublishHost.isPossible && findProgram("pebble") != nil && findProgram("lego") != nil,
        "needs root, caddy, lego and pebble"))
struct PublishPebbleTests {
    /// The name server of example.org: every name is this host, TXT records are those that it is told.
    private static let names = #"""
        import socket, struct, threading
        zone, records = "example.org", {}
        def name(text):
            return b"".join(bytes([len(l)]) + l.encode() for l in text.split(".")) + b"\0"
        soa = name("ns." + zone) + name("me." + zone) + struct.pack(">5I", 1, 60, 60, 60, 1)
        def listen(listener):
            while True:
                client, _ = listener.accept()
                text = b""
                while part := client.recv(4096): text += part
                verb, host, value = text.decode().split()
                if verb == "present": records.setdefault(host, []).append(value)
                else: records.pop(host, None)
                client.sendall(b"ok")
                client.close()
        told = socket.create_server(("127.0.0.1", 5300))
        threading.Thread(target=listen, args=[told], daemon=True).start()
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 53))
        while True:
            query, sender = server.recvfrom(4096)
            at, labels = 12, []
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
                at += 1 + query[at]
            kind, = struct.unpack(">H", query[at + 1 : at + 3])
            host, answers, authority = ".".join(labels), [], []
            if kind == 1: answers = [(1, bytes([127, 0, 0, 1]))]
            elif kind == 16:
                for line in records.get(host, []):
                    answers.append((16, bytes([len(line)]) + line.encode()))
            elif host == zone and kind == 6: answers = [(6, soa)]
            elif host == zone and kind == 2: answers = [(2, name("ns." + zone))]
            if not answers: authority = [(6, soa)]
            reply = query[:2] + struct.pack(">HHHHH", 0x8580, 1, len(answers), len(authority), 0)
            reply += query[12 : at + 5]
            for number, data in answers:
                reply += b"\xc0\x0c" + struct.pack(">HHIH", number, 1, 1, len(data)) + data
            for number, data in authority:
                reply += name(zone) + struct.pack(">HHIH", number, 1, 1, len(data)) + data
            server.sendto(reply, sender)
        """#

    /// What lego calls as the "DNS provider": it sees no file of the host's, and so tells the name server.
    private static let hook = """
        #!/usr/bin/python3
        import os, socket, sys
        verb, name, value = sys.argv[1], sys.argv[2].rstrip(".").lower(), sys.argv[3]
        if os.path.exists(os.environ["HIDDEN"]) or os.listdir("/etc").count("shadow"):
            sys.exit("it sees files of the host")
        sender = socket.create_connection(("127.0.0.1", 5300))
        sender.sendall(f"{verb} {name} {value}".encode())
        sender.shutdown(socket.SHUT_WR)
        sender.recv(2)
        """

    private static let authority = """
        set -e; cd "$1"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=ca \
            -addext basicConstraints=critical,CA:true -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
            -keyout acme.key -out acme.csr
        echo subjectAltName=DNS:localhost >extensions
        openssl x509 -req -in acme.csr -CA ca.pem -CAkey ca.key -days 9 -extfile extensions \
            -out acme.pem
        """

    /// A host with a name server and an ACME server, whose certificates live for so many seconds.
    private static func host(seconds: Int) async throws -> PublishHost {
        let host = try await PublishHost()
        let folder = host.world.folder
        let made = try await Program("/bin/sh", ["-c", authority, "sh", folder]).capture()
        try #require(made.exit.isSuccess, "\(made.errorText)")
        try Files.write(folder + "/names.py", names, mode: 0o644)
        try Files.write(folder + "/hook", hook, mode: 0o755)
        try Files.write(folder + "/resolv.conf", "nameserver 127.0.0.1\n", mode: 0o644)
        let settings: JSONValue = [
            "pebble": [
                "listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
                "certificate": "\(folder)/acme.pem", "privateKey": "\(folder)/acme.key",
                "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "",
                "certificateValidityPeriod": JSONValue(seconds),
            ]
        ]
        try Files.write(folder + "/pebble.json", settings.text())
        host.world.wrapper = [
            "/sbin/ip", "netns", "exec", host.host.name, "/bin/sh", "-ec",
            "mount --bind \"$1\" /etc/resolv.conf; shift; exec \"$@\"", "sh",
            folder + "/resolv.conf",
        ]
        try host.run(["/usr/bin/python3", folder + "/names.py"])
        try host.run([
            "/usr/bin/env", "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0",
            try #require(findProgram("pebble")), "-config", folder + "/pebble.json", "-dnsserver",
            "127.0.0.1:53",
        ])
        try await host.world.until("pebble answers") {
            try await host.answers(
                "https://localhost:14000/dir", "--cacert \(folder)/ca.pem")
        }
        // Whoever signs for visitors is made anew by each pebble.
        try await host.host.sh(
            "curl -s -k https://127.0.0.1:15000/roots/0 >\(folder)/roots.pem")
        return host
    }

    private static func settings(_ host: PublishHost) -> String {
        "publishing: {email: me@example.org, acme: \"https://localhost:14000/dir\", "
            + "ca: \(host.world.folder)/ca.pem}"
    }

    @Test func caddyProvesTheNameByHTTPOrTLS() async throws {
        let host = try await Self.host(seconds: 3600)
        try host.declare("{host: www.example.org}", fleet: Self.settings(host))
        try await host.world.must("up")
        try await host.startService()
        let roots = host.world.folder + "/roots.pem"
        try await host.world.until("the certificate is there") {
            try await host.visit("https://www.example.org/", trusting: roots).contains("200")
        }
        let status = try await host.world.must("status", "web").text
        #expect(status.contains("certificate by 'Pebble Intermediate CA"), "\(status)")
    }

    @Test(
        .enabled(
            if: environment("MARTLET_TESTS") == "full",
            "waits for a certificate to end: needs MARTLET_TESTS=full"))
    func legoProvesTheNameByDNSAndRenewsIt() async throws {
        let host = try await Self.host(seconds: 45)
        let folder = host.world.folder
        try Files.write(folder + "/token", "EXEC_PATH=\(folder)/none\n")
        let fleet = Self.settings(host) + "\nsecrets: {dns: {file: \(folder)/token}}"
        try host.declare(
            "{host: a.example.org, tls: \"dns:exec:dns\"}, {host: b.lan, tls: off}", fleet: fleet)
        // It fails for itself alone, and says why.
        let failed = try await host.world.mustFail("up", code: 1)
        #expect(failed.contains("the certificate of a.example.org: lego: "), "\(failed)")
        #expect(try await host.visit("http://b.lan/").hasPrefix("HTTP/1.1 503"))
        #expect(
            try await host.world.must("status", "web").text
                .contains("no certificate yet"))
        // The clock does not try again at once.
        let again = try await host.world.must("schedule", "run").text
        #expect(!again.contains("lego"), "\(again)")
        let waits = try await host.world.must("schedule", "list").text
        #expect(waits.contains("a.example.org (dns:exec)") && waits.contains("lego: "), "\(waits)")

        let secret = "EXEC_PATH=\(folder)/hook\nHIDDEN=\(folder)/token\nEXEC_POLLING_INTERVAL=1\n"
        try Files.write(folder + "/token", secret)
        try await host.world.must("up")
        try await host.startService()
        let roots = folder + "/roots.pem"
        let first = try await host.visit("https://a.example.org/", trusting: roots)
        #expect(first.contains("200"), "\(first)")
        let copies = host.publishing + "/certificates"
        func certificates() throws -> [String] {
            try Files.list(copies).filter { $0.hasPrefix("a.example.org-") }
        }
        let old = try certificates()
        #expect(old.count == 2)
        #expect(
            try await host.world.must("schedule", "list").text.contains("holds until"))

        // Two thirds of its time pass.
        try await Task.sleep(for: .seconds(31))
        try await host.world.must("schedule", "run")
        let new = try certificates()
        #expect(new.count == 2 && new != old)
        #expect(
            try await host.visit("https://a.example.org/", trusting: roots).contains("200"))
        // Its own user, and nobody else, has the account.
        #expect(try Files.status(host.publishing + "/lego/test").owner == Derived.certifier)
        #expect(try Files.status(host.publishing + "/lego/test").mode == 0o700)
    }
}
