// SPDX-License-Identifier: Apache-2.0
import Glibc
package import Hypervisors
package import Linux

/// The process that owns one running VM.
package final class Supervisor {
    private(set) var spec: SuperviseSpec
    private let hypervisor: any Hypervisor
    let log: Log
    private let lock: FileLock
    private let taps: [Int32]
    let shareChannel: ShareChannel?
    private let notify = Notify()
    private let run: String
    private let report: StartReport
    let reactor: Reactor
    let control: ControlServer
    let console: Console
    private let events: BoundedLog
    var lifecycle: Lifecycle
    var health: HealthTracker
    /// Counts the times that health checks began anew.
    var checkRound = 0
    /// The round in which an unhealthy guest is being asked what it logged.
    var askedWhyIn: Int?
    /// The end of the guest's journal when it was last unhealthy, and that of its console.
    var journal = LastLines()
    var consoleEnd = LastLines()
    var machine: Machine?
    var agent = AgentSession()
    var agentReplies: [Int: (GuestAgent.Reply) -> Void] = [:]
    var qmpReplies: [Int64: (QMP.Message) -> Void] = [:]
    /// Those of them that somebody outside waits for.
    var qmpRequests: Set<Int64> = []
    var qmpNumber: Int64 = 0
    private var qmpLines = LineBuffer(limit: 0)
    /// Counts the programs that the agent was asked to run: each is looked after by its own timer.
    var polls = 0
    var bootedAt: Double?
    var bootSeconds: Double?
    var guestState: String?
    /// When the guest said that its start is over, all of it.
    var settled: Double?
    var failedUnits: [String] = []
    var launchedAt: Int64?
    /// The last line of the console that says why the guest gave up.
    var lastError: String?
    /// Why the hypervisor is about to pause, when it is not us who asked.
    var ioError: String?
    /// The client that holds the guest's file systems still, if one does.
    var hold: Hold?
    /// Where the memory goes, or has gone, of a VM that is being suspended.
    var savedTo: String?
    /// The file of that memory, or of what is loaded, while it is open.
    var memoryFile: Int32?
    /// The guest was away, and its clock is late.
    var clockIsLate = false
    private var exitCode: Int32?

    /// Runs a VM until it is stopped or given up: 0 and 1; 75 when it already runs elsewhere.
    ///
    /// To be called on the main thread, before any task exists: the hypervisor dies with the
    /// *thread* that started it, and a pool's threads end when they are idle. A unit that
    /// restarts a dead supervisor must not restart for 1: the restart policy was applied here.
    package static func run(
        _ spec: SuperviseSpec, hypervisor: any Hypervisor = QEMU(),
        log: Log = Log(limit: Supervisor.logLimit)
    ) -> Int32 {
        let report = StartReport()
        do {
            guard onMainThread() else {
                throw SupervisorError.notMainThread
            }
            forbidCores()
            let signals = try Signals.pipe([SIGTERM, SIGINT])
            Signals.ignoreBrokenPipes()
            signal(SIGHUP, SIG_IGN)
            let inherited = try Inheritance.take()
            let taken = inherited.lock.map { FileLock(owning: $0) }
            guard let lock = try taken ?? FileLock.attempt(spec.paths.lock) else {
                throw SupervisorError.alreadyRunning(spec.name)
            }
            let supervisor = try Supervisor(spec, hypervisor, lock, inherited, report, log)
            return try supervisor.loop(signals)
        } catch {
            log.error("\(spec.name): \(error)")
            report.failed("\(error)")
            if case SupervisorError.alreadyRunning = error { return 75 }
            return 1
        }
    }

    /// No core file of ours or of the hypervisor's: it would hold the guest's secrets.
    ///
    /// The corresponding C function is `setrlimit`.
    private static func forbidCores() {
        var none = rlimit(rlim_cur: 0, rlim_max: 0)
        setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &none)
    }

    private init(
        _ spec: SuperviseSpec, _ hypervisor: any Hypervisor, _ lock: consuming FileLock,
        _ inherited: Inheritance, _ report: StartReport, _ log: Log
    ) throws {
        self.spec = spec
        self.hypervisor = hypervisor
        self.lock = lock
        self.report = report
        self.log = log
        run = "\(spec.bootID)-\(getpid())-\(Clock.monotonic())"
        guard inherited.machine.count >= spec.launch.tapCount + spec.launch.deviceCount else {
            throw SupervisorError.noTaps(spec.name)
        }
        taps = inherited.machine
        reactor = Reactor()
        shareChannel = try ShareChannel(spec.launch, inherited, reactor)
        control = try ControlServer(reactor, socket: spec.paths.control)
        console = try Console(reactor, socket: spec.paths.console, log: spec.paths.consoleLog)
        events = try BoundedLog(spec.paths.eventLog, limit: EventLog.limit)
        lifecycle = Lifecycle(spec, resuming: Supervisor.hasSavedMemory(spec))
        health = HealthTracker(spec.health)
    }

    private func loop(_ signals: Int32) throws -> Int32 {
        reactor.onReadable(signals) { [unowned self] in
            guard let numbers = try? Linux.read(signals, 64), let number = numbers.first else {
                return
            }
            log.info("\(spec.name): asked to stop by signal \(number)")
            handle(.stop(grace: nil, agent: agent.isAlive))
        }
        control.onRequest = { [unowned self] in serve($0, $1) }
        control.onEnd = { [unowned self] in letGo(of: $0) }
        shareChannel?.onEnd = { [unowned self] in handle(.sharesGone(whyNoShares)) }
        console.onLine = { [unowned self] in consoleLine($0) }
        // Before the first launch, so that this run's end is never taken for another's.
        try writeRunRecord()
        handle(.begin)
        // Where /proc is closed to us we hold more memory, and that is all.
        let memory = try? Memory()
        reactor.beforeSleep = { memory?.trim() }
        while exitCode == nil { try reactor.turn() }
        try control.finish()
        for path in [spec.paths.control, spec.paths.console, spec.paths.ssh] { unlink(path) }
        return exitCode ?? 1
    }

    private static func onMainThread() -> Bool {
        // The kernel names the thread as PID/task/TID; the main thread's number is the process's.
        var buffer = [CChar](repeating: 0, count: 64)
        let count = readlink("/proc/thread-self", &buffer, buffer.count - 1)
        let name = buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }
        return name.elementsEqual("\(getpid())/task/\(getpid())".utf8)
    }
}

/// A supervisor that cannot begin.
package enum SupervisorError: Error, Equatable, CustomStringConvertible {
    case notMainThread
    case alreadyRunning(String)
    case noTaps(String)
    case noShares(String)

    package var description: String {
        switch self {
        case .notMainThread:
            "a supervisor must run on the main thread: its hypervisor dies with that thread"
        case .alreadyRunning(let name):
            "\(name) already runs: another supervisor or its hypervisor holds the lock"
        case .noShares(let name):
            "the shares of \(name) are not served: start it with 'martlet start \(name)'"
        case .noTaps(let name):
            "the interfaces or devices of \(name) were not handed over: "
                + "start it with 'martlet start \(name)'"
        }
    }
}

// MARK: - Effects

extension Supervisor {
    /// Lets the reducer judge and does what it says.
    func handle(_ event: Lifecycle.Event) {
        for effect in lifecycle.handle(event, at: Reactor.now) { perform(effect) }
    }

    private func perform(_ effect: Lifecycle.Effect) {
        switch effect {
        case .launch: launch()
        case .arm(let timer, let seconds):
            reactor.arm(timer.rawValue, after: seconds) { [unowned self] in handle(.timer(timer)) }
        case .disarm(let timer): reactor.disarm(timer.rawValue)
        case .agentShutdown: shutDownByAgent()
        case .pressButton: send(.powerDown)
        case .quit: send(.quit)
        case .kill: machine?.child.signal(SIGKILL)
        case .pause: send(.stop)
        case .resume: send(.resume)
        case .save: save()
        case .keepSaved: keepSaved()
        case .load: load()
        case .forgetMemory: forgetMemory()
        case .announce(let kind, let detail): announce(kind, detail)
        case .resolve(let wait, let reply): control.resolve(wait, reply)
        case .leave(let ending, let reason, let method): leave(ending, reason, method)
        }
    }

    private func launch() {
        if shareChannel?.failure != nil { return handle(.launchFailed(whyNoShares)) }
        // `prepare` has looked at them for the first start.
        if launchedAt != nil, let damage = spec.bootDamage { return handle(.imageDamaged(damage)) }
        do {
            let machine = try Machine(
                spec, hypervisor, lock: lock, taps: taps, resuming: lifecycle.isResuming, reactor)
            self.machine = machine
            launchedAt = Clock.now()
            bootedAt = nil
            bootSeconds = nil
            guestState = nil
            settled = nil
            failedUnits = []
            lastError = nil
            consoleEnd = LastLines()
            checkRound += 1
            health.reset()
            connect(machine)
            try writeRunRecord()
            handle(.launched)
        } catch {
            if let machine {
                // It runs, but no record of it could be written: do not let it run unseen.
                machine.child.signal(SIGKILL)
                _ = try? machine.child.waitBlocking()
                self.machine = nil
            }
            let missing = (error as? SystemError)?.isMissing == true
            let hint = missing ? " (the Debian package \(type(of: hypervisor).package) has it)" : ""
            handle(.launchFailed("\(error)\(hint)"))
        }
    }

    private func connect(_ machine: Machine) {
        machine.onError = { [unowned self] in log.warning("\(spec.name): \($0)") }
        reactor.onReadable(machine.child.pidfd) { [unowned self] in machineEnded() }
        console.attach(machine.console)
        watchShares(of: machine)
        qmpReplies = [:]
        qmpLines = LineBuffer(limit: 4 << 20)
        machine.qmp.onBytes { [unowned self] bytes in
            for line in qmpLines.append(bytes) { qmpLine(line) }
            if bytes.isEmpty { machine.qmp.close() }
        }
        var agentLines = LineBuffer(limit: 48 << 20)
        machine.agent.onBytes { [unowned self] bytes in
            for line in agentLines.append(bytes) {
                carry(agent.received(line, at: Reactor.now))
            }
            if bytes.isEmpty { machine.agent.close() }
        }
        var readyLines = LineBuffer(limit: 4096)
        machine.ready.onBytes { [unowned self] bytes in
            for line in readyLines.append(bytes) { readyLine(line) }
            if bytes.isEmpty { machine.ready.close() }
        }
    }

    private func machineEnded() {
        guard let machine else { return }
        console.drain()
        // The hypervisor's last words say why it ended; they were sent before it did.
        while let bytes = machine.qmp.take(), !bytes.isEmpty {
            for line in qmpLines.append(bytes) { qmpLine(line) }
        }
        let exit = (try? machine.finish()) ?? .code(255)
        carry(agent.port(open: false, at: Reactor.now))
        self.machine = nil
        // Their replies come from nobody else, and clients would wait for them in vain.
        for id in qmpRequests {
            qmpReplies.removeValue(forKey: id)?(.failed(id: id, "the hypervisor ended"))
        }
        qmpRequests = []
        forgetHold()
        closeMemory()
        for index in spec.health.indices { reactor.disarm("health-\(index)") }
        let said = Machine.explain(machine.errorLines, spec.launch)
        handle(.ended(exit, detail: lastError ?? said))
    }

    func announce(_ kind: VMEvent.Kind, _ detail: String?) {
        let text = detail.map { ": \($0)" } ?? ""
        log.info("\(spec.name): \(kind.rawValue)\(text)")
        let event = VMEvent(vm: spec.name, at: Clock.now(), kind: kind, detail: detail)
        events.append(line(event.wire))
        control.publish(event)
        switch kind {
        case .launched:
            report.started()
            notify.send("STATUS=booting")
        case .booted:
            booted()
            notify.send("READY=1", "STATUS=running")
        case .resumed:
            resumed()
            notify.send("READY=1", "STATUS=running, resumed")
        case .stopping where savedTo == nil:
            // The guest has its grace, and what follows on it a few seconds more: a manager that
            // has less patience would kill what is still writing its disks.
            let patience = Int((spec.stopGrace + 30) * 1_000_000)
            notify.send("STOPPING=1", "STATUS=stopping", "EXTEND_TIMEOUT_USEC=\(patience)")
        default: notify.send("STATUS=\(kind.rawValue)\(text)")
        }
    }

    private func leave(
        _ ending: ExitRecord.Ending, _ reason: String?, _ method: StopMethod?
    ) {
        if let reason, ending.isFailure { report.failed(reason) }
        exitCode = ending.isFailure ? 1 : 0
        // The record that is there says that the VM is suspended, and so it is.
        if lifecycle.isResuming || ending == .suspended { return }
        do {
            try writeExitRecord(ending, reason, method)
        } catch {
            log.error("\(spec.name): the exit record is lost: \(error)")
        }
    }

    func writeExitRecord(
        _ ending: ExitRecord.Ending, _ reason: String? = nil, _ method: StopMethod? = nil,
        saved: SavedMemory? = nil
    ) throws {
        let record = ExitRecord(
            run: run, name: spec.name, generation: spec.generation, ending: ending,
            endedAt: Clock.now(), reason: reason,
            lastLines: ending.isFailure ? lastLines(before: ending) : nil, stopMethod: method,
            restarts: lifecycle.restarts, bootMisses: lifecycle.bootMisses, saved: saved)
        try Files.write(spec.paths.exitRecord, encoded(record), mode: 0o644)
    }

    /// What the guest said last: for one that was unhealthy what it logged then, for what came on its
    /// console later is about its shutdown.
    private func lastLines(before ending: ExitRecord.Ending) -> [String] {
        ending == .unhealthy && !journal.lines.isEmpty ? journal.lines : consoleEnd.lines
    }

    private func writeRunRecord() throws {
        let record = RunRecord(
            run: run, name: spec.name, generation: spec.generation, imageDigest: spec.imageDigest,
            supervisorPid: getpid(), pid: machine?.child.pid, accelerator: spec.launch.accelerator,
            bootID: spec.bootID, startedAt: launchedAt ?? Clock.now())
        try Files.write(spec.paths.runRecord, encoded(record), mode: 0o644)
    }

    /// Takes over from `launch.json` what needs no other hypervisor.
    func reload() throws {
        let new = try SuperviseSpec.read(spec.paths.spec)
        let checks = spec.health
        spec.generation = new.generation
        spec.health = new.health
        spec.restart = new.restart
        spec.stopGrace = new.stopGrace
        spec.boot = new.boot
        lifecycle.adopt(spec)
        if spec.health != checks {
            checkRound += 1
            for index in checks.indices { reactor.disarm("health-\(index)") }
            health = HealthTracker(spec.health)
            if bootedAt != nil { beginChecks() }
        }
        try writeRunRecord()
    }

    /// What `status` answers.
    func status() -> VMStatus {
        VMStatus(
            name: spec.name, generation: spec.generation, imageDigest: spec.imageDigest,
            state: lifecycle.state, health: health.health, failedChecks: health.failures,
            supervisorPid: getpid(), pid: machine?.child.pid,
            accelerator: spec.launch.accelerator, startedAt: machine == nil ? nil : launchedAt,
            bootSeconds: machine == nil ? nil : bootSeconds, restarts: lifecycle.restarts,
            bootMisses: lifecycle.bootMisses, guestState: guestState, failedUnits: failedUnits,
            agent: agent.isAlive, reason: lifecycle.reason)
    }
}
