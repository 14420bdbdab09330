// SPDX-License-Identifier: Apache-2.0
import CStorage
import Glibc

/// One archive, or packed file, as libarchive reads it.
///
/// Every call blocks; one thread uses it. What it says is to be believed as much as the archive is.
package final class ArchiveHandle {
    package enum Format { case tar, zip, raw }
    package enum Packing { case gzip, xz, zstd, bzip2 }
    package enum Kind: Equatable { case file, folder, link(String), hardLink(String), other }

    package struct Entry {
        package let name: String
        package let kind: Kind
        /// In bytes, as the header says.
        package let size: Int64
        package let mode: UInt32
        package let user: UInt32
        package let group: UInt32
        /// Something in its header was odd, such as a time; `complaint` says what.
        package let isDoubtful: Bool
    }

    /// What is said of an error; the caller knows which archive it was.
    package struct Failure: Error {
        package let text: String
        package init(text: String) { self.text = text }
    }

    /// What to install where `init` gives nil.
    package static let library = (name: "libarchive.so.13", package: "libarchive13")

    private let functions: ml_archive
    private let handle: OpaquePointer
    private var source: (() -> UnsafeRawBufferPointer?)?

    /// Nil where libarchive is missing; `raw` is a file that is no archive, but may be packed.
    package init?(_ formats: [Format], unpacking packings: [Packing] = []) {
        guard let functions = ml_archive()?.pointee, let handle = functions.archive_read_new()
        else { return nil }
        self.functions = functions
        self.handle = handle
        for packing in packings {
            switch packing {
            case .gzip: _ = functions.archive_read_support_filter_gzip(handle)
            case .xz: _ = functions.archive_read_support_filter_xz(handle)
            case .zstd: _ = functions.archive_read_support_filter_zstd(handle)
            case .bzip2: _ = functions.archive_read_support_filter_bzip2(handle)
            }
        }
        for format in formats {
            switch format {
            case .tar: _ = functions.archive_read_support_format_tar(handle)
            case .zip: _ = functions.archive_read_support_format_zip(handle)
            case .raw: _ = functions.archive_read_support_format_raw(handle)
            }
        }
    }

    deinit { _ = functions.archive_read_free(handle) }

    package func open(_ path: String) throws(Failure) {
        guard functions.archive_read_open_filename(handle, path, 1 << 16) == 0 else {
            throw failure
        }
    }

    /// Reads what `source` gives, piece by piece.
    ///
    /// A piece stays as it is until the next is asked for. An empty one is the end, and nil a
    /// failure, whose reason the source keeps.
    ///
    /// The handle holds `source`, so what holds the handle must not be held by it.
    package func open(_ source: @escaping () -> UnsafeRawBufferPointer?) throws(Failure) {
        self.source = source
        let opened = functions.archive_read_open(
            handle, Unmanaged.passUnretained(self).toOpaque(), nil,
            { _, context, place in
                guard let context else { return -1 }
                let reader = Unmanaged<ArchiveHandle>.fromOpaque(context).takeUnretainedValue()
                guard let piece = reader.source?() else { return -1 }
                place?.pointee = piece.baseAddress
                return piece.count
            }, nil)
        guard opened == 0 else { throw failure }
    }

    /// What libarchive said last, if it said anything.
    package var complaint: String? {
        functions.archive_error_string(handle).map { String(cString: $0) }
    }

    private var failure: Failure { Failure(text: complaint ?? "it cannot be read") }

    /// How many bytes of the archive have been read, unpacked.
    package var position: Int64 { functions.archive_filter_bytes(handle, 0) }

    /// The next entry; nil at the end.
    package func next() throws(Failure) -> Entry? {
        var entry: OpaquePointer?
        let result = functions.archive_read_next_header(handle, &entry)
        if result == 1 { return nil }
        guard result == 0 || result == -20, let entry else { throw failure }
        let path = functions.archive_entry_pathname(entry)
        guard let name = path.flatMap({ String(validatingCString: $0) }) else {
            throw Failure(text: "it has an entry without a readable name")
        }
        return Entry(
            name: name, kind: kind(of: entry), size: functions.archive_entry_size(entry),
            mode: UInt32(functions.archive_entry_perm(entry)),
            user: UInt32(truncatingIfNeeded: functions.archive_entry_uid(entry)),
            group: UInt32(truncatingIfNeeded: functions.archive_entry_gid(entry)),
            isDoubtful: result != 0)
    }

    private func kind(of entry: OpaquePointer) -> Kind {
        if let target = functions.archive_entry_hardlink(entry) {
            return .hardLink(String(cString: target))
        }
        switch functions.archive_entry_filetype(entry) {
        case UInt32(ml_archive_regular): return .file
        case UInt32(ml_archive_folder): return .folder
        case UInt32(ml_archive_link):
            return .link(functions.archive_entry_symlink(entry).map { String(cString: $0) } ?? "")
        default: return .other
        }
    }

    /// The content of the entry that `next` gave last; what is between the pieces is zeros.
    package func blocks(_ body: (Int64, UnsafeRawBufferPointer) throws -> Void) throws {
        while true {
            var start: UnsafeRawPointer?
            var count = 0
            var offset: Int64 = 0
            let result = functions.archive_read_data_block(handle, &start, &count, &offset)
            if result == 1 { return }
            // A wrong checksum of a zip is a warning, and nothing that one may pass over.
            guard result == 0 else { throw failure }
            try body(offset, UnsafeRawBufferPointer(start: start, count: count))
        }
    }

    /// More of that content, holes as zeros; how many bytes, 0 at its end.
    package func read(into buffer: UnsafeMutableRawBufferPointer) throws(Failure) -> Int {
        let count = functions.archive_read_data(handle, buffer.baseAddress, buffer.count)
        guard count >= 0 else { throw failure }
        return count
    }
}
