// SPDX-License-Identifier: Apache-2.0
import Glibc
package import Linux
import Synchronization

/// The process that keeps the daemons of a VM's shares running, beside its supervisor.
///
/// A daemon may need privilege, and the supervisor has none. Each daemon serves one connection and
/// ends: the keeper starts the next one, for the next start of the hypervisor. It ends when the
/// other end of its channel is closed, which the supervisor holds and nobody else, and its daemons
/// end with it.
package final class ShareKeeper: Sendable {
    private struct State {
        /// What runs, by tag.
        var children: [String: Child] = [:]
        var isEnding = false
        /// Shares whose first daemon runs.
        var started: Set<String> = []
        var threads = 0
    }

    private let keeping: ShareKeeping
    private let channel: Int32
    private let lock: Int32
    private let log: Log
    private let state = Mutex(State())

    /// A daemon that ends sooner than this has served nobody.
    private static let quick: UInt64 = 200_000_000
    /// So many of those in a row, and there is no point in another one.
    private static let tries = 8

    /// Keeps daemons until the channel ends, or SIGTERM or SIGINT comes; returns 0.
    ///
    /// The channel is the descriptor 3, unless it is to be connected to.
    ///
    /// Says `ready` on the channel when all sockets are there, or `failed REASON` and returns 1.
    /// Later it says `ended TAG REASON` of each daemon that ends.
    package static func run(
        _ keeping: ShareKeeping, channel inherited: Int32 = 3,
        log: Log = Log(limit: Supervisor.logLimit)
    ) -> Int32 {
        var channel = inherited
        do throws(SystemError) {
            if let socket = keeping.channel {
                channel = try UnixSocket.connect(socket, timeout: 5).release()
            }
            let signals = try Signals.pipe([SIGTERM, SIGINT])
            Signals.ignoreBrokenPipes()
            _ = fcntl(channel, F_SETFD, FD_CLOEXEC)
            let lock = try takeLock(keeping.lock)
            let keeper = ShareKeeper(keeping, channel, lock, log)
            for share in keeping.shares {
                let listener = try UnixSocket.listen(share.socket)
                if let user = keeping.user {
                    try Files.setOwner(share.socket, user: user, group: user)
                }
                keeper.begin(share, listener.release())
            }
            return keeper.wait(signals)
        } catch {
            log.error("\(keeping.vm): shares: \(error)")
            try? write(channel, "failed \(error)\n".utf8)
            return 1
        }
    }

    private init(_ keeping: ShareKeeping, _ channel: Int32, _ lock: Int32, _ log: Log) {
        self.keeping = keeping
        self.channel = channel
        self.lock = lock
        self.log = log
    }

    /// Takes the lock as soon as the keeper of the last run, if it is still there, has gone.
    private static func takeLock(_ path: String) throws(SystemError) -> Int32 {
        for _ in 0..<500 {
            // Never given back: the daemons hold it, too, and it is free when all are gone.
            if let lock = try FileLock.attempt(path) { return lock.release() }
            usleep(20_000)
        }
        throw SystemError("the daemons of an earlier run still hold \(path)", EBUSY)
    }

    /// Waits for the end of the channel or a signal, and ends the daemons.
    private func wait(_ signals: Int32) -> Int32 {
        var entries = [channel, signals].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        while poll(&entries, 2, -1) < 0, errno == EINTR {}
        state.withLock { state in
            state.isEnding = true
            // What a daemon was told to write is written: it keeps nothing back.
            for child in state.children.values { child.signal(SIGKILL) }
        }
        for _ in 0..<250 where state.withLock({ $0.threads > 0 }) { usleep(20_000) }
        return 0
    }

    private func say(_ line: String) {
        log.info("\(keeping.vm): shares: \(line)")
        // Nobody may be there any more to hear it.
        let text = Array((line + "\n").utf8)
        _ = send(channel, text, text.count, Int32(MSG_NOSIGNAL))
    }
}

// MARK: - One share

extension ShareKeeper {
    /// A thread for each: its mounts are its own, and a daemon dies with the thread that started it.
    private func begin(_ share: SharedFolder, _ listener: Int32) {
        state.withLock { $0.threads += 1 }
        detachThread { [self] in
            do throws(SystemError) {
                let folder = try place(share)
                try serve(share, folder, listener)
            } catch {
                giveUp("failed \(share.source) cannot be shared: \(error)")
            }
            state.withLock { $0.threads -= 1 }
        }
    }

    private func giveUp(_ line: String) {
        guard !state.withLock(\.isEnding) else { return }
        say(line)
        // The channel ends with us, and the supervisor knows what that means.
        exit(1)
    }

    /// Where this thread and its daemons see the source: at its mount point, unless there is no
    /// right to mount.
    private func place(_ share: SharedFolder) throws(SystemError) -> String {
        let isShown = keeping.channel != nil
        let isMounting = !isShown && keeping.user != nil
        // A disk of the host can be taken away while a VM runs that has nothing to do with it.
        if isMounting { try enterNewMounts(following: true) }
        let folder = try Descriptor.open(
            isShown ? share.mountPoint : share.source, O_RDONLY | O_DIRECTORY)
        // Since it was looked at, a part of the path may have been made a link to somewhere else:
        // we followed it, or the service manager did.
        guard try SharedFolder.Identity(of: folder).matches(share.identity) else {
            throw SystemError("\(share.source) leads to another folder now", ELOOP)
        }
        guard isMounting else { return isShown ? share.mountPoint : share.source }
        try Files.makeFolder(share.mountPoint, mode: 0o700)
        try bindFolder(folder, at: share.mountPoint, readOnly: share.readOnly)
        return share.mountPoint
    }

    private func serve(
        _ share: SharedFolder, _ folder: String, _ listener: Int32
    ) throws(SystemError) {
        // Files of one user need no more than that user.
        let owner: UInt32? = if case .squash(let user) = share.owners { user } else { nil }
        let isRoot = keeping.user != nil && keeping.channel == nil
        let footing = FileDaemon.Footing(
            isPrivileged: keeping.user != nil && owner == nil,
            isContained: keeping.channel != nil && keeping.daemon.kind == .rust)
        var failures = 0
        while true {
            var program = Program(
                keeping.daemon.path,
                keeping.daemon.arguments(
                    share, folder: folder, descriptor: 3, attributes: hasAttributes(folder),
                    footing: footing))
            program.environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
            program.folder = "/"
            program.newSession = true
            program.newNetwork = isRoot
            if isRoot, let owner { (program.user, program.group) = (owner, owner) }
            program.dieWithParent = SIGKILL
            let (reader, writer) = try Pipe().split()
            let errors = Descriptor(owning: reader)
            program.descriptors = [2: writer, 3: listener, 4: lock]
            let began = Clock.monotonic()
            let child: Child?
            do throws(SystemError) {
                child = try start(program, share)
                close(writer)
            } catch {
                close(writer)
                throw error
            }
            guard let child else { return }
            let words = follow(child, errors)
            state.withLock { $0.children[share.tag] = nil }
            let exit = try child.reap()
            if state.withLock(\.isEnding) { return }
            let why = "\(exit)" + (words.map { ": \($0)" } ?? "")
            failures = Clock.monotonic() - began < ShareKeeper.quick ? failures + 1 : 0
            guard failures < ShareKeeper.tries else {
                return giveUp("failed \(keeping.daemon.path) cannot serve \(share.source): \(why)")
            }
            say("ended \(share.tag) \(why)")
            usleep(failures == 0 ? 0 : UInt32(20_000 << min(failures, 5)))
        }
    }

    /// Starts a daemon, unless the end has come.
    private func start(_ program: Program, _ share: SharedFolder) throws(SystemError) -> Child? {
        // With the lock held: whoever ends us sees each child or keeps it from being started.
        let result = state.withLock { state -> Result<Child?, SystemError> in
            guard !state.isEnding else { return .success(nil) }
            do throws(SystemError) {
                let child = try program.spawn()
                state.children[share.tag] = child
                if state.started.insert(share.tag).inserted,
                    state.started.count == keeping.shares.count
                {
                    say("ready")
                }
                return .success(child)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    /// Waits for the end of a daemon and returns the last line that it said, if any.
    private func follow(_ child: Child, _ errors: borrowing Descriptor) -> String? {
        var last: String?
        var pending: [UInt8] = []
        // A guest may be able to make it talk: the log takes the first words only.
        var room = 100
        func take(_ bytes: [UInt8]) {
            pending = Array((pending + bytes).suffix(4096))
            while let end = pending.firstIndex(of: 10) {
                let line = String(decoding: pending[..<end], as: UTF8.self)
                pending.removeFirst(end + 1)
                if line.isEmpty { continue }
                last = line
                if room > 0 { log.warning("\(keeping.vm): virtiofsd: \(line)") }
                room -= 1
            }
        }
        var entries = [errors.raw, child.pidfd].map {
            pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
        }
        while true {
            if poll(&entries, 2, -1) < 0 { continue }
            if entries[0].revents != 0 {
                let bytes = (try? errors.read(4096)) ?? []
                take(bytes)
                // Closed: nothing more will come, and poll must not say so for ever.
                if bytes.isEmpty { entries[0].fd = -1 }
            } else if entries[1].revents != 0 {
                return last
            }
        }
    }
}
