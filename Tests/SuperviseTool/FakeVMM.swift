// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Hypervisors
import Linux

/// A hypervisor without a guest: it speaks QMP, agent, ready port and console on the descriptors
/// of `Channels`, and misbehaves as FAKE_VMM says.
///
/// With the word `qemu` there is a real QEMU in front of it: see `BlockVMM`.
///
/// FAKE_VMM holds words such as `boot=0.1 agent ignore-power`; `;` separates one start from the
/// next (the last one repeats), counted in the file FAKE_COUNT.
final class FakeVMM {
    private(set) var words: [String: String] = [:]
    let channels = Channels()
    private let block: BlockVMM?
    private var timers: [(at: UInt64, run: (FakeVMM) -> Void)] = []
    private var qmp = LineBuffer(limit: 1 << 20)
    private var agent = LineBuffer(limit: 1 << 20)
    private var console = LineBuffer(limit: 1 << 20)
    private var presses = 0
    private var polls = 0
    private(set) var isFrozen = false

    /// `block` is the QEMU that this plays the guest of.
    init(block: BlockVMM? = nil) {
        self.block = block
        let starts = (environment("FAKE_VMM") ?? "").split(
            separator: ";", omittingEmptySubsequences: false)
        let count = countStarts()
        for word in starts[min(count, starts.count - 1)].split(separator: " ") {
            let parts = word.split(separator: "=", maxSplits: 1)
            words[String(parts[0])] = parts.count > 1 ? String(parts[1]) : ""
        }
    }

    func run() {
        if CommandLine.arguments.dropFirst().first == "--version" {
            if words["qemu"] != nil, words["version"] == nil { BlockVMM.tellVersion() }
            say(1, "QEMU emulator version \(words["version"] ?? "7.2")\n")
            exit(0)
        }
        if let text = words["refuse"] {
            say(2, "qemu-system-x86_64: \(text.replacing("_", with: " "))\n")
            exit(1)
        }
        // What the guest does begins when QEMU is there.
        if block != nil { while true { turn() } }
        if words["qemu"] != nil { BlockVMM.become(words) }
        say(channels.qmp, #"{"QMP": {"version": {}, "capabilities": ["oob"]}}"# + "\n")
        if words["garbage"] != nil { speakGarbage() }
        if words["flood"] != nil { flood() }
        planAll()
        while true { turn() }
    }

    /// What the guest is going to do by itself.
    func planAll() {
        plan("boot") { $0.boot() }
        plan("crash") { kill($0.block == nil ? getpid() : getppid(), SIGKILL) }
        plan("panic") {
            let why = $0.words["because"]?.replacing("_", with: " ")
            $0.print("[    1.0] Kernel panic - not syncing: \(why ?? "Attempted to kill init!")")
            $0.shutDown("guest-reset")
        }
        plan("init-error") {
            $0.print("martlet-init: error: no layer0 within 5 s")
            $0.shutDown("guest-shutdown")
        }
        plan("reboot") { $0.shutDown("guest-reset") }
        plan("off") { $0.shutDown("guest-shutdown") }
        plan("hostile") { $0.talkOnEveryWay() }
        plan("io-error") {
            $0.event("BLOCK_IO_ERROR", #"{"node-name": "disk-data", "nospace": true}"#)
            $0.event("STOP", "{}")
        }
    }

    private func turn() {
        let inputs = [channels.qmp, channels.agent, channels.console] + (block?.inputs ?? [])
        var entries = inputs.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        poll(&entries, nfds_t(entries.count), 10)
        for entry in entries where entry.revents != 0 {
            if let block, block.take(entry.fd, self) { continue }
            guard let bytes = try? read(entry.fd, 65536), !bytes.isEmpty else { exit(0) }
            switch entry.fd {
            case channels.qmp: for line in qmp.append(bytes) { answerQMP(line) }
            case channels.agent: for line in agent.append(bytes) { answerAgent(line) }
            default: for line in console.append(bytes) { typed(text(line)) }
            }
        }
        let now = Clock.monotonic()
        let due = timers.filter { $0.at <= now }
        timers.removeAll { $0.at <= now }
        for timer in due { timer.run(self) }
    }

    /// Does something so many seconds after the start, when the word is there.
    private func plan(_ word: String, _ run: @escaping (FakeVMM) -> Void) {
        guard let seconds = words[word].flatMap({ Double($0.isEmpty ? "0" : $0) }) else { return }
        timers.append((Clock.monotonic() + UInt64(seconds * 1e9), run))
    }

    /// What comes in on the console: `boot` boots, anything else is echoed.
    private func typed(_ line: String) {
        if line == "boot" { boot() } else { print("echo " + line) }
    }

    private func boot() {
        print("booted")
        if words["agent"] != nil { agentPort(open: true) }
        say(channels.ready, "ready\n")
        let units = words["units"] ?? "a.service,b.service"
        say(channels.ready, "state degraded \(units.replacing(",", with: " "))\n")
    }

    func agentPort(open: Bool) {
        event("VSERPORT_CHANGE", "{\"open\": \(open), \"id\": \"agent-port\"}")
    }

    private func answerQMP(_ line: [UInt8]) {
        guard let request = try? JSONValue(parsing: line), let id = request["id"]?.integer
        else { return }
        let name = request["execute"]?.string
        if name == "quit", words["ignore-quit"] != nil { return }
        say(channels.qmp, "{\"return\": {}, \"id\": \(id)}\n")
        switch name {
        case "system_powerdown":
            pressed()
        case "quit": shutDown("host-qmp-quit")
        case "stop":
            event("STOP", "{}")
            if words["agent"] == "pausing" { agentPort(open: false) }
        case "cont":
            if words["agent"] == "pausing" { agentPort(open: true) }
            event("RESUME", "{}")
        default: break
        }
    }

    func pressed() {
        presses += 1
        let needed = Int(words["presses"] ?? "1") ?? 1
        if words["ignore-power"] == nil, presses >= needed { shutDown("guest-shutdown") }
    }

    private func answerAgent(_ line: [UInt8]) {
        guard let request = try? JSONValue(parsing: line), words["agent"] != "silent" else {
            return
        }
        let name = request["execute"]?.string ?? ""
        if isFrozen, !name.hasPrefix("guest-fsfreeze"), !name.hasPrefix("guest-sync") {
            say(channels.agent, #"{"error": {"desc": "frozen"}}"# + "\n")
            return
        }
        switch name {
        case "guest-fsfreeze-freeze" where words["freeze"] != nil:
            isFrozen = true
            let answer = { self.say(self.channels.agent, #"{"return": 2}"# + "\n") }
            // A guest writes out what it has before it is still.
            if let block { block.flush(then: answer) } else { answer() }
        case "guest-fsfreeze-thaw" where words["freeze"] != nil:
            isFrozen = false
            print("thawed")
            say(channels.agent, #"{"return": 2}"# + "\n")
            block?.letWrite(self)
        case "guest-sync-delimited":
            let id = request["arguments"]?["id"]?.integer ?? 0
            say(channels.agent, [0xFF] + [UInt8]("{\"return\": \(id)}\n".utf8))
        case "guest-shutdown":
            if words["agent"] == "stubborn" { return }
            shutDown("guest-shutdown")
        case "guest-exec":
            polls = 0
            say(channels.agent, #"{"return": {"pid": 77}}"# + "\n")
        case "guest-exec-status":
            polls += 1
            // The answer is `hello` unless another one is given, after one look in vain.
            let code = words["exec"] ?? "0"
            let text = words["out"] ?? "aGVsbG8K"
            let ended = "\"exited\": true, \"exitcode\": \(code), \"out-data\": \"\(text)\""
            say(channels.agent, "{\"return\": {\(polls > 1 ? ended : "\"exited\": false")}}\n")
        case "guest-set-time":
            print("clock set")
            say(channels.agent, #"{"return": {}}"# + "\n")
        case "guest-ping": say(channels.agent, #"{"return": {}}"# + "\n")
        default:
            say(
                channels.agent,
                #"{"error": {"class": "CommandNotFound", "desc": "no \#(name)"}}"# + "\n")
        }
    }

    private func shutDown(_ reason: String) {
        event("SHUTDOWN", "{\"guest\": true, \"reason\": \"\(reason)\"}")
        guard let block else { exit(0) }
        block.powerOff()
    }

    private func event(_ name: String, _ data: String) {
        say(channels.qmp, "{\"event\": \"\(name)\", \"data\": \(data)}\n")
    }

    func print(_ line: String) { say(channels.console, line + "\r\n") }
    private func text(_ line: [UInt8]) -> String { String(decoding: line, as: UTF8.self) }
    func say(_ fd: Int32, _ text: String) { say(fd, [UInt8](text.utf8)) }
    func say(_ fd: Int32, _ bytes: [UInt8]) {
        do { try write(fd, bytes) } catch { exit(0) }
    }

    private func speakGarbage() {
        let garbage = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ 13) }
        for fd in [channels.qmp, channels.agent, channels.ready, channels.console] {
            say(fd, garbage + [10])
        }
    }

    /// Megabytes on every way that leads to the supervisor, over and over as a guest can have it: words
    /// that mean something, words without an end, and what makes QEMU complain.
    private func talkOnEveryWay() {
        let word = String(repeating: "x", count: 900)
        for round in 0..<3000 {
            print("[    1.0] Kernel panic - not syncing: \(word)")
            print("martlet-init: error: \(word)")
            say(channels.ready, "ready\nstate degraded \(word) \(word)\n")
            say(channels.agent, "{\"return\": \"\(word)\"}\n")
            say(2, "qemu-system-x86_64: virtio: bogus descriptor \(round) \(word)\n")
        }
        for way in [channels.console, channels.ready, channels.agent, 2] {
            for _ in 0..<2000 { say(way, word) }
            say(way, "\n")
        }
        print("said it all")
    }

    private func flood() {
        let line = [UInt8](String(repeating: "flood ", count: 20).utf8) + [10]
        for _ in 0..<40_000 { say(channels.console, line) }
    }
}

/// How often this VM was started before, counting this start.
private func countStarts() -> Int {
    guard let path = environment("FAKE_COUNT") else { return 0 }
    let count = Int((try? Files.readText(path)) ?? "") ?? 0
    try? Files.write(path, "\(count + 1)")
    return count
}
