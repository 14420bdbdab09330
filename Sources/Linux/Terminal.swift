// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// A terminal that hands every key on as it is typed, until the value goes away.
package struct RawTerminal: ~Copyable {
    private let fd: Int32
    private let before: termios

    /// Nil when the descriptor is no terminal; the corresponding C functions are `tcgetattr` and `cfmakeraw`.
    package init?(_ fd: Int32) {
        var settings = termios()
        guard tcgetattr(fd, &settings) == 0 else { return nil }
        var raw = settings
        cfmakeraw(&raw)
        guard tcsetattr(fd, TCSANOW, &raw) == 0 else { return nil }
        self.fd = fd
        before = settings
    }

    deinit {
        var settings = before
        tcsetattr(fd, TCSADRAIN, &settings)
    }
}

extension Program {
    /// Turns this process into the program: its exit code, its signals and its terminal are ours.
    ///
    /// Returns only when that fails. The corresponding C function is `execve`.
    package func replaceProcess() throws(SystemError) -> Never {
        if let folder { try check("chdir \(folder)") { chdir(folder) } }
        var argv: [UnsafeMutablePointer<CChar>?] = ([name ?? path] + arguments).map { strdup($0) }
        argv.append(nil)
        var envp: [UnsafeMutablePointer<CChar>?] = (environment ?? Program.ownEnvironment())
            .map { strdup($0) }
        envp.append(nil)
        // Both survive execve: what is ignored, and what is blocked. We ignore SIGPIPE, and the
        // threads that run tasks block everything: Ctrl-C would not reach the program.
        signal(SIGPIPE, SIG_DFL)
        var none = sigset_t()
        sigemptyset(&none)
        sigprocmask(SIG_SETMASK, &none, nil)
        execve(path, argv, envp)
        throw SystemError("start \(path)")
    }
}
