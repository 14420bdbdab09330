// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// How a process ended.
package enum Exit: Sendable, Equatable, CustomStringConvertible {
    case code(Int32)
    case signal(Int32)

    package var isSuccess: Bool { self == .code(0) }

    /// What a shell would report: the code, or 128 plus the signal.
    package var shellCode: Int32 {
        switch self {
        case .code(let code): code
        case .signal(let number): 128 + number
        }
    }

    package var description: String {
        switch self {
        case .code(let code): "exit code \(code)"
        case .signal(let number): "signal \(number) (\(String(cString: strsignal(number))))"
        }
    }
}

/// A program to run: everything the child gets, and nothing else.
package struct Program: Sendable {
    /// Absolute path of the executable.
    package var path: String
    /// Arguments after the program's name.
    package var arguments: [String]
    /// argv[0]; the path unless given.
    package var name: String?
    /// `NAME=value` strings; nil passes on our own environment.
    package var environment: [String]?
    package var folder: String?
    /// Descriptors of the child, its number to ours; 0, 1 and 2 are `/dev/null` unless given.
    package var descriptors: [Int32: Int32] = [:]
    /// Signal that the child gets when the spawning *thread* ends, or 0.
    ///
    /// Use it only from a thread that lives as long as the process: pool threads end when idle.
    package var dieWithParent: Int32 = 0
    package var newSession = false
    /// Starts it in a network namespace of its own with nothing in it; needs privilege.
    package var newNetwork = false
    /// Makes this descriptor (our number) the controlling terminal; needs `newSession`.
    package var terminal: Int32 = -1
    package var user: UInt32?
    package var group: UInt32?
    package var groups: [UInt32] = []
    /// What it may see and do; nil for all that its user may.
    package var sandbox: Sandbox?

    package init(_ path: String, _ arguments: [String] = []) {
        self.path = path
        self.arguments = arguments
    }

    /// Starts the program.
    ///
    /// Failure of `execve` itself is reported here, not as an exit code; that of a sandbox has its
    /// `step`.
    package func spawn() throws(SystemError) -> Child {
        let null = try Descriptor.open("/dev/null", O_RDWR)
        var map = descriptors
        for fd in Int32(0)...2 where map[fd] == nil { map[fd] = null.raw }
        let pairs = map.sorted { $0.key < $1.key }.map { ml_fd_map(from: $0.value, to: $0.key) }
        var result = ml_spawn_result()
        let pid = withOptions(pairs) { ml_spawn($0, &result) }
        guard pid > 0 else { throw failure(-pid, result) }
        return Child(pid: pid, pidfd: result.pidfd)
    }

    /// Puts the program in the place of this process, which keeps its number, its parent and the
    /// descriptors that are not closed by an `execve`; returns what failed.
    ///
    /// `descriptors`, `newSession` and `terminal` do not count. For a process with one thread: no
    /// other may have a user namespace of its own. After a failure it stays with the walls that
    /// it had put up by then, so that nothing is left for it but to say so and to end.
    ///
    /// The corresponding C function is `execve`.
    package func become() -> SystemError {
        var result = ml_spawn_result()
        let code = withOptions([]) { ml_become($0, &result) }
        return failure(-code, result)
    }

    private func failure(_ code: Int32, _ result: ml_spawn_result) -> SystemError {
        var error = SystemError("start \(path)", code)
        error.step = sandbox?.step(result.step, place: result.place)
        return error
    }

    /// Calls with all of it in the form of C, which lives no longer.
    private func withOptions(
        _ pairs: [ml_fd_map], _ body: (UnsafePointer<ml_spawn_options>) -> Int32
    ) -> Int32 {
        withCStrings([name ?? path] + arguments) { argv in
            withCStrings(environment ?? Program.ownEnvironment()) { envp in
                guard let sandbox else { return withOptions(argv, envp, pairs, nil, body) }
                return sandbox.withRaw { withOptions(argv, envp, pairs, $0, body) }
            }
        }
    }

    private func withOptions(
        _ argv: [UnsafeMutablePointer<CChar>?], _ envp: [UnsafeMutablePointer<CChar>?],
        _ pairs: [ml_fd_map], _ sandbox: UnsafePointer<ml_sandbox>?,
        _ body: (UnsafePointer<ml_spawn_options>) -> Int32
    ) -> Int32 {
        path.withCString { path in
            withOptionalCString(folder) { folder in
                argv.withUnsafeBufferPointer { argv in
                    envp.withUnsafeBufferPointer { envp in
                        pairs.withUnsafeBufferPointer { pairs in
                            groups.withUnsafeBufferPointer { groups in
                                var options = ml_spawn_options()
                                options.path = path
                                options.argv = argv.baseAddress
                                options.envp = envp.baseAddress
                                options.cwd = folder
                                options.fds = pairs.baseAddress
                                options.nfds = pairs.count
                                options.pdeathsig = dieWithParent
                                options.new_session = newSession ? 1 : 0
                                options.new_network = newNetwork ? 1 : 0
                                options.ctty_fd = terminal
                                options.uid = user ?? UInt32.max
                                options.gid = group ?? UInt32.max
                                options.groups = groups.baseAddress
                                options.ngroups = groups.count
                                options.sandbox = sandbox
                                return body(&options)
                            }
                        }
                    }
                }
            }
        }
    }

    /// Our own environment as `NAME=value` strings.
    package static func ownEnvironment() -> [String] {
        var result: [String] = []
        var entry = environ
        while let text = entry.pointee {
            result.append(String(cString: text))
            entry += 1
        }
        return result
    }
}

/// A child process, known by its pidfd: a number that is never reused while we hold it.
package struct Child: Sendable {
    package let pid: Int32
    /// Readable once the child has ended.
    ///
    /// Closed by the `wait` that reaps it.
    package let pidfd: Int32

    /// Suspends until the child ends, and reaps exactly this child.
    package func wait() async throws -> Exit {
        try await readable(pidfd)
        return try reap()
    }

    /// Blocks the thread until the child ends; for the supervisor and for tests, never for a task.
    package func waitBlocking() throws(SystemError) -> Exit {
        var one = pollfd(fd: pidfd, events: Int16(POLLIN), revents: 0)
        try check("poll") { poll(&one, 1, -1) }
        return try reap()
    }

    /// Reaps a child whose pidfd is readable.
    ///
    /// The corresponding C function is `waitid(P_PIDFD)`.
    package func reap() throws(SystemError) -> Exit {
        var info = siginfo_t()
        try check("waitid") { waitid(P_PIDFD, id_t(pidfd), &info, WEXITED) }
        close(pidfd)
        let status = info._sifields._sigchld.si_status
        return info.si_code == CLD_EXITED ? .code(status) : .signal(status)
    }

    /// Sends a signal; a child that has already ended is no error.
    ///
    /// The corresponding C function is `pidfd_send_signal`.
    package func signal(_ number: Int32) { _ = ml_pidfd_send_signal(pidfd, number) }
}

private func withCStrings<R>(
    _ strings: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> R
) -> R {
    var pointers: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) }
    pointers.append(nil)
    defer { for pointer in pointers { free(pointer) } }
    return body(pointers)
}

private func withOptionalCString<R>(_ text: String?, _ body: (UnsafePointer<CChar>?) -> R) -> R {
    guard let text else { return body(nil) }
    return text.withCString { body($0) }
}

/// A process that somebody else started, by a descriptor that never comes to mean another one.
package enum ProcessHandle {
    /// The corresponding C function is `pidfd_open`.
    package static func open(_ pid: Int32) throws(SystemError) -> Descriptor {
        Descriptor(owning: try checkNegative("pidfd_open \(pid)", ml_pidfd_open(pid)))
    }

    /// The corresponding C function is `pidfd_send_signal`; a process that has ended is no error.
    package static func signal(_ process: borrowing Descriptor, _ number: Int32) {
        _ = ml_pidfd_send_signal(process.raw, number)
    }
}

/// A process that is not our child, with its command line.
package final class RunningProcess: Sendable {
    private let pidfd: Descriptor
    /// Empty for one that has ended and that nobody has waited for yet.
    package let words: [String]

    /// Nil when there is no process of that number.
    package init?(_ pid: Int32) {
        guard let pidfd = try? ProcessHandle.open(pid) else { return nil }
        self.pidfd = pidfd
        // Read after the pidfd was opened: if that is still there, the words are of this process.
        let line = (try? Files.read("/proc/\(pid)/cmdline", limit: 1 << 20)) ?? []
        words = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
    }

    /// Those whose command line, the program's name included, is as asked for.
    package static func all(where matches: ([String]) -> Bool) -> [RunningProcess] {
        ((try? Files.list("/proc")) ?? []).compactMap { Int32($0) }
            .compactMap { RunningProcess($0) }.filter { matches($0.words) }
    }

    package func signal(_ number: Int32) { ProcessHandle.signal(pidfd, number) }

    /// Waits for the end, at most so long.
    ///
    /// The corresponding C function is `poll`.
    package func ended(within milliseconds: Int32) -> Bool {
        var one = pollfd(fd: pidfd.raw, events: Int16(POLLIN), revents: 0)
        return poll(&one, 1, milliseconds) > 0
    }
}
