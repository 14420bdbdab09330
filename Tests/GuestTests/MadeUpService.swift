// SPDX-License-Identifier: Apache-2.0
import Linux
import Support
import Testing

/// A service of one's own that keeps words, made as those that ship an archive of their program: a
/// top folder, an updater that has no place in an image, settings and a key by variables, a page.
struct MadeUpService {
    let server: WebServer
    /// Stands in what the image leaves out: no earlier run may have fetched the same archive.
    private let mark = UInt64.random(in: 0...UInt64.max)

    init() throws { server = try WebServer() }

    /// Packs the archive, and serves it; the same version has the same bytes.
    ///
    /// `script` is run beside the folder that is packed, and `options` go to tar.
    func pack(_ version: String, options: String = "", script: String = "") async throws -> [UInt8]
    {
        let folder = try TemporaryFolder()
        let top = folder.path + "/Shelf"
        try Files.makeFolder(top + "/Shelf.Update")
        try Files.write(top + "/Shelf", Self.program, mode: 0o755)
        try Files.write(top + "/version", version + "\n", mode: 0o644)
        try Files.write(top + "/Shelf.Update/Shelf.Update", "of the updater \(mark)\n", mode: 0o644)
        let pack = """
            cd "$0"; \(script)
            tar --sort=name --mtime=@0 --owner=1001 --group=1001 \(options) -cf - Shelf | gzip -n
            """
        let output = try await Program("/bin/sh", ["-euc", pack, folder.path]).capture()
        try #require(output.exit.isSuccess, "\(output.errorText)")
        serve(version, output.standardOutput)
        return output.standardOutput
    }

    func serve(_ version: String, _ bytes: [UInt8]) { server.put("shelf-\(version).tar.gz", bytes) }

    /// The entry of a version whose archive has this digest.
    func entry(_ version: String, _ digest: String) -> String {
        """
        name: Shelf
        category: tools
        summary: Keeps words
        version: "\(version)"
        links: { home: "https://shelf.example.org" }
        license: MIT
        tested: { how: read, date: 2026-12-01, note: Its test tries it. }
        provenance: [its test]
        image:
          sources:
            - archive: "\(server.url("shelf-\(version).tar.gz"))"
              sha256: \(digest)
              strip: 1
              to: /opt/shelf
              remove: [Shelf.Update]
        user: { name: shelf }
        state: [/var/lib/shelf]
        web: 8080
        vm:
          memory: 256MiB
          firewall: { tcp: [8080] }
          health: { http: "http://:8080/ping", interval: 30s, timeout: 5s, startup: 2m }
        secrets:
          api-key: { generate: hex32, env: SHELF__AUTH__APIKEY, help: What others talk to it with. }
        env:
          SHELF__SERVER__PORT: "8080"
        units:
          - name: shelf
            exec: /opt/shelf/Shelf -nobrowser -data=/var/lib/shelf
            sandbox: strict
        firstRun: Ask it for /api.
        """
    }

    static let health = "http: \"http://:8080/ping\""

    /// `/ping` needs no key; `/api` shows the version and the words, and takes one by `add=WORD`.
    private static let program = #"""
        #!/usr/bin/perl
        use strict;
        use IO::Socket::INET;
        my ($data) = map { /^-data=(.*)/ ? $1 : () } @ARGV;
        my $key = $ENV{SHELF__AUTH__APIKEY} or die "no key";
        my $server = IO::Socket::INET->new(
            Listen => 8, ReuseAddr => 1, LocalPort => $ENV{SHELF__SERVER__PORT}) or die "$!";
        sub content { open(my $file, '<', $_[0]) or return ''; local $/; return <$file> }
        while (my $client = $server->accept) {
            my $request = <$client> // '';
            while (defined(my $line = <$client>)) { last if $line !~ /\S/ }
            my ($status, $body) = ('404 Not Found', '');
            if ($request =~ m{^GET /ping }) {
                ($status, $body) = ('200 OK', '{"status":"OK"}');
            } elsif ($request !~ m{[?&]apikey=\Q$key\E[& ]}) {
                $status = '401 Unauthorized';
            } elsif ($request =~ m{^GET /api}) {
                if ($request =~ m{[?&]add=(\w+)}) {
                    open(my $file, '>>', "$data/words") or die "$!";
                    print $file "$1\n";
                    close $file;
                }
                $status = '200 OK';
                $body = 'Shelf ' . content('/opt/shelf/version') . content("$data/words");
            }
            print $client "HTTP/1.0 $status\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
            close $client;
        }

        """#
}
