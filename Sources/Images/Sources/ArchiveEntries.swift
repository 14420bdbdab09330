// SPDX-License-Identifier: Apache-2.0
import Archives
import Glibc

/// The entries of an archive, one after the other.
///
/// Every call blocks; one thread uses it.
final class ArchiveEntries {
    typealias Kind = ArchiveHandle.Kind
    typealias Entry = ArchiveHandle.Entry
    typealias Failure = ArchiveHandle.Failure

    private let handle: ArchiveHandle
    private let locale: locale_t?
    private let before: locale_t?

    /// `raw`: the file is no archive, but one that may be compressed.
    init(_ path: String, raw: Bool = false) throws {
        let packings: [ArchiveHandle.Packing] = [.gzip, .xz, .zstd, .bzip2]
        guard let handle = ArchiveHandle(raw ? [.raw] : [.tar, .zip], unpacking: packings) else {
            throw ImageError.missingTool(
                name: ArchiveHandle.library.name, package: ArchiveHandle.library.package)
        }
        self.handle = handle
        // Names that are not of ASCII come out only where the locale of the thread knows them.
        locale = newlocale(1 << Int32(LC_CTYPE), "C.UTF-8", nil)
        before = locale.map { uselocale($0) } ?? nil
        try handle.open(path)
    }

    deinit {
        if let locale {
            if let before { _ = uselocale(before) }
            freelocale(locale)
        }
    }

    /// The next entry; nil at the end.
    ///
    /// What is only doubtful about it, such as a time, does not count here.
    func next() throws -> Entry? { try handle.next() }

    /// The content of the entry that `next` gave last; what is between the pieces is zeros.
    func data(_ body: (Int64, UnsafeRawBufferPointer) throws -> Void) throws {
        try handle.blocks(body)
    }

    /// Hands on the content of the entry that `next` gave last, and returns where it ends.
    ///
    /// `limit` is for the whole archive, of which `used` bytes are gone.
    func copy(
        _ entry: Entry, limit: Int64, used: Int64,
        _ write: (UnsafeRawBufferPointer, Int64) throws -> Void
    ) throws -> Int64 {
        var end: Int64 = 0
        do {
            try data { offset, block in
                end = max(end, offset.addingReportingOverflow(Int64(block.count)).partialValue)
                guard offset >= 0, end <= limit - used else {
                    throw Failure(
                        text: "the entry '\(entry.name)' makes it more than \(limit >> 20) MiB, "
                            + "far more than it is packed")
                }
                try write(block, offset)
            }
        } catch let error as Failure {
            throw Failure(text: "\(error.text) (in '\(entry.name)')")
        }
        return end
    }
}
