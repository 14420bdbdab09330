// SPDX-License-Identifier: Apache-2.0
import Glibc
import Hypervisors
import Linux

/// One process of the hypervisor with the channels it inherited.
final class Machine {
    let child: Child
    let started: Double
    let console: Stream
    let qmp: Stream
    let agent: Stream
    let ready: Stream
    let shares: [ShareLink]
    private let errors: Stream
    private let reactor: Reactor
    /// The last lines of the hypervisor's standard error.
    private(set) var errorLines: [String] = []
    var onError: ((String) -> Void)?
    private var lines = LineBuffer(limit: 4096)

    /// Starts the hypervisor; it holds `lock` as we do, and dies with this thread.
    ///
    /// `taps`, with the block devices after them, stay ours as well: a hypervisor that is started
    /// again gets the same ones.
    init(
        _ spec: SuperviseSpec, _ hypervisor: any Hypervisor, lock: borrowing FileLock,
        taps: [Int32], resuming: Bool, _ reactor: Reactor
    ) throws {
        let channels = Channels(
            taps: spec.launch.tapCount, devices: spec.launch.deviceCount,
            shares: spec.launch.shares.count)
        let line = try hypervisor.commandLine(spec.launch, channels)
        var program = Program(spec.hypervisor, line + (resuming ? hypervisor.waitForMemory : []))
        program.environment = spec.environment
        program.dieWithParent = SIGKILL
        program.folder = "/"
        // A process group of its own: Ctrl-C in the supervisor's terminal is not for the guest.
        program.newSession = true

        // The hypervisor removes the socket file when it ends, so each start makes a new one.
        let ssh = try UnixSocket.listen(spec.paths.ssh)
        var theirs: [Int32] = []
        defer { for fd in theirs { close(fd) } }
        func channel(_ target: Int32, limit: Int) throws(SystemError) -> Stream {
            let (ours, end) = try UnixSocket.pair()
            theirs.append(end)
            program.descriptors[target] = end
            return try Stream(Descriptor(owning: ours), reactor, limit: limit)
        }
        errors = try channel(2, limit: 0)
        console = try channel(channels.console, limit: 64 << 10)
        qmp = try channel(channels.qmp, limit: 1 << 20)
        agent = try channel(channels.agent, limit: 4 << 20)
        ready = try channel(channels.ready, limit: 4096)
        program.descriptors[channels.ssh] = ssh.raw
        program.descriptors[channels.lock] = lock.raw
        for (target, tap) in zip(channels.taps + channels.devices, taps) {
            program.descriptors[target] = tap
        }
        shares = try spec.launch.shares.map { try ShareLink($0, reactor) }
        for (target, share) in zip(channels.shares, shares) {
            program.descriptors[target] = share.fd
        }
        self.reactor = reactor
        started = Reactor.now
        child = try program.spawn()
        errors.onBytes { [unowned self] bytes in
            if bytes.isEmpty { errors.close() } else { takeErrors(bytes) }
        }
    }

    private func takeErrors(_ bytes: [UInt8]) {
        for line in lines.append(bytes) {
            let text = String(decoding: line, as: UTF8.self)
            errorLines = errorLines.suffix(9) + [text]
            onError?(text)
        }
    }

    /// Takes in what a process that has ended left behind, and lets go of its channels.
    func finish() throws(SystemError) -> Exit {
        while let bytes = errors.take(), !bytes.isEmpty { takeErrors(bytes) }
        reactor.forget(child.pidfd)
        return try child.reap()
    }

    /// The hypervisor's words in a sentence for people, where we know a better one.
    static func explain(_ lines: [String], _ spec: LaunchSpec) -> String? {
        let prefix = "qemu-system-x86_64: "
        guard let line = lines.last(where: { $0.hasPrefix(prefix) }) ?? lines.last else {
            return nil
        }
        let text = line.hasPrefix(prefix) ? String(line.dropFirst(prefix.count)) : line
        let rule = "Could not set up host forwarding rule '"
        guard let start = text.firstRange(of: rule) else { return "QEMU says: \(text)" }
        // tcp:127.0.0.1:2201-:22
        let forward = text[start.upperBound...].prefix { $0 != "'" }
        let parts = forward.split(separator: ":", maxSplits: 2)
        guard parts.count == 3 else { return "QEMU says: \(text)" }
        let port = parts[2].prefix { $0 != "-" }
        return "port \(parts[1]):\(port)/\(parts[0]) of the host cannot be opened: another "
            + "program has it, or it is below 1024 and needs privilege; "
            + "choose another one under `ports`"
    }
}
