// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Runs a closure on a new detached thread.
///
/// The corresponding C function is `pthread_create`.
///
/// For calls that block: a task must never block a thread of the cooperative pool.
package func detachThread(_ body: @escaping @Sendable () -> Void) {
    final class Box {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    var thread = pthread_t()
    let context = Unmanaged.passRetained(Box(body)).toOpaque()
    let code = pthread_create(
        &thread, nil,
        { context in
            guard let context else { return nil }
            Unmanaged<Box>.fromOpaque(context).takeRetainedValue().body()
            return nil
        }, context)
    guard code == 0 else {
        // No thread to be had: run it here rather than lose it.
        Unmanaged<Box>.fromOpaque(context).takeRetainedValue().body()
        return
    }
    pthread_detach(thread)
}

/// Runs blocking work on a thread of its own and suspends until it is done.
package func blocking<R: Sendable>(_ body: @escaping @Sendable () throws -> R) async throws -> R {
    try await withCheckedThrowingContinuation { continuation in
        detachThread { continuation.resume(with: Result { try body() }) }
    }
}
