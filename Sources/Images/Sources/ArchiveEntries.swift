// SPDX-License-Identifier: Apache-2.0
import CStorage
import Glibc
import Linux

/// The entries of an archive as libarchive reads them, one after the other.
///
/// Every call blocks; one thread uses it.
final class ArchiveEntries {
    enum Kind: Equatable { case file, folder, link(String), hardLink(String), other }

    struct Entry {
        let name: String
        let kind: Kind
        let mode: UInt32
        let user: UInt32
        let group: UInt32
    }

    private let library: ml_archive
    private let handle: OpaquePointer
    private let locale: locale_t?
    private let before: locale_t?
    /// What is said of an error; the caller knows which archive it was.
    struct Failure: Error { let text: String }

    /// `raw`: the file is no archive, but one that may be compressed.
    init(_ path: String, raw: Bool = false) throws {
        guard let library = ml_archive()?.pointee, let handle = library.archive_read_new() else {
            throw ImageError.missingTool(name: "libarchive.so.13", package: "libarchive13")
        }
        self.library = library
        self.handle = handle
        // Names that are not of ASCII come out only where the locale of the thread knows them.
        locale = newlocale(1 << Int32(LC_CTYPE), "C.UTF-8", nil)
        before = locale.map { uselocale($0) } ?? nil
        for support in [
            library.archive_read_support_filter_gzip, library.archive_read_support_filter_xz,
            library.archive_read_support_filter_zstd, library.archive_read_support_filter_bzip2,
        ] { _ = support(handle) }
        if raw {
            _ = library.archive_read_support_format_raw(handle)
        } else {
            _ = library.archive_read_support_format_tar(handle)
            _ = library.archive_read_support_format_zip(handle)
        }
        guard library.archive_read_open_filename(handle, path, 1 << 16) == 0 else {
            throw failure()
        }
    }

    deinit {
        _ = library.archive_read_free(handle)
        if let locale {
            if let before { _ = uselocale(before) }
            freelocale(locale)
        }
    }

    private func failure() -> Failure {
        let text = library.archive_error_string(handle).map { String(cString: $0) }
        return Failure(text: text ?? "it cannot be read")
    }

    /// The next entry; nil at the end.
    func next() throws -> Entry? {
        var entry: OpaquePointer?
        let result = library.archive_read_next_header(handle, &entry)
        if result == 1 { return nil }
        // -20: a warning about something that does not count here, such as a time.
        guard result == 0 || result == -20, let entry else { throw failure() }
        guard
            let name = library.archive_entry_pathname(entry).flatMap({
                String(validatingCString: $0)
            })
        else {
            throw Failure(text: "it has an entry without a readable name")
        }
        let kind: Kind
        if let target = library.archive_entry_hardlink(entry) {
            kind = .hardLink(String(cString: target))
        } else {
            switch library.archive_entry_filetype(entry) {
            case UInt32(ml_archive_regular): kind = .file
            case UInt32(ml_archive_folder): kind = .folder
            case UInt32(ml_archive_link):
                kind = .link(library.archive_entry_symlink(entry).map { String(cString: $0) } ?? "")
            default: kind = .other
            }
        }
        return Entry(
            name: name, kind: kind, mode: UInt32(library.archive_entry_perm(entry)),
            user: UInt32(truncatingIfNeeded: library.archive_entry_uid(entry)),
            group: UInt32(truncatingIfNeeded: library.archive_entry_gid(entry)))
    }

    /// The content of the entry that `next` gave last; what is between the pieces is zeros.
    func data(_ body: (Int64, UnsafeRawBufferPointer) throws -> Void) throws {
        while true {
            var start: UnsafeRawPointer?
            var count = 0
            var offset: Int64 = 0
            let result = library.archive_read_data_block(handle, &start, &count, &offset)
            if result == 1 { return }
            // A zip's wrong checksum is a warning, and nothing that one may pass over.
            guard result == 0 else { throw failure() }
            try body(offset, UnsafeRawBufferPointer(start: start, count: count))
        }
    }
}
