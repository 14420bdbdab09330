// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Engine

/// Published VMs by the whole program and the real Caddy, in a network of the test's own.
@Suite(
    .timeLimit(.minutes(5)), .enabled(if: PublishHost.isPossible, "publishing needs root and caddy")
)
struct PublishTests {
    @Test func aVMIsReachedUnderItsNames() async throws {
        let host = try await PublishHost()
        let health = ", health: {http: \"http://:80/\", interval: 1s}"
        try host.declare(
            "{host: WWW.lan, tls: internal}, {host: plain.lan, tls: off}", more: health)
        let up = try await host.world.must("up")
        #expect(up.text.contains("published as https://www.lan, http://plain.lan"), "\(up.text)")

        // The guest has not answered yet.
        let early = try await host.visit("http://plain.lan/", "-H 'Accept: text/html,*/*'")
        #expect(early.hasPrefix("HTTP/1.1 503"), "\(early)")
        #expect(early.contains("<h1>plain.lan is not available</h1>"))
        #expect(!early.contains("8080") && !early.contains("127.0.0.1"))
        let plain = try await host.visit("http://plain.lan/")
        #expect(plain.contains("503: plain.lan is not available at the moment."))

        try await host.startService()
        try await host.world.until("the page is there") {
            try await host.visit("https://www.lan/", trusting: host.rootCertificate)
                .contains("200")
        }
        let page = try await host.visit(
            "https://www.lan/a?b", trusting: host.rootCertificate, "-H 'X-Forwarded-For: 6.6.6.6'")
        #expect(page.contains("X-Real-Ip: 127.0.0.1"), "\(page)")
        #expect(page.contains("X-Forwarded-For: 127.0.0.1"))
        #expect(page.contains("X-Forwarded-Proto: https") && page.contains("Host: www.lan"))
        let zipped = try await host.visit(
            "http://plain.lan/",
            "-H 'Accept-Encoding: gzip' -H \"Long: $(seq -s- 300)\" -o /dev/null -D -")
        #expect(zipped.contains("Content-Encoding: gzip"), "\(zipped)")
        let redirected = try await host.visit("http://www.lan/a?b")
        #expect(redirected.hasPrefix("HTTP/1.1 308"))
        #expect(redirected.contains("Location: https://www.lan/a?b"))
        #expect(try await host.visit("http://other.lan/").hasPrefix("HTTP/1.1 404"))
        // Nobody signs for another name.
        #expect(try await host.visit("https://other.lan/", "-k") == "")

        let status = try await host.world.must("status", "web").text
        #expect(status.contains("https://www.lan\n") && status.contains("http://plain.lan\n"))
        #expect(status.contains("certificate by 'Martlet - ECC Intermediate', until "), "\(status)")
        #expect(status.contains("signed by \(host.rootCertificate)"))
        #expect(status.contains("the guest's 127.0.0.1:8080 answers"))

        // Caddy's own authority signs for twelve hours, and again after eight.
        let planned = try await host.world.must("schedule", "list", "--json").standardOutput
        let rows = try JSONValue(parsing: planned).elements
        #expect(rows.count == 1 && rows[0]["work"] == "certificate", "\(rows)")
        #expect(rows[0]["vm"] == "web" && rows[0]["host"] == "www.lan" && rows[0]["ok"] == true)
        #expect(rows[0]["schedule"] == "internal" && rows[0]["next"]?.string != nil)
        let table = try await host.world.must("schedule", "list").text
        #expect(table.contains("www.lan (internal)") && table.contains("holds until"), "\(table)")

        try host.killService()
        try await host.world.until("visitors are told") {
            try await host.visit("https://www.lan/", trusting: host.rootCertificate)
                .contains("503")
        }
        #expect(
            try await host.world.must("status", "web").text
                .contains("the guest's 127.0.0.1:8080 does not answer: Connection refused"))
        try await host.startService()
        try await host.world.until("it comes back by itself") {
            try await host.visit("https://www.lan/", trusting: host.rootCertificate)
                .contains("200")
        }
    }

    @Test func theProxyHasNoRightsAndIsMended() async throws {
        let host = try await PublishHost()
        try host.declare("{host: a.lan, tls: off}")
        try await host.world.must("up")
        let first = try #require(host.proxy)
        let facts = try Files.readText("/proc/\(first)/status")
        #expect(facts.contains("Uid:\t\(Derived.proxy)\t\(Derived.proxy)"))
        #expect(facts.contains("CapEff:\t0000000000000400\nCapBnd:\t0000000000000400"))
        #expect(facts.contains("NoNewPrivs:\t1") && facts.contains("Groups:\t \n"))
        #expect(facts.contains("CapAmb:\t0000000000000400") && facts.contains("Seccomp:\t2"))
        // Of the host's files it sees its own.
        func sees(_ path: String) -> Bool { Files.exists("/proc/\(first)/root\(path)") }
        let run = host.world.layout.run
        for path in [
            "/root", "/home", "/boot", "/sys", "/etc/passwd", "/etc/ssl/private",
            host.world.folder + "/page.py", host.world.layout.root + "/images",
            host.publishing + "/fleets", run + "/web",
        ] {
            #expect(!sees(path), "\(path)")
        }
        for path in [
            "/usr/bin/caddy", "/etc/ssl/certs", run + "/.publishing/caddy.json",
            host.publishing + "/storage", "/proc/sys/net/core/somaxconn",
        ] {
            #expect(sees(path), "\(path)")
        }
        #expect(
            try Files.readLink("/proc/\(first)/root/etc/resolv.conf")
                == run + "/.publishing/resolv.conf")
        #expect(
            try Files.readText(run + "/.publishing/hosts") == Files.readText(host.host.hostsFile))
        let mounts = try Files.readText("/proc/\(first)/mounts").split(separator: "\n")
        let writable = mounts.filter { $0.split(separator: " ")[3].hasPrefix("rw") }
            .map { String($0.split(separator: " ")[1]) }.sorted()
        #expect(
            writable
                == [
                    "/proc", run + "/.publishing/admin", host.publishing + "/logs",
                    host.publishing + "/storage",
                ].sorted(), "\(writable)")
        let admin = host.world.layout.run + "/.publishing/admin"
        #expect(try Files.status(admin).mode == 0o700)
        #expect(try Files.status(admin + "/admin.sock").mode & 0o077 == 0)
        #expect(try await host.world.must("up").text.contains("Nothing to do"))
        #expect(host.proxy == first)

        // A change is loaded by the one that runs, and is what the plan said.
        try host.declare("{host: b.lan, tls: off}")
        let plan = try await host.world.must("plan").text
        #expect(plan.contains("publish") && plan.contains("live") && !plan.contains("restart"))
        #expect(try await host.world.must("up").text.contains("published as http://b.lan"))
        #expect(host.proxy == first)
        #expect(try await host.visit("http://a.lan/").hasPrefix("HTTP/1.1 404"))
        #expect(try await host.visit("http://b.lan/").hasPrefix("HTTP/1.1 503"))
        try host.declare(
            "{host: b.lan, tls: off}", fleet: "publishing: {listen: [\":80\", \":8443\"]}")
        #expect(try await host.world.must("plan").text.contains("publishing.listen"))
        try await host.world.must("up")
        #expect(try await host.world.must("plan").text.contains("Nothing to do"))

        kill(first, SIGKILL)
        try await host.world.until("it is gone") { host.proxy == nil }
        #expect(
            try await host.world.must("status", "web").text.contains("http://b.lan: not served now")
        )
        #expect(try await host.world.must("up").text.contains("published as http://b.lan"))
        #expect(try await host.visit("http://b.lan/").hasPrefix("HTTP/1.1 503"))

        // One that stops is not available; with the fleet go its names.
        try await host.world.must("stop", "web")
        #expect(try await host.visit("http://b.lan/").hasPrefix("HTTP/1.1 503"))
        try await host.world.must("down")
        #expect(host.proxy == nil)
        #expect(!Files.exists(host.world.layout.run + "/.publishing"))
        try await host.world.must("start", "web")
        #expect(try await host.visit("http://b.lan/").hasPrefix("HTTP/1.1 503"))
        try await host.world.must("destroy", "--yes", "web")
        #expect(host.proxy == nil)
    }

    @Test func upgradeAndRollbackSeeToTheProxy() async throws {
        let host = try await PublishHost()
        try host.declare("{host: a.lan, tls: off}")
        try await host.world.must("up")
        try host.declare("{host: b.lan, tls: off}")
        try await host.world.must("up")
        let first = try #require(host.proxy)
        // The generation of before has the name of before; the proxy that runs takes it over.
        try await host.world.must("rollback", "web")
        #expect(host.proxy == first)
        #expect(try await host.visit("http://a.lan/").hasPrefix("HTTP/1.1 503"))
        #expect(try await host.visit("http://b.lan/").hasPrefix("HTTP/1.1 404"))
        #expect(try await host.world.must("status", "web").text.contains("http://a.lan\n"))

        // A name that somebody else has meanwhile stays his.
        let second = "\(host.world.folder)/second.yaml"
        try Files.write(
            second,
            "fleet: second\nvms: {api: {ports: [\"127.0.0.1:8090:80\"], publish: "
                + "[{host: b.lan, tls: off}]}}\n")
        try await host.world.must("up", "-f", second)
        let said = try await host.world.must("rollback", "web", "2")
        #expect(
            said.errorText.contains("b.lan is published by the fleet 'second'"),
            "\(said.errorText)")
        #expect(try await host.visit("http://a.lan/").hasPrefix("HTTP/1.1 404"))

        // One that was killed is there again after an upgrade, too.
        kill(try #require(host.proxy), SIGKILL)
        try await host.world.until("it is gone") { host.proxy == nil }
        try await host.world.must("upgrade", "web")
        #expect(try await host.visit("http://b.lan/").hasPrefix("HTTP/1.1 503"))
    }

    @Test func aVMOnANetworkIsReachedAtItsAddress() async throws {
        let host = try await PublishHost()
        try host.host.declare(
            "networks: {web: {subnet: 10.1.0.0/24}}",
            vms:
                "api: {interfaces: [{network: web}], publish: [{host: api.lan, port: 81, tls: off}]}"
        )
        try await host.world.must("up")
        // There is no guest behind the tap: somebody else has its address.
        try await host.host.sh("ip addr add 10.1.0.2/32 dev lo")
        try host.run(["/usr/bin/python3", "-m", "http.server", "--bind", "10.1.0.2", "81"])
        try await host.world.until("the page is there") {
            try await host.visit("http://api.lan/").hasPrefix("HTTP/1.1 200")
        }
        #expect(
            try await host.world.must("status", "api").text
                .contains("the guest's 10.1.0.2:81 answers"))
    }

    @Test(
        .enabled(
            if: environment("MARTLET_TESTS") == "full", "long: needs MARTLET_TESTS=full"))
    func aRunThatWasKilledIsMendedByTheNext() async throws {
        let host = try await PublishHost()
        try host.declare("{host: n0.lan, tls: off}")
        try await host.world.must("up")
        var steps = 0
        while steps < 40 {
            let (old, new) = ("n\(steps).lan", "n\(steps + 1).lan")
            steps += 1
            // Each time another one is killed, too, so that all is begun anew.
            if steps % 2 == 0, let proxy = host.proxy { kill(proxy, SIGKILL) }
            try host.declare("{host: \(new), tls: off}")
            let killed = try await host.world.martlet("up", killAt: steps)
            try await host.world.must("up")
            #expect(try await host.world.must("up").text.contains("Nothing to do"))
            #expect(try await host.visit("http://\(new)/").hasPrefix("HTTP/1.1 503"), "\(steps)")
            #expect(try await host.visit("http://\(old)/").hasPrefix("HTTP/1.1 404"), "\(steps)")
            if killed.exit == .code(0) { break }
        }
        // The generation, the record, the files, the proxy.
        #expect((5..<40).contains(steps), "\(steps)")
    }

    @Test func whatOthersHaveIsRefusedWithWhoHasIt() async throws {
        let host = try await PublishHost()
        try host.declare("{host: a.lan, tls: off}, {host: shared.lan, tls: off}")
        let other = try host.run(["/usr/bin/python3", "-m", "http.server", "80"])
        try await host.world.until("the other server listens") {
            try await host.answers("http://127.0.0.1:80/")
        }
        let text = try await host.world.mustFail("up", code: 1)
        #expect(text.contains("cannot listen on port 80, which python3"), "\(text)")
        #expect(try await host.world.state("web") == "running" && host.proxy == nil)
        other.signal(SIGKILL)
        _ = try other.waitBlocking()
        try await host.world.must("up")

        let second = "\(host.world.folder)/second.yaml"
        func declare(_ rest: String) throws {
            try Files.write(
                second,
                "fleet: second\n\(rest)\nvms: {api: {ports: [\"127.0.0.1:8090:80\"], publish: "
                    + "[{host: Shared.lan, tls: off}, {host: c.lan, tls: off}]}}\n")
        }
        try declare("publishing: {listen: [\":80\", \":8443\"]}")
        let listens = try await host.world.mustFail("up", "-f", second, code: 1)
        #expect(listens.contains("that of 'test' listens on :80, :443"), "\(listens)")
        try declare("")
        let taken = try await host.world.mustFail("up", "-f", second, code: 1)
        #expect(taken.contains("shared.lan is published by the fleet 'test'"), "\(taken)")
        #expect(try await host.visit("http://c.lan/").hasPrefix("HTTP/1.1 503"))
        // Once the other one is gone, the name is free.
        try await host.world.must("destroy", "--yes", "web")
        let free = try await host.world.must("up", "-f", second).text
        #expect(free.contains("published as http://shared.lan"), "\(free)")
        let late = try await host.world.mustFail("up", code: 1)
        #expect(late.contains("shared.lan is published by the fleet 'second'"), "\(late)")
        #expect(try await host.visit("http://a.lan/").hasPrefix("HTTP/1.1 503"))
    }

    @Test func aCertificateOfOnesOwnIsCheckedAndLoaded() async throws {
        let host = try await PublishHost()
        let folder = host.world.folder
        func make(_ name: String, _ host: String) async throws {
            let output = try await Program(
                "/usr/bin/openssl",
                [
                    "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes",
                    "-days", "9", "-subj", "/CN=\(name)", "-addext", "subjectAltName=DNS:\(host)",
                    "-keyout", "\(folder)/\(name).key", "-out", "\(folder)/\(name).crt",
                ]
            ).capture()
            try #require(output.exit.isSuccess, "\(output.errorText)")
        }
        try await make("one", "*.home.lan")
        try await make("two", "other.lan")
        func tls(_ certificate: String, _ key: String) -> String {
            "tls: {cert: \(folder)/\(certificate).crt, key: \(folder)/\(key).key}"
        }
        let good = "{host: good.lan, tls: off}"
        for (publication, reason) in [
            ("{host: a.home.lan, \(tls("one", "two"))}", "the key is not the one"),
            ("{host: a.home.lan, \(tls("two", "two"))}", "it is not for this name"),
            ("{host: a.home.lan, \(tls("none", "two"))}", "cannot be read: No such file"),
            (
                "{host: a.home.lan, tls: {cert: /etc/hostname, key: /etc/hostname}}",
                "no certificate"
            ),
        ] {
            try host.declare("\(publication), \(good)")
            let text = try await host.world.mustFail("up", code: 1)
            #expect(text.contains("the certificate of a.home.lan: "), "\(text)")
            #expect(text.contains(reason), "\(text)")
            // The others are served all the same.
            #expect(try await host.visit("http://good.lan/").hasPrefix("HTTP/1.1 503"))
        }
        try host.declare("{host: a.home.lan, \(tls("one", "one"))}, \(good)")
        try await host.world.must("up")
        let trust = "\(folder)/one.crt"
        #expect(try await host.visit("https://a.home.lan/", trusting: trust).contains("503"))
        #expect(try await host.world.must("status", "web").text.contains("certificate by 'one'"))
        let copies = "\(host.publishing)/certificates"
        let old = try Files.list(copies)
        for name in old { #expect(try Files.status("\(copies)/\(name)").mode == 0o640) }

        // Somebody renews it: the clock notices.
        try await make("one", "a.home.lan")
        try await host.world.must("schedule", "run")
        #expect(try await host.visit("https://a.home.lan/", trusting: trust).contains("503"))
        #expect(try Files.list(copies).count == 2 && Files.list(copies) != old)
    }
}
