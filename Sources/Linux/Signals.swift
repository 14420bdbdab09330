// SPDX-License-Identifier: Apache-2.0
import CLinux
import Glibc

/// Signals as bytes in a pipe.
///
/// Dispatch registers its signal sources late and loses a signal sent right after the start, and
/// signalfd fails with parked threads: a C handler that writes to a pipe lost none in 40 runs.
package enum Signals {
    /// Routes the signals into a pipe and returns its non-blocking read end, open for the life of the process.
    ///
    /// Call it once, as the first thing that `main` does.
    package static func pipe(_ numbers: [Int32]) throws(SystemError) -> Int32 {
        try checkNegative("signal pipe", ml_signal_pipe(numbers, Int32(numbers.count)))
    }

    /// Ignores SIGPIPE: a write to a closed socket is an error to handle, not a death.
    package static func ignoreBrokenPipes() { signal(SIGPIPE, SIG_IGN) }
}
