// SPDX-License-Identifier: Apache-2.0
import CStorage
import Linux

/// A disk as an NBD server shows it: its size, what is in use, what has changed, and the bytes.
///
/// Every call blocks; a connection serves one thread.
package final class NBDClient {
    private let library: ml_nbd
    private let handle: OpaquePointer
    private let what: String
    package let size: Int64

    /// Connects to an export.
    ///
    /// `bitmap` is the whole name of its meta context, such as `qemu:dirty-bitmap:NAME`; a server
    /// that does not know it is an error, for then nobody could tell what has changed.
    package init(socket path: String, export: String, bitmap: String?) throws(StorageError) {
        guard let library = ml_nbd()?.pointee else {
            throw .missingTool(name: "libnbd.so.0", package: "libnbd0")
        }
        guard let handle = library.nbd_create() else {
            throw .failed(what: "reading \(export)", output: "no memory for libnbd")
        }
        func check(_ result: Int32) throws(StorageError) {
            guard result >= 0 else { throw NBDClient.failure(library, export) }
        }
        do throws(StorageError) {
            try check(library.nbd_set_export_name(handle, export))
            try check(library.nbd_add_meta_context(handle, NBDClient.allocation))
            if let bitmap { try check(library.nbd_add_meta_context(handle, bitmap)) }
            let socket: Int32
            do throws(SystemError) {
                // Not by libnbd: its path is limited to 107 bytes.
                socket = try UnixSocket.connect(path).release()
            } catch {
                throw .system(error)
            }
            // The handle owns the socket from here on.
            try check(library.nbd_connect_socket(handle, socket))
            if let bitmap, library.nbd_can_meta_context(handle, bitmap) != 1 {
                throw .failed(what: "reading \(export)", output: "the server has no \(bitmap)")
            }
            size = library.nbd_get_size(handle)
            guard size >= 0 else { throw NBDClient.failure(library, export) }
        } catch {
            library.nbd_close(handle)
            throw error
        }
        self.library = library
        self.handle = handle
        what = export
    }

    deinit { library.nbd_close(handle) }

    /// The meta context that every server has.
    package static let allocation = "base:allocation"

    private static func failure(_ library: ml_nbd, _ what: String) -> StorageError {
        let text = library.nbd_get_error().map { String(cString: $0) } ?? "unknown error"
        return .failed(what: "reading \(what)", output: text)
    }

    /// The runs of the whole disk in one meta context, with their flags.
    package func extents(_ context: String) throws(StorageError) -> [(Extent, UInt32)] {
        let found = Found(context)
        while found.end < size {
            let before = found.end
            let callback = nbd_extent_callback(
                callback: { user, name, offset, entries, count, _ in
                    guard let user, let name, let entries else { return -1 }
                    Unmanaged<Found>.fromOpaque(user).takeUnretainedValue().add(
                        name, Int64(offset), UnsafeBufferPointer(start: entries, count: count))
                    return 0
                }, user_data: Unmanaged.passUnretained(found).toOpaque(), free: nil)
            let count = UInt64(min(size - before, 1 << 30))
            let result = withExtendedLifetime(found) {
                library.nbd_block_status(handle, count, UInt64(before), callback, 0)
            }
            guard result >= 0 else { throw NBDClient.failure(library, what) }
            guard found.end > before else {
                throw .failed(
                    what: "reading \(what)", output: "the server says nothing of \(context)")
            }
        }
        return found.runs
    }

    /// Fills the buffer with what is on the disk from an offset on.
    ///
    /// Asked for in pieces that no boundary of 64 KiB crosses: QEMU up to 7.2 serves a piece of a
    /// picture of which it has kept only the beginning from the disk as it is *now*
    /// (`hbitmap_status` says of a run of dirty bits that ends too early that it is clean).
    package func read(
        _ offset: Int64, into buffer: UnsafeMutableRawBufferPointer
    ) throws(StorageError) {
        guard let start = buffer.baseAddress else { return }
        var done = 0
        while done < buffer.count {
            let place = offset + Int64(done)
            let count = min(buffer.count - done, NBDClient.piece - Int(place) % NBDClient.piece)
            guard library.nbd_pread(handle, start + done, count, UInt64(place), 0) == 0 else {
                throw NBDClient.failure(library, what)
            }
            done += count
        }
    }

    /// Bytes that copy-before-write keeps at once: its cluster.
    private static let piece = 65536

    /// What of the disk is in use now.
    package func allocation() throws(StorageError) -> ExtentMap {
        var map = ExtentMap()
        for (run, flags) in try extents(NBDClient.allocation) {
            // Bit 1: reads as zeros.
            if flags & 2 == 0 {
                map.data.append(run.offset, run.length)
            } else {
                map.zeros.append(run.offset, run.length)
            }
        }
        return map
    }

    /// What there is to back up of what is in use: all of it, or what the bitmap says has changed.
    package func changes(in map: ExtentMap, bitmap: String?) throws(StorageError) -> ExtentMap {
        guard let bitmap else { return ExtentMap(data: map.data) }
        var dirty: [Extent] = []
        for (run, flags) in try extents(bitmap) where flags & 1 != 0 {
            dirty.append(run.offset, run.length)
        }
        return ExtentMap(
            data: map.data.intersection(dirty), zeros: map.zeros.intersection(dirty))
    }
}

/// What a server has said so far of one meta context.
private final class Found {
    let context: String
    var runs: [(Extent, UInt32)] = []
    var end: Int64 = 0

    init(_ context: String) { self.context = context }

    func add(
        _ name: UnsafePointer<CChar>, _ offset: Int64, _ entries: UnsafeBufferPointer<UInt32>
    ) {
        guard offset == end, String(cString: name) == context else { return }
        for index in stride(from: 0, to: entries.count - 1, by: 2) {
            let length = Int64(entries[index])
            runs.append((Extent(offset: end, length: length), entries[index + 1]))
            end += length
        }
    }
}
