// SPDX-License-Identifier: Apache-2.0
import CStorage
import Glibc
import Linux

/// Writes a pax tar, which the sink packs, member by member, and remembers what it wrote.
///
/// Every call blocks; one thread uses it.
final class ArchiveWriter {
    private let library: ml_archive
    private let handle: OpaquePointer
    private let sink: ArchiveSink
    private let path: String
    private let time: Int64
    private(set) var manifest = BackupManifest()
    private var isFinished = false
    private static let chunk = 1 << 20

    /// `time` becomes the time of change of every member, in seconds since 1970.
    init(_ path: String, recipients: [String], time: Int64) throws {
        guard let library = ml_archive()?.pointee else {
            throw StorageError.missingTool(name: "libarchive.so.13", package: "libarchive13")
        }
        self.library = library
        self.path = path
        self.time = time
        sink = try ArchiveSink(path, recipients: recipients)
        guard let handle = library.archive_write_new() else {
            throw StorageError.failed(what: path, output: "no memory for libarchive")
        }
        self.handle = handle
        try check(library.archive_write_set_format_pax(handle))
        try check(library.archive_write_set_bytes_in_last_block(handle, 1))
        try check(
            library.archive_write_open(
                handle, Unmanaged.passUnretained(sink).toOpaque(), nil,
                { _, context, buffer, count in
                    guard let context, let buffer else { return -1 }
                    let sink = Unmanaged<ArchiveSink>.fromOpaque(context).takeUnretainedValue()
                    return sink.take(UnsafeRawBufferPointer(start: buffer, count: count))
                        ? count : -1
                }, nil))
    }

    deinit {
        // Else libarchive would fill up the member that was begun, with zeros, and write them.
        if !isFinished { sink.abandon() }
        _ = library.archive_write_free(handle)
    }

    private func check(_ result: Int32) throws {
        // A warning (-20) is about something that we did not ask for, such as names in no locale.
        guard result < -20 else { return }
        if let error = sink.error { throw error }
        let text = library.archive_error_string(handle).map { String(cString: $0) } ?? "unknown"
        throw StorageError.failed(what: "\(path) could not be written", output: text)
    }

    private func begin(
        _ name: String, size: Int64, mode: UInt32, _ sparse: [Extent]? = nil
    ) throws {
        guard let entry = library.archive_entry_new() else {
            throw StorageError.failed(what: path, output: "no memory for libarchive")
        }
        defer { library.archive_entry_free(entry) }
        library.archive_entry_set_pathname(entry, name)
        library.archive_entry_set_size(entry, size)
        library.archive_entry_set_filetype(entry, UInt32(ml_archive_regular))
        library.archive_entry_set_perm(entry, mode)
        library.archive_entry_set_mtime(entry, time_t(time), 0)
        for extent in sparse ?? [] {
            library.archive_entry_sparse_add_entry(entry, extent.offset, extent.length)
        }
        // Without any, the member would be stored whole and not as one hole.
        if let sparse, sparse.isEmpty { library.archive_entry_sparse_add_entry(entry, 0, 0) }
        try check(library.archive_write_header(handle, entry))
    }

    private func put(_ buffer: UnsafeRawBufferPointer) throws {
        var done = 0
        while done < buffer.count {
            let count = library.archive_write_data(
                handle, buffer.baseAddress?.advanced(by: done), buffer.count - done)
            if count < 0 { try check(-30) }
            guard count > 0 else {
                throw StorageError.failed(what: path, output: "a member is larger than announced")
            }
            done += count
        }
    }

    /// Writes a small member.
    func add(_ name: String, _ bytes: [UInt8], mode: UInt32 = 0o600) throws {
        try begin(name, size: Int64(bytes.count), mode: mode)
        try bytes.withUnsafeBytes { try put($0) }
        try check(library.archive_write_finish_entry(handle))
        manifest.members.append(
            .init(name: name, bytes: Int64(bytes.count), sha256: SHA256.hex(bytes)))
    }

    /// Writes a disk: the runs of `map.data`, which `read` fetches, and holes between them.
    func addDisk(
        _ disk: String, bytes: Int64, _ map: ExtentMap,
        read: (Int64, UnsafeMutableRawBufferPointer) throws -> Void
    ) throws {
        let name = "disks/\(disk).raw"
        try begin(name, size: bytes, mode: 0o600, map.data)
        var hash = SHA256()
        let buffer = UnsafeMutableRawBufferPointer.allocate(
            byteCount: ArchiveWriter.chunk, alignment: 4096)
        defer { buffer.deallocate() }
        let zeros = UnsafeMutableRawBufferPointer.allocate(
            byteCount: ArchiveWriter.chunk, alignment: 4096)
        defer { zeros.deallocate() }
        zeros.initializeMemory(as: UInt8.self, repeating: 0)
        var position: Int64 = 0
        // libarchive counts the bytes of a hole, and looks at none of them.
        func hole(to end: Int64) throws {
            while position < end {
                let count = Int(min(end - position, Int64(zeros.count)))
                try put(UnsafeRawBufferPointer(rebasing: zeros[..<count]))
                position += Int64(count)
            }
        }
        for extent in map.data {
            try hole(to: extent.offset)
            while position < extent.end {
                let count = Int(min(extent.end - position, Int64(buffer.count)))
                let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
                try read(position, piece)
                hash.update(UnsafeRawBufferPointer(piece))
                try put(UnsafeRawBufferPointer(piece))
                position += Int64(count)
            }
        }
        try hole(to: bytes)
        try check(library.archive_write_finish_entry(handle))
        manifest.members.append(.init(name: name, bytes: map.bytes, sha256: hash.finish()))
        manifest.disks.append(.init(name: disk, data: map.data, zeros: map.zeros))
    }

    /// Writes the manifest and its digest, and ends the file durably.
    func finish() throws -> (bytes: Int64, sha256: String, manifest: String) {
        let text = try BackupJSON.encode(manifest)
        let digest = SHA256.hex(text)
        try add("manifest.json", text)
        // The form of sha256sum: `sha256sum -c manifest.sha256` checks it by hand.
        try add("manifest.sha256", Array("\(digest)  manifest.json\n".utf8))
        try check(library.archive_write_close(handle))
        let (bytes, sha256) = try sink.finish()
        isFinished = true
        return (bytes, sha256, digest)
    }
}
