// SPDX-License-Identifier: Apache-2.0
import CStorage
import Glibc
import Linux
import Synchronization

/// Where the bytes of an archive go: packed with zstd into a file, through `age` when it is encrypted.
///
/// One frame with a checksum. Counts and digests what reaches the file. One thread uses it.
final class ArchiveSink {
    private let path: String
    private let file: Descriptor
    private var hash = SHA256()
    private(set) var bytes: Int64 = 0
    private var age: AgePipe?
    private let zstd: ml_zstd
    private let context: OpaquePointer
    private let packed = UnsafeMutableRawBufferPointer.allocate(
        byteCount: 1 << 17, alignment: 4096)
    /// Why a write failed; libarchive hands on no errors of its callbacks.
    private(set) var error: (any Error)?

    /// Makes the file; recipients are age's public keys, none for an archive that is not encrypted.
    init(_ path: String, recipients: [String]) throws {
        self.path = path
        guard let zstd = ml_zstd()?.pointee, let context = zstd.ZSTD_createCCtx() else {
            throw StorageError.missingTool(name: "libzstd.so.1", package: "libzstd1")
        }
        self.zstd = zstd
        self.context = context
        _ = zstd.ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, 3)
        _ = zstd.ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
        file = try storage(path) { () throws(SystemError) in
            try Descriptor.open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW)
        }
        if !recipients.isEmpty {
            let words = recipients.flatMap { ["-r", $0] }
            age = try AgePipe(words, output: try file.duplicate())
        }
    }

    deinit {
        _ = zstd.ZSTD_freeCCtx(context)
        packed.deallocate()
    }

    /// Takes nothing more: what was begun is given up.
    func abandon() {
        if error == nil { error = StorageError.cancelled }
        age?.abandon()
    }

    /// Takes bytes of the tar; false when they could not be written.
    func take(_ buffer: UnsafeRawBufferPointer) -> Bool {
        if error != nil { return false }
        do {
            try pack(buffer, ZSTD_e_continue)
            return true
        } catch {
            self.error = error
            return false
        }
    }

    private func pack(_ buffer: UnsafeRawBufferPointer, _ end: ZSTD_EndDirective) throws {
        var input = ZSTD_inBuffer(src: buffer.baseAddress, size: buffer.count, pos: 0)
        while true {
            var output = ZSTD_outBuffer(dst: packed.baseAddress, size: packed.count, pos: 0)
            let left = zstd.ZSTD_compressStream2(context, &output, &input, end)
            guard zstd.ZSTD_isError(left) == 0 else {
                let text = zstd.ZSTD_getErrorName(left).map { String(cString: $0) } ?? "unknown"
                throw StorageError.failed(what: "\(path) could not be packed", output: text)
            }
            try write(UnsafeRawBufferPointer(rebasing: packed[..<output.pos]))
            if input.pos == input.size, end == ZSTD_e_continue || left == 0 { return }
        }
    }

    private func write(_ buffer: UnsafeRawBufferPointer) throws {
        if buffer.isEmpty { return }
        if let age {
            try age.write(buffer)
        } else {
            hash.update(buffer)
            try storage(path) { () throws(SystemError) in try writeAll(file.raw, buffer) }
        }
        bytes += Int64(buffer.count)
    }

    /// Ends the file durably; returns its size and digest.
    func finish() throws -> (bytes: Int64, sha256: String) {
        try pack(UnsafeRawBufferPointer(start: nil, count: 0), ZSTD_e_end)
        if let age {
            let result = try age.finish()
            try storage(path) { () throws(SystemError) in try file.sync() }
            return result
        }
        try storage(path) { () throws(SystemError) in try file.sync() }
        return (bytes, hash.finish())
    }
}

/// `age` encrypting a stream, with a thread that writes down and digests what it gives.
private final class AgePipe: Sendable {
    private struct Written {
        var hash = SHA256()
        var bytes: Int64 = 0
        var error: (any Error)?
        var isDone = false
    }

    private let child: Child
    private let input: Mutex<Int32>
    private let errors: Descriptor
    private let written = Mutex(Written())

    init(_ words: [String], output: consuming Descriptor) throws {
        let age = try Age.find()
        var program = Program(age, words)
        let (reader, writer) = try Pipe().split()
        let (packed, sink) = try Pipe().split()
        let (errorReader, errorWriter) = try Pipe().split()
        defer { for fd in [reader, sink, errorWriter] { close(fd) } }
        program.descriptors = [0: reader, 1: sink, 2: errorWriter]
        input = Mutex(writer)
        errors = Descriptor(owning: errorReader)
        do {
            child = try program.spawn()
        } catch {
            for fd in [writer, packed] { close(fd) }
            throw error
        }
        let file = output.release()
        detachThread { [self] in
            pump(packed, file)
            for fd in [packed, file] { close(fd) }
        }
    }

    /// Ends it half-way; without, it would wait for more, and its thread for it.
    func abandon() {
        let writer = input.withLock { writer in
            defer { writer = -1 }
            return writer
        }
        guard writer >= 0 else { return }
        close(writer)
        child.signal(SIGKILL)
        _ = try? child.waitBlocking()
    }

    private func pump(_ packed: Int32, _ file: Int32) {
        while true {
            do {
                let chunk = try Linux.read(packed, 1 << 18)
                if chunk.isEmpty { break }
                try Linux.write(file, chunk)
                written.withLock {
                    $0.hash.update(chunk)
                    $0.bytes += Int64(chunk.count)
                }
            } catch {
                written.withLock { $0.error = error }
                break
            }
        }
        written.withLock { $0.isDone = true }
    }

    func write(_ buffer: UnsafeRawBufferPointer) throws {
        if let error = written.withLock({ $0.error }) { throw error }
        do {
            try writeAll(input.withLock { $0 }, buffer)
        } catch {
            if let error = written.withLock({ $0.error }) { throw error }
            throw StorageError.failed(what: "age could not encrypt the backup", output: complaint())
        }
    }

    func finish() throws -> (bytes: Int64, sha256: String) {
        let writer = input.withLock { writer in
            defer { writer = -1 }
            return writer
        }
        close(writer)
        let exit = try child.waitBlocking()
        while !written.withLock({ $0.isDone }) { usleep(1000) }
        if let error = written.withLock({ $0.error }) { throw error }
        guard exit.isSuccess else {
            throw StorageError.failed(what: "age could not encrypt the backup", output: complaint())
        }
        return written.withLock { ($0.bytes, $0.hash.finish()) }
    }

    private func complaint() -> String { Age.complaint(errors) }
}

/// The program `age`.
enum Age {
    static func find() throws(StorageError) -> String {
        guard let path = findProgram("age") else {
            throw .missingTool(name: "age", package: "age")
        }
        return path
    }

    /// The first line that it wrote; it waits until nobody can write any more.
    static func complaint(_ errors: borrowing Descriptor) -> String {
        let text = String(decoding: (try? errors.read(4096)) ?? [], as: UTF8.self)
        let line = text.prefix { !$0.isNewline }
        return line.isEmpty ? "it said nothing" : String(line)
    }
}

/// Writes everything without copying it.
///
/// The corresponding C function is `write`.
func writeAll(_ fd: Int32, _ buffer: UnsafeRawBufferPointer) throws(SystemError) {
    var done = 0
    while done < buffer.count {
        let count = try check("write") {
            Glibc.write(fd, buffer.baseAddress?.advanced(by: done), buffer.count - done)
        }
        done += count
    }
}

/// Gives an error of the system its place: a full disk is named.
func storage<R: ~Copyable>(
    _ path: String, _ body: () throws(SystemError) -> R
) throws(StorageError) -> R {
    do throws(SystemError) {
        return try body()
    } catch {
        throw error.isNoSpace ? .noSpace(path: path) : .system(error)
    }
}
