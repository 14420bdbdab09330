// SPDX-License-Identifier: Apache-2.0
import Archives
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
    private let handle: ArchiveHandle
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
        handle = try ArchiveHandle.forBackup([.raw], unpacking: [.zstd])
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
    }

    deinit {
        if input >= 0 { close(input) }
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
        do {
            try handle.open { [unowned self] in fill() }
            guard let entry = try handle.next(), !entry.isDoubtful else {
                throw ArchiveHandle.Failure(text: handle.complaint ?? "unknown")
            }
        } catch let found as ArchiveHandle.Failure {
            throw try reason(found.text)
        }
    }

    /// More packed bytes for libarchive.
    private func fill() -> UnsafeRawBufferPointer? {
        do {
            let count = try check("read \(name)") {
                Glibc.read(input, buffer.baseAddress, buffer.count)
            }
            return UnsafeRawBufferPointer(rebasing: buffer[..<count])
        } catch {
            self.error = error
            return nil
        }
    }

    /// The next piece of the tar; empty at its end.
    func next() throws -> UnsafeRawBufferPointer {
        let count: Int
        do { count = try handle.read(into: output) } catch { throw try reason(error.text) }
        let piece = UnsafeRawBufferPointer(rebasing: output[..<count])
        lastStart = given
        given += Int64(count)
        last = piece
        return piece
    }

    /// The same for the archive inside; what it fails of stays in `error`.
    func piece() -> UnsafeRawBufferPointer? {
        do { return try next() } catch {
            self.error = error
            return nil
        }
    }

    /// What is wrong with the archive, of which `text` was said; or why it could not be read.
    func failure(_ text: String?) -> any Error {
        error ?? damaged("it is cut off, changed or no backup (\(text ?? "unknown"))")
    }

    /// The same; what delivers the bytes knows better than who unpacks them.
    private func reason(_ text: String) throws -> any Error {
        if error == nil, let complaint = try complaint() { return complaint }
        return failure(text)
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

extension ArchiveHandle {
    /// A new one, or the error that says what to install.
    static func forBackup(
        _ formats: [Format], unpacking packings: [Packing] = []
    ) throws -> ArchiveHandle {
        guard let handle = ArchiveHandle(formats, unpacking: packings) else {
            throw StorageError.missingTool(name: library.name, package: library.package)
        }
        return handle
    }
}
