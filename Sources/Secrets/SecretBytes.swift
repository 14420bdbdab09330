// SPDX-License-Identifier: Apache-2.0
import Glibc

/// The content of one secret: any bytes, at least one and at most `limit`.
///
/// It never shows itself: not in a description, a dump or a failed test. Its memory is overwritten
/// when the last copy of the value goes away; what a caller copies out of it is the caller's care.
package struct SecretBytes: Sendable {
    /// Bytes that a secret may have; systemd takes 1 MiB for all credentials of a service.
    package static let limit = 64 << 10

    private final class Storage: Sendable {
        // SAFETY: written in `init` alone, before anybody else has the object, and only read after.
        nonisolated(unsafe) let place: UnsafeMutableRawBufferPointer

        init(_ count: Int) {
            place = .allocate(byteCount: count, alignment: 16)
            place.initializeMemory(as: UInt8.self, repeating: 0)
        }

        deinit {
            wipe(place)
            place.deallocate()
        }
    }

    private let storage: Storage

    /// Takes the content of a secret; `name` is what an error calls it, such as its path.
    package init(
        _ content: some Collection<UInt8>, name: String
    ) throws(SecretError) {
        if content.isEmpty { throw .empty(name) }
        if content.count > SecretBytes.limit { throw .tooLarge(name, limit: SecretBytes.limit) }
        self.init(count: content.count) { $0.copyBytes(from: content) }
    }

    /// Content of any length that is filled in where it stays, so that there is no second copy.
    init<E>(
        count: Int, fill: (UnsafeMutableRawBufferPointer) throws(E) -> Void
    ) throws(E) {
        storage = Storage(count)
        try fill(storage.place)
    }

    package var count: Int { storage.place.count }

    /// Gives the content for as long as the closure runs.
    package func withBytes<R, E>(
        _ body: (UnsafeRawBufferPointer) throws(E) -> R
    ) throws(E) -> R {
        let storage = storage
        return try withExtendedLifetime(storage) { () throws(E) in
            try body(UnsafeRawBufferPointer(storage.place))
        }
    }

    /// A copy of the content, which nobody overwrites.
    package var bytes: [UInt8] { withBytes { [UInt8]($0) } }

    /// Refuses what no secret is: nothing, and more than `limit`.
    func checked(_ name: String) throws(SecretError) -> SecretBytes {
        if count == 0 { throw .empty(name) }
        if count > SecretBytes.limit { throw .tooLarge(name, limit: SecretBytes.limit) }
        return self
    }
}

extension SecretBytes: Equatable {
    /// Takes the same time wherever the two differ.
    package static func == (a: SecretBytes, b: SecretBytes) -> Bool {
        guard a.count == b.count else { return false }
        return a.withBytes { a in
            b.withBytes { b in zip(a, b).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0 }
        }
    }
}

extension SecretBytes: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    package var description: String { "(secret)" }
    package var debugDescription: String { "(secret)" }
    package var customMirror: Mirror { Mirror(self, children: EmptyCollection<Mirror.Child>()) }
}

/// Overwrites memory in a way that the optimiser does not leave out.
///
/// The corresponding C function is `explicit_bzero`.
func wipe(_ place: UnsafeMutableRawBufferPointer) {
    if let start = place.baseAddress { explicit_bzero(start, place.count) }
}
