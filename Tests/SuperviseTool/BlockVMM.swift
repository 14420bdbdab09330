// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Hypervisors
import Linux

/// A real QEMU with a made-up guest, for tests of what happens to disks.
///
/// Words such as `qemu boot=0.05 agent freeze` in FAKE_VMM select it (`World("qemu …")`). The process
/// that the supervisor started *becomes* QEMU, with the command line that it was given: its number,
/// its locks, its end and whom it dies with are real, and so are block layer, QMP and migration. There
/// is no kernel: the processor runs a ROM that halts at once, which costs nothing, and QEMU is
/// there within 0.1 s. `stop`, `cont` and every transaction do what they do.
///
/// The guest is a child of it, which dies with it: it stands between supervisor and QEMU on the
/// QMP channel and plays agent, ready port, console and power button as `FakeVMM` does.
/// It writes when a test tells it to, through the disk's *device* (`World.guest(_:)`, on the
/// QMP command `human-monitor-command` with `qemu-io`), so a filter that is put below the device,
/// a bitmap or a backup job sees each write. As in a real guest
/// - a write waits while the file systems are frozen or the CPUs are paused, and is answered then
///   (its client gives up after 30 s, and the write happens all the same),
/// - freezing flushes first, and a write without a flush is not promised to outlive a power cut,
/// - suspended and resumed it goes on: it does not boot, and its agent is there at once,
/// - what `qemu-io` printed is the reply: QEMU itself prints it elsewhere and reports no failure.
/// Not there: virtio queues, RAM that changes, shares and whatever needs a program in the guest.
final class BlockVMM {
    static let word = "guest"
    /// Descriptors of the guest: QEMU's monitor, and what QEMU prints.
    private static let monitor: Int32 = 9
    private static let output: Int32 = 10

    private let disks = (environment("FAKE_DISKS") ?? "").split(separator: ",").map(String.init)
    private var fromSupervisor = LineBuffer(limit: 4 << 20)
    private var fromQEMU = LineBuffer(limit: 4 << 20)
    private var passed: [Int32] = []
    private var replies: [Int64: () -> Void] = [:]
    private var number: Int64 = -1
    /// The numbers of requests whose reply is what QEMU printed.
    private var printing: Set<Int64> = []
    private var waiting: [[UInt8]] = []
    private var isPaused = false
    /// It was suspended, and has not been resumed yet.
    private lazy var isAsleep = (environment("FAKE_VMM") ?? "").contains("incoming")
    private var hasBegun = false
    private var isLeaving = false

    var inputs: [Int32] { [Self.monitor] }

    /// Reads from a descriptor that is ours; false when it is not.
    func take(_ fd: Int32, _ guest: FakeVMM) -> Bool {
        switch fd {
        case guest.channels.qmp:
            guard let (bytes, descriptors) = try? UnixSocket.receive(65536, from: fd),
                !bytes.isEmpty
            else { exit(0) }
            passed += descriptors
            for line in fromSupervisor.append(bytes) { asked(line, guest) }
        case Self.monitor:
            guard let bytes = try? read(fd, 65536), !bytes.isEmpty else { exit(0) }
            for line in fromQEMU.append(bytes) { said(line, guest) }
        default: return false
        }
        return true
    }

    /// One request of the supervisor's.
    private func asked(_ line: [UInt8], _ guest: FakeVMM) {
        let request = try? JSONValue(parsing: line)
        if request?["execute"] == "quit", guest.words["ignore-quit"] != nil { return }
        let command = request?["arguments"]?["command-line"]?.string ?? ""
        if command.hasPrefix("qemu-io"), let id = request?["id"]?.integer {
            printing.insert(id)
            let writes = ["write", "discard", "zero"].contains { command.contains($0) }
            if writes, guest.isFrozen || isPaused { return waiting.append(line) }
        }
        pass(line)
    }

    /// Sends a line on to QEMU, with the descriptors that came with it.
    private func pass(_ line: [UInt8]) {
        var bytes = line + [10]
        if !passed.isEmpty {
            let count = (try? UnixSocket.send(bytes, descriptors: passed, on: Self.monitor)) ?? 0
            bytes.removeFirst(count)
            for fd in passed { close(fd) }
            passed = []
        }
        do { try write(Self.monitor, bytes) } catch { exit(0) }
    }

    /// One line of QEMU's.
    private func said(_ line: [UInt8], _ guest: FakeVMM) {
        let message = try? JSONValue(parsing: line)
        let id = message?["id"]?.integer
        if let id, let then = replies.removeValue(forKey: id) { return then() }
        var forwarded = line
        if let id, printing.remove(id) != nil, let said = message?["return"]?.string {
            let reply: JSONValue = ["return": .string(printed() + said), "id": .integer(id)]
            forwarded = Array(reply.text().utf8)
        }
        if message?["return"] != nil, !hasBegun {
            hasBegun = true
            if guest.words["incoming"] == nil { guest.planAll() }
        }
        let event = message?["event"]?.string
        // No driver opens the agent's port: that is ours to say.
        if event == "VSERPORT_CHANGE" { return }
        // Whoever pulled the plug has said so before.
        if event == "SHUTDOWN", isLeaving { return }
        guest.say(guest.channels.qmp, forwarded + [10])
        switch event {
        case "STOP": isPaused = true
        case "RESUME":
            isPaused = false
            letWrite(guest)
            if isAsleep, guest.words["agent"] != nil { guest.agentPort(open: true) }
            isAsleep = false
        case "POWERDOWN": guest.pressed()
        default: break
        }
    }

    /// What `qemu-io` has printed until now: QEMU's output is not buffered beyond a line.
    private func printed() -> String {
        var one = pollfd(fd: Self.output, events: Int16(POLLIN), revents: 0)
        var all: [UInt8] = []
        while poll(&one, 1, 0) > 0, let bytes = try? read(Self.output, 65536), !bytes.isEmpty {
            all += bytes
        }
        return String(decoding: all, as: UTF8.self)
    }

    /// Does what had to wait, when nothing holds the guest any more.
    func letWrite(_ guest: FakeVMM) {
        guard !guest.isFrozen, !isPaused else { return }
        let lines = waiting
        waiting = []
        for line in lines { pass(line) }
    }

    /// Flushes every disk.
    func flush(then: @escaping () -> Void) {
        guard !disks.isEmpty else { return then() }
        for (index, disk) in disks.enumerated() {
            let command = "qemu-io -d \(Self.device(disk)) flush"
            let isLast = index == disks.count - 1
            send("human-monitor-command", ["command-line": .string(command)]) {
                if isLast { then() }
            }
        }
    }

    func powerOff() {
        isLeaving = true
        send("quit", [:]) {}
    }

    private func send(_ command: String, _ arguments: JSONValue, _ then: @escaping () -> Void) {
        number -= 1
        replies[number] = then
        pass([UInt8](QMP.Command(command, arguments).encoded(id: number).dropLast()))
    }

    /// QEMU's name for the device that a disk is.
    private static func device(_ disk: String) -> String {
        "/machine/peripheral/disk-\(disk)-dev/virtio-backend"
    }
}

// MARK: - Becoming QEMU

extension BlockVMM {
    /// Starts the guest and turns into QEMU.
    static func become(_ words: [String: String]) -> Never {
        do {
            let channels = Channels()
            let given = Array(CommandLine.arguments.dropFirst())
            let (monitor, ours) = try UnixSocket.pair()
            let (reader, writer) = try Pipe().split()
            var guest = Program("/proc/self/exe", [word])
            guest.name = CommandLine.arguments[0]
            guest.descriptors = [
                2: 2, channels.console: channels.console, channels.qmp: channels.qmp,
                channels.agent: channels.agent, channels.ready: channels.ready,
                Self.monitor: ours, output: reader,
            ]
            guest.dieWithParent = SIGKILL
            var words = words
            if given.contains("-incoming") { words["incoming"] = "" }
            let text = words.map { $1.isEmpty ? $0 : "\($0)=\($1)" }.joined(separator: " ")
            guest.environment = ["FAKE_VMM=\(text)", "FAKE_DISKS=\(disks(given))"]
            _ = try guest.spawn()
            for fd in [channels.console, channels.agent, channels.ready] {
                try check("fcntl") { fcntl(fd, F_SETFD, FD_CLOEXEC) }
            }
            try check("dup2") { dup2(monitor, channels.qmp) }
            try check("dup2") { dup2(writer, 1) }
            let rom = try makeROM(beside: given)
            // Its output is a pipe, and a line must be there when the command is answered.
            let line =
                ["stdbuf", "-oL", QEMU.program] + commandLine(given, channels)
                + ["-bios", "/proc/self/fd/\(rom)"]
            let arguments = line.map { strdup($0) } + [nil]
            try check("execv") { execv("/usr/bin/stdbuf", arguments) }
        } catch {
            try? write(2, Array("qemu-system-x86_64: \(error)\n".utf8))
        }
        exit(1)
    }

    static func tellVersion() -> Never {
        let words = ["env", QEMU.program, "--version"]
        execv("/usr/bin/env", words.map { strdup($0) } + [nil])
        exit(1)
    }

    /// 64 KiB whose last 16 bytes, where a processor begins, halt it for ever.
    private static func makeROM(beside given: [String]) throws(SystemError) -> Int32 {
        // A confined hypervisor can write where its disks are, and nowhere else.
        let name = "file.filename="
        let files = given.compactMap { word in
            word.firstRange(of: name).map { word[$0.upperBound...].prefix { $0 != "," } }
        }
        let disk = files.first { $0.contains("/disks/") } ?? "/tmp/"
        var template = Array("\(Files.parent(String(disk)))/rom-XXXXXX".utf8CString)
        let file = Descriptor(owning: try check("mkstemp") { mkstemp(&template) })
        unlink(template)
        // hlt; jmp -3
        try file.write([UInt8](repeating: 0, count: 65520) + [0xF4, 0xEB, 0xFD])
        try file.write([UInt8](repeating: 0, count: 13))
        // Beyond the descriptors of taps; inherited.
        return try check("fcntl") { fcntl(file.raw, F_DUPFD, 200) }
    }

    /// The command line without what a guest would need.
    private static func commandLine(_ given: [String], _ channels: Channels) -> [String] {
        var line: [String] = []
        var index = 0
        while index < given.count {
            let word = given[index]
            let value = index + 1 < given.count ? given[index + 1] : ""
            if ["-kernel", "-initrd", "-append"].contains(word) {
                index += 2
                continue
            }
            line.append(word)
            index += 1
            guard word == "-chardev" else { continue }
            for (id, fd) in [
                ("console", channels.console), ("agent", channels.agent), ("ready", channels.ready),
            ] where value == "socket,id=\(id),fd=\(fd)" {
                line.append("null,id=\(id)")
                index += 1
            }
        }
        return line
    }

    /// The names of the disks, from `id=disk-NAME-dev`.
    private static func disks(_ given: [String]) -> String {
        given.flatMap { $0.split(separator: ",") }
            .filter { $0.hasPrefix("id=disk-") && $0.hasSuffix("-dev") }
            .map { $0.dropFirst(8).dropLast(4) }.joined(separator: ",")
    }
}
