// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Testing

@testable import Supervisor

/// What becomes of a guest that runs and does not work: the reducer alone.
@Suite struct UnhealthyStories {
    private func running(_ change: (inout SuperviseSpec) -> Void = { _ in }) -> LifecycleTests.Story
    {
        var story = LifecycleTests.Story(change)
        story.boot()
        return story
    }

    private let ill = Lifecycle.Event.unhealthy("port 80: refused (for 20 s)", agent: true)

    @Test func itIsShutDownAndStartsAgainAfterAPause() {
        var story = running()
        story.tell(ill)
        #expect(story.announced == [.restarting])
        #expect(story.effects.contains(.agentShutdown))
        #expect(story.life.state == .stopping)
        #expect(story.life.reason == "it is unhealthy: port 80: refused (for 20 s)")
        // Meanwhile the checks go on failing.
        story.tell(ill)
        #expect(story.effects == [])
        story.tell(.ended(.code(0), detail: nil))
        #expect(story.effects.contains(.arm(.relaunch, seconds: 1)))
        #expect(story.life.state == .starting && story.life.restarts == 1)
        story.tell(.timer(.relaunch))
        #expect(story.effects == [.launch])
        story.tell(.launched, .accepted, .booted)
        #expect(story.life.reason == nil)
    }

    @Test func oneThatDoesNotObeyIsEnded() {
        var story = running()
        story.tell(.unhealthy("x", agent: false))
        #expect(story.effects.contains(.pressButton))
        story.tell(.timer(.grace))
        #expect(story.effects.contains(.quit))
        story.tell(.timer(.quit))
        #expect(story.effects == [.kill])
        story.tell(.ended(.signal(9), detail: nil))
        #expect(story.life.state == .starting)
    }

    @Test func thePolicyNoLeavesItAlone() {
        var story = running { $0.restart.policy = .no }
        story.tell(ill)
        #expect(story.effects == [] && story.life.state == .running)
    }

    /// Hours may lie between: a check that takes long to fail must not restart its guest for ever.
    @Test func itIsGivenUpHoweverLongItTakes() {
        var story = running { $0.restart.limit = 2 }
        for round in 1...2 {
            story.now += 3600
            story.tell(ill, .ended(.code(0), detail: nil))
            #expect(story.effects.contains(.arm(.relaunch, seconds: round == 1 ? 1 : 2)))
            story.tell(.timer(.relaunch), .launched, .accepted, .booted)
        }
        story.now += 3600
        story.tell(ill)
        #expect(story.announced == [.stopping])
        story.tell(.ended(.code(0), detail: nil))
        let why =
            "it was unhealthy 3 times and never well for 600 s in between, last: port 80: refused "
            + "(for 20 s)"
        #expect(story.left == .leave(.unhealthy, reason: why, method: .agent))
        #expect(story.life.state == .failed)
    }

    @Test func havingBeenWellForLongIsForgiven() {
        var story = running { $0.restart.limit = 1 }
        for _ in 0..<3 {
            story.tell(.healthy)
            story.now += 600
            story.tell(.healthy, ill, .ended(.code(0), detail: nil))
            #expect(story.life.state == .starting)
            story.tell(.timer(.relaunch), .launched, .accepted, .booted)
        }
        // Well for a moment, and well before the restart: neither is long.
        story.tell(.healthy)
        story.now += 300
        story.tell(ill)
        #expect(story.announced == [.stopping])
    }

    @Test func whoStopsItGetsAStop() {
        var story = running()
        story.tell(ill, .stop(grace: nil, agent: true), .ended(.code(0), detail: nil))
        #expect(story.left == .leave(.stopped, reason: nil, method: .agent))
        story = running()
        story.tell(ill, .kill, .ended(.signal(9), detail: nil))
        #expect(story.left == .leave(.stopped, reason: nil, method: .kill))
        // In the pause before the next start as well.
        story = running()
        story.tell(ill, .ended(.code(0), detail: nil), .stop(grace: nil, agent: false))
        #expect(story.left == .leave(.stopped, reason: nil, method: nil))
    }

    @Test func whoRestartsItGetsARestartWithAFreshTally() {
        var story = running { $0.restart.limit = 1 }
        story.tell(ill, .ended(.code(0), detail: nil), .timer(.relaunch))
        story.tell(.launched, .accepted, .booted, ill)
        #expect(story.announced == [.stopping])
        story.tell(.restart(grace: nil, agent: true), .ended(.code(0), detail: nil))
        #expect(story.effects.last == .launch)
        story.tell(.launched, .accepted, .booted, ill)
        #expect(story.announced == [.restarting])
    }

    @Test func onlyOneThatRunsIsIll() {
        var story = LifecycleTests.Story()
        story.tell(.begin, .launched, .accepted, ill)
        #expect(story.effects == [] && story.life.state == .starting)
        story.tell(.booted, .pause, .hypervisorPaused(reason: nil), ill)
        #expect(story.effects == [] && story.life.state == .paused)
    }
}

/// What is told of a guest that is unhealthy.
@Suite struct ComplaintTests {
    @Test func itNamesTheCheckTheAnswerAndHowLong() {
        var tracker = HealthTracker([HealthTrackerTests.http, HealthTrackerTests.http])
        tracker.record(1, failure: nil, secondsSinceStart: 1, at: 40)
        for second in 0..<5 {
            tracker.record(
                0, failure: "http port 80 /: 50\(second)", secondsSinceStart: 90,
                at: 100 + 10 * Double(second))
        }
        #expect(tracker.complaint(at: 140) == "http port 80 /: 504 (for 40 s)")
        tracker.record(0, failure: nil, secondsSinceStart: 90, at: 150)
        for _ in 0..<3 {
            tracker.record(0, failure: "late", secondsSinceStart: 90, at: 200)
        }
        #expect(tracker.complaint(at: 202) == "late (for 2 s)")
    }

    @Test func theLastLinesAreFewShortAndPlain() {
        var last = LastLines()
        for number in 0..<50 { last.append([UInt8]("line \(number)".utf8)) }
        #expect(last.lines == (30..<50).map { "line \($0)" })
        last = LastLines()
        last.append([UInt8]("\u{1B}[0;1;31mFailed\u{1B}[0m \tto start\u{7}\r".utf8))
        last.append([UInt8]("\r".utf8))
        last.append([UInt8]("\u{1B}[2J".utf8))
        last.append([UInt8](String(repeating: "ä", count: 5000).utf8))
        last.append([0xFF, 0xFE])
        #expect(last.lines.prefix(1) == ["Failed  to start"])
        #expect(last.lines.count == 3)
        #expect(last.lines.allSatisfy { $0.count <= LastLines.longest })
    }
}

/// The same over a supervisor's process, with a hypervisor that behaves as told.
@Suite(.timeLimit(.minutes(20))) struct UnhealthyTests {
    @Test func itIsRestartedAndThenFailsWithItsLastWords() async throws {
        // The agent answers the check and the question for the journal alike.
        let words = "V2ViIHNlcnZlcgpzYXlzOiBubyBzcGFjZQo="
        let rig = try Rig("boot agent exec=1 out=\(words)")
        rig.spec.health = [.init(.exec(command: "x"))]
        rig.spec.health[0].interval = 0.02
        rig.spec.health[0].startup = 0
        rig.spec.restart.limit = 1
        try await rig.start()
        try await rig.untilGone()
        let exit = try #require(rig.exit)
        #expect(exit.ending == .unhealthy && exit.restarts == 1)
        let why = try #require(exit.reason)
        #expect(
            why.hasPrefix(
                "it was unhealthy 2 times and never well for 600 s in between, last: "
                    + "exec 'x': says: no space (for "), "\(why)")
        #expect(exit.lastLines == ["Web server", "says: no space"])
        let seen = await rig.observe()
        #expect(seen.state == .failed && seen.reason == why)
        #expect(rig.log.contains("restarting: it is unhealthy: exec 'x': says: no space"))
    }

    @Test func itComesBackWhenTheRestartHelps() async throws {
        let rig = try Rig("boot agent exec=1;boot agent exec=0")
        rig.spec.health = [.init(.exec(command: "x"))]
        rig.spec.health[0].interval = 0.02
        rig.spec.health[0].startup = 0
        try await rig.start()
        try await rig.until("it is well") { try await rig.control.status().health == .healthy }
        let status = try await rig.control.status()
        #expect(status.state == .running && status.restarts == 1 && status.reason == nil)
        _ = try await rig.control.stop()
        try await rig.untilGone()
        #expect(rig.exit?.ending == .stopped && rig.exit?.lastLines == nil)
    }

    @Test func aSilentAgentDoesNotHoldTheRestartUp() async throws {
        let rig = try Rig("boot agent=silent;boot agent exec=0")
        rig.spec.health = [.init(.tcp(port: 80))]
        rig.spec.health[0].interval = 0.02
        rig.spec.health[0].timeout = 0.1
        rig.spec.health[0].startup = 0
        rig.spec.health[0].retries = 1
        rig.spec.boot.deadline = 300
        try await rig.start()
        try await rig.until("it is well") {
            (try? await rig.control.status().health) == .healthy
        }
        #expect(rig.log.contains("restarting: it is unhealthy: port 80: "), "\(rig.log)")
        _ = try await rig.control.stop()
    }

    @Test func aCrashHasTheEndOfTheConsole() async throws {
        let rig = try Rig("boot panic=0.1 because=No_working_init")
        rig.spec.restart.policy = .no
        // On a busy machine it has crashed before the start is reported, which then says so.
        try? await rig.start()
        try await rig.untilGone()
        #expect(rig.exit?.ending == .crashed)
        let lines = try #require(rig.exit?.lastLines)
        #expect(lines.first == "booted", "\(lines)")
        #expect(lines.last == "[    1.0] Kernel panic - not syncing: No working init")
    }
}

/// Pages over TLS and of other hosts: the very script that a guest runs, against servers on loopback.
@Suite(.timeLimit(.minutes(5)), .serialized) struct PageProbeTests {
    typealias Page = SuperviseSpec.HealthCheck.Page

    /// Servers with a certificate for `localhost`, and one without TLS; they end with this.
    private final class Servers {
        let folder: String
        private var children: [Child] = []
        private(set) var secure = 0
        private(set) var plain = 0

        private static let script = """
            import http.server, ssl, sys, threading
            class Page(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    code = int(self.path[1:4])
                    self.send_response(code)
                    self.end_headers()
                    self.wfile.write((self.headers["Host"] + "\\n").encode())
                def log_message(self, *words): pass
            plain = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
            secure = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(sys.argv[1] + "/own.crt", sys.argv[1] + "/own.key")
            secure.socket = context.wrap_socket(secure.socket, server_side=True)
            threading.Thread(target=plain.serve_forever, daemon=True).start()
            open(sys.argv[1] + "/ports.new", "w").write(
                "%d %d" % (plain.server_port, secure.server_port))
            import os
            os.rename(sys.argv[1] + "/ports.new", sys.argv[1] + "/ports")
            secure.serve_forever()
            """

        init() async throws {
            folder = "/tmp/martlet-pages-\(randomHex(8))"
            try Files.makeFolder(folder)
            let made = try await Program(
                "/usr/bin/openssl",
                [
                    "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-days", "3", "-subj", "/CN=own", "-addext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", folder + "/own.key",
                    "-out", folder + "/own.crt",
                ]
            ).capture()
            try #require(made.exit.isSuccess, "\(made.errorText)")
            try Files.write(folder + "/pages.py", Self.script)
            children.append(
                try Program("/usr/bin/python3", [folder + "/pages.py", folder]).spawn())
            while !Files.exists(folder + "/ports") { try await Task.sleep(for: .milliseconds(20)) }
            let ports = try Files.readText(folder + "/ports").split(separator: " ")
            plain = try #require(Int(ports[0]))
            secure = try #require(Int(ports[1]))
        }

        func end() {
            for child in children {
                child.signal(SIGKILL)
                _ = try? child.waitBlocking()
            }
            try? Files.remove(folder)
        }
    }

    /// Runs a check as the agent would; its last line, after `ok ` when it succeeded.
    private func ask(
        _ page: Page, trusting authority: String? = nil, path: String = "/usr/bin:/bin"
    ) async throws -> String {
        let words = page.command(seconds: "5")
        var program = Program(words[0], Array(words.dropFirst()))
        program.environment = ["PATH=\(path)"] + (authority.map { ["SSL_CERT_FILE=\($0)"] } ?? [])
        let output = try await program.capture()
        let last = output.text.split(separator: "\n").last.map(String.init) ?? ""
        return (output.exit.isSuccess ? "ok " : "") + last
    }

    @Test func whatIsAnsweredAndWhatIsTrusted() async throws {
        let servers = try await Servers()
        defer { servers.end() }
        func page(
            _ secure: Bool, _ host: String? = nil, _ path: String = "/200", verified: Bool = false
        ) -> Page {
            Page(
                isSecure: secure, host: host,
                port: UInt16(secure ? servers.secure : servers.plain), path: path,
                isVerified: verified)
        }
        #expect(try await ask(page(false, "127.0.0.1")) == "ok 200")
        #expect(try await ask(page(false, "localhost", "/302")) == "ok 302")
        #expect(try await ask(page(false, "localhost", "/503")) == "503")
        // A certificate that nobody signed is that of most guests.
        #expect(try await ask(page(true)) == "ok 200")
        #expect(try await ask(page(true, nil, "/404")) == "404")
        #expect(
            try await ask(page(true, "localhost", verified: true))
                == "certificate: self-signed certificate")
        let trusted = servers.folder + "/own.crt"
        #expect(
            try await ask(page(true, "localhost", verified: true), trusting: trusted) == "ok 200")
        #expect(
            try await ask(page(true, "127.0.0.1", verified: true), trusting: trusted) == "ok 200")
        // It is for another name.
        #expect(
            try await ask(page(true, "ip6-localhost", verified: true), trusting: trusted)
                .hasPrefix("ok") == false)
        // Nobody speaks TLS there, nobody is there, and there is no such name.
        var other = page(true)
        other.port = UInt16(servers.plain)
        #expect(try await ask(other) == "wrong version number")
        other.port = 1
        #expect(try await ask(other) == "Connection refused")
        other.isSecure = false
        #expect(try await ask(other) == "Connection refused")
        other.host = "nobody.invalid"
        #expect(try await ask(other).hasPrefix("ok") == false)
        #expect(try await ask(page(true), path: "/nowhere") == "not in the guest")
        // What a path holds is text.
        #expect(try await ask(page(false, "localhost", "/200$(exit)`x`'\"*")) == "ok 200")
    }

    @Test func whatACheckIsCalled() {
        var page = Page(isSecure: true, host: nil, port: 443, path: "/", isVerified: false)
        #expect(page.name == "https port 443 /")
        page.host = "www.example.org"
        #expect(page.name == "https://www.example.org:443/")
        let check = SuperviseSpec.HealthCheck(.page(page))
        #expect(
            HealthTracker.failure(check, code: 1, lastLine: "503")
                == "https://www.example.org:443/: 503")
        page.isVerified = true
        let words = page.command(seconds: "2")
        #expect(words.suffix(3) == ["-verify_return_error", "-verify_hostname", "www.example.org"])
        #expect(words.contains("www.example.org"))
    }
}
