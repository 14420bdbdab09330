// SPDX-License-Identifier: Apache-2.0
import Linux

/// Runs blocking work on a thread that has an empty network namespace of its own, loopback up.
///
/// Nothing that it makes is seen outside, and all of it is gone when the work is done.
package func inNewNetwork<R: Sendable>(
    _ body: @escaping @Sendable () throws -> R
) async throws -> R {
    try await blocking {
        try enterNewNetwork()
        return try body()
    }
}

/// The same with mounts of the thread's own instead of a network.
package func inNewMounts<R: Sendable>(
    _ body: @escaping @Sendable () throws -> R
) async throws -> R {
    try await blocking {
        try enterNewMounts()
        return try body()
    }
}
