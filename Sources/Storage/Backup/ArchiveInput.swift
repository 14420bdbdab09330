// SPDX-License-Identifier: Apache-2.0
import CStorage
import Glibc
package import Linux

/// The bytes of an archive as they lie in its target: a file, or what a program delivers.
package struct ArchiveInput: ~Copyable, Sendable {
    /// For messages.
    package let name: String
    let bytes: Descriptor
    /// The program that delivers them, and what it complains of.
    let child: Child?
    let errors: Int32

    package init(name: String, file: consuming Descriptor) {
        self.name = name
        bytes = file
        child = nil
        errors = -1
    }

    init(name: String, running program: Program, input: Int32? = nil) throws {
        var program = program
        let (reader, writer) = try Pipe().split()
        let (errorReader, errorWriter) = try Pipe().split()
        defer { for fd in [writer, errorWriter] { close(fd) } }
        program.descriptors[0] = input
        program.descriptors[1] = writer
        program.descriptors[2] = errorWriter
        do {
            child = try program.spawn()
        } catch {
            for fd in [reader, errorReader] { close(fd) }
            throw error
        }
        self.name = name
        bytes = Descriptor(owning: reader)
        errors = errorReader
    }
}

extension ArchiveInput {
    /// Waits for the program that delivered the bytes, all of which have been read.
    func finish() throws {
        guard let child else { return }
        let complaint = Descriptor(owning: errors)
        let exit = try child.waitBlocking()
        guard exit.isSuccess else {
            throw StorageError.damaged(path: name, reason: Age.complaint(complaint))
        }
    }
}

/// Reads packed bytes, decrypting and unpacking them: the tar inside.
///
/// Two libarchive handles, one upon the other: the lower one unpacks, and so what comes after the
/// end of the tar can be seen and refused. One thread uses it.
final class TarStream {
    private let library: ml_archive
    private let handle: OpaquePointer
    private let name: String
    /// From the target, then, of an encrypted archive, from age.
    private var children: [(name: String, child: Child, errors: Int32)] = []
    private var input: Int32
    private let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: 1 << 18, alignment: 4096)
    private let output = UnsafeMutableRawBufferPointer.allocate(
        byteCount: 1 << 18, alignment: 4096)
    /// Of the tar, handed out so far, and where the last piece began.
    private var given: Int64 = 0
    private var lastStart: Int64 = 0
    private var last: UnsafeRawBufferPointer?
    private(set) var error: (any Error)?

    /// `identity` is the path of age's key for an encrypted archive.
    init(_ source: consuming ArchiveInput, identity: String?) throws {
        guard let library = ml_archive()?.pointee else {
            throw StorageError.missingTool(name: "libarchive.so.13", package: "libarchive13")
        }
        self.library = library
        name = source.name
        if let child = source.child { children.append(("its target", child, source.errors)) }
        if let identity {
            let program = Program(try Age.find(), ["-d", "-i", identity])
            let age = try ArchiveInput(name: name, running: program, input: source.bytes.raw)
            if let child = age.child { children.append(("age", child, age.errors)) }
            input = try age.bytes.duplicate().release()
        } else {
            input = try source.bytes.duplicate().release()
        }
        guard let handle = library.archive_read_new() else {
            throw StorageError.failed(what: name, output: "no memory for libarchive")
        }
        self.handle = handle
        _ = library.archive_read_support_filter_zstd(handle)
        _ = library.archive_read_support_format_raw(handle)
    }

    deinit {
        if input >= 0 { close(input) }
        _ = library.archive_read_free(handle)
        for (_, child, errors) in children {
            child.signal(SIGKILL)
            _ = try? child.waitBlocking()
            close(errors)
        }
        buffer.deallocate()
        output.deallocate()
    }

    func damaged(_ reason: String) -> StorageError { .damaged(path: name, reason: reason) }

    /// Reads the first bytes; nothing that is not packed with zstd passes.
    func open() throws {
        let opened = library.archive_read_open(
            handle, Unmanaged.passUnretained(self).toOpaque(), nil,
            { _, context, place in
                guard let context else { return -1 }
                return Unmanaged<TarStream>.fromOpaque(context).takeUnretainedValue().fill(place)
            }, nil)
        var entry: OpaquePointer?
        guard opened == 0, library.archive_read_next_header(handle, &entry) == 0 else {
            throw try failure()
        }
    }

    /// More packed bytes for libarchive.
    private func fill(_ place: UnsafeMutablePointer<UnsafeRawPointer?>?) -> Int {
        place?.pointee = UnsafeRawPointer(buffer.baseAddress)
        do {
            return try check("read \(name)") {
                Glibc.read(input, buffer.baseAddress, buffer.count)
            }
        } catch {
            self.error = error
            return -1
        }
    }

    /// The next piece of the tar; empty at its end.
    func next() throws -> UnsafeRawBufferPointer {
        let count = library.archive_read_data(handle, output.baseAddress, output.count)
        guard count >= 0 else { throw try failure() }
        let piece = UnsafeRawBufferPointer(rebasing: output[..<count])
        lastStart = given
        given += Int64(count)
        last = piece
        return piece
    }

    /// The same for libarchive's callback.
    func next(_ place: UnsafeMutablePointer<UnsafeRawPointer?>?) -> Int {
        do {
            let piece = try next()
            place?.pointee = piece.baseAddress
            return piece.count
        } catch {
            self.error = error
            return -1
        }
    }

    /// Why reading failed: what delivers the bytes knows better than who unpacks them.
    private func failure() throws -> any Error {
        if let error { return error }
        if let complaint = try complaint() { return complaint }
        let text = library.archive_error_string(handle).map { String(cString: $0) }
        return damaged("it is cut off, changed or no backup (\(text ?? "unknown"))")
    }

    /// What a program that delivers the bytes failed of.
    private func complaint() throws -> StorageError? {
        defer { children = [] }
        // Who still writes would wait for us as we do for him.
        close(input)
        input = -1
        var found: StorageError?
        for (program, child, errors) in children {
            let errors = Descriptor(owning: errors)
            let exit = try child.waitBlocking()
            if exit.isSuccess || exit == .signal(SIGPIPE) || found != nil { continue }
            let text = Age.complaint(errors)
            // A wrong key is found at once; everything else is what was encrypted.
            let isKey = program == "age" && text.contains("identit")
            found = isKey ? .undecryptable(path: name, reason: text) : damaged(text)
        }
        return found
    }

    /// Checks that nothing follows the tar, whose last byte is at `end`.
    func expectEnd(at end: Int64) throws {
        // What was handed out behind the end lies in the last piece: libarchive asks for no more
        // than it needs to find the end.
        if let last, end < given {
            let rest = last[max(0, Int(end - lastStart))...]
            guard rest.allSatisfy({ $0 == 0 }) else { throw damaged("something follows its end") }
        }
        var padding = 0
        while true {
            let piece = try next()
            if piece.isEmpty { break }
            padding += piece.count
            guard padding <= 1 << 20, piece.allSatisfy({ $0 == 0 }) else {
                throw damaged("something follows its end")
            }
        }
        // The packed stream has ended: what delivers it must have, too.
        var byte: UInt8 = 0
        guard try check("read \(name)", { Glibc.read(input, &byte, 1) }) == 0 else {
            throw damaged("something follows its end")
        }
        if let complaint = try complaint() { throw complaint }
    }
}
