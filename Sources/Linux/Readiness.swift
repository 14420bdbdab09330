// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Suspends the task until one of the descriptors is readable or at its end; ends early with
/// `CancellationError`.
///
/// A thread of its own polls. Dispatch sources are not used: when several watch one descriptor and
/// are cancelled as it becomes ready, about one in some thousand loses its event or crashes.
package func readable(_ descriptors: Int32...) async throws {
    let wake = try Pipe().split()
    defer {
        close(wake.reader)
        close(wake.writer)
    }
    try await withTaskCancellationHandler {
        try await blocking { try awaitReadable(descriptors + [wake.reader]) }
        try Task.checkCancellation()
    } onCancel: {
        try? write(wake.writer, [0])
    }
}

/// Blocks the thread until one of the descriptors is readable.
///
/// The corresponding C function is `poll`.
private func awaitReadable(_ descriptors: [Int32]) throws(SystemError) {
    var entries = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    try check("poll") { poll(&entries, nfds_t(entries.count), -1) }
}
