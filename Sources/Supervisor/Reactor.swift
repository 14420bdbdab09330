// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// The one loop of a supervisor: descriptors and timers, on the main thread, without tasks.
///
/// It uses `poll`: a supervisor has some twenty descriptors, and a wait without state of its own
/// in the kernel cannot hold a closed one.
final class Reactor {
    private var readers: [Int32: () -> Void] = [:]
    private var writers: [Int32: () -> Void] = [:]
    private var hangUps: [Int32: () -> Void] = [:]
    /// Called when nothing has happened for a while, right before the wait for what comes next.
    var beforeSleep: (() -> Void)?
    private static let lull = 0.2
    private var timers: [String: (at: Double, run: () -> Void)] = [:]

    /// Monotonic seconds.
    static var now: Double { Double(Clock.monotonic()) / 1e9 }

    /// Calls the handler whenever the descriptor is readable or at its end.
    func onReadable(_ fd: Int32, _ run: @escaping () -> Void) { readers[fd] = run }
    func pauseReading(_ fd: Int32) { readers[fd] = nil }

    /// Calls the handler whenever the descriptor takes bytes; nil ends that.
    func onWritable(_ fd: Int32, _ run: (() -> Void)?) { writers[fd] = run }

    /// Calls the handler when the other side has closed, whatever it sent before that.
    func onHangUp(_ fd: Int32, _ run: @escaping () -> Void) { hangUps[fd] = run }

    /// To be called before the descriptor is closed.
    func forget(_ fd: Int32) {
        hangUps[fd] = nil
        readers[fd] = nil
        writers[fd] = nil
    }

    /// Calls the handler once after so many seconds; a timer of that name starts over.
    func arm(_ name: String, after seconds: Double, _ run: @escaping () -> Void) {
        timers[name] = (Reactor.now + seconds, run)
    }

    func disarm(_ name: String) { timers[name] = nil }

    /// Waits for the next things to happen and handles them.
    func turn() throws(SystemError) {
        var entries: [pollfd] = []
        for fd in Set(readers.keys).union(writers.keys) {
            var events = readers[fd] == nil ? 0 : POLLIN
            if writers[fd] != nil { events |= POLLOUT }
            entries.append(pollfd(fd: fd, events: Int16(events), revents: 0))
        }
        // Without any event asked for, poll still reports a hang-up.
        for fd in hangUps.keys { entries.append(pollfd(fd: fd, events: 0, revents: 0)) }
        var wait = 3600.0
        if let next = timers.values.map(\.at).min() { wait = min(wait, next - Reactor.now) }
        var count = Reactor.poll(&entries, min(wait, Reactor.lull))
        if count == 0, wait > Reactor.lull {
            beforeSleep?()
            count = Reactor.poll(&entries, wait - Reactor.lull)
        }
        if count < 0, errno != EINTR { throw SystemError("poll") }
        if count > 0 { for entry in entries where entry.revents != 0 { dispatch(entry) } }
        let now = Reactor.now
        for (name, timer) in timers where timer.at <= now && timers[name]?.at == timer.at {
            timers[name] = nil
            timer.run()
        }
    }

    private static func poll(_ entries: inout [pollfd], _ seconds: Double) -> Int32 {
        // Rounded up: waking a moment early would spin until the timer is due.
        Glibc.poll(&entries, nfds_t(entries.count), Int32(max(0, seconds * 1000 + 1)))
    }

    private func dispatch(_ entry: pollfd) {
        let events = Int32(entry.revents)
        if let run = hangUps[entry.fd] { return run() }
        if events & POLLOUT != 0 { writers[entry.fd]?() }
        // An error or a hang-up shows itself to whoever reads.
        if events & ~POLLOUT != 0 {
            if let read = readers[entry.fd] {
                read()
            } else {
                // Nobody reads at the moment, and poll would report the hang-up for ever.
                writers[entry.fd]?()
            }
        }
    }
}

/// A non-blocking stream with a bounded buffer for what the other side does not take yet.
final class Stream {
    let fd: Int32
    private let reactor: Reactor
    private let limit: Int
    private var pending: [UInt8] = []
    private var closed = false

    /// Takes ownership of the descriptor; `limit` bytes wait at most.
    init(_ descriptor: consuming Descriptor, _ reactor: Reactor, limit: Int) throws(SystemError) {
        try descriptor.setNonBlocking()
        fd = descriptor.release()
        self.reactor = reactor
        self.limit = limit
    }

    deinit { close() }

    /// Calls back with what arrives; with nothing once the other side has gone.
    func onBytes(_ body: @escaping ([UInt8]) -> Void) {
        reactor.onReadable(fd) { [unowned self] in
            if let bytes = take() { body(bytes) }
        }
    }

    /// Reads what is there: empty at the end, nil when nothing is there now.
    func take() -> [UInt8]? {
        guard !closed else { return nil }
        do {
            return try Linux.read(fd, 16384)
        } catch {
            return error.code == EAGAIN ? nil : []
        }
    }

    /// Writes what fits and keeps the rest; false when that would exceed the bound and nothing was kept.
    ///
    /// A descriptor goes with the first byte, which therefore has to be taken at once.
    @discardableResult
    func send(_ bytes: [UInt8], passing descriptor: Int32? = nil) -> Bool {
        guard !closed else { return false }
        if pending.count + bytes.count > limit { return false }
        var bytes = bytes[...]
        if let descriptor {
            guard pending.isEmpty,
                let taken = try? UnixSocket.send(
                    Array(bytes), descriptors: [descriptor], on: fd)
            else { return false }
            bytes = bytes.dropFirst(taken)
        }
        pending += bytes
        flush()
        return true
    }

    /// Bytes that the other side has not taken yet.
    var backlog: Int { pending.count }
    var isDrained: Bool { pending.isEmpty }

    func close() {
        guard !closed else { return }
        closed = true
        reactor.forget(fd)
        Glibc.close(fd)
    }

    private func flush() {
        var done = 0
        while done < pending.count {
            let count = pending.withUnsafeBytes {
                Glibc.send(
                    fd, $0.baseAddress?.advanced(by: done), pending.count - done,
                    Int32(MSG_NOSIGNAL))
            }
            if count > 0 {
                done += count
            } else if count < 0, errno == EINTR {
                continue
            } else {
                // A broken pipe shows itself to the reading side; what waits for it is lost.
                if errno != EAGAIN { done = pending.count }
                break
            }
        }
        if done == pending.count { pending = [] } else { pending.removeFirst(done) }
        reactor.onWritable(fd, pending.isEmpty ? nil : { [unowned self] in flush() })
    }
}
