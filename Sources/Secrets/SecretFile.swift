// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// Files that a fleet file names.
enum SecretFile {
    /// Reads a file whose content is the secret itself.
    ///
    /// Bytes are bytes: a newline at the end belongs to it. Links are followed, as tools that put
    /// secrets under /run/secrets change all of them at once through one. What others than its owner
    /// can write is refused: whoever can change a secret has chosen it.
    static func value(_ path: String) throws(SecretError) -> SecretBytes {
        let file = try open(path, for: "a secret is to come from it")
        let mode = try status(file, path).st_mode & 0o7777
        guard mode & 0o022 == 0 else {
            throw .unusable(
                path: path,
                reason:
                    "others than its owner can write it (mode \(String(mode, radix: 8))), and so "
                    + "choose the secret; take that away: chmod go-w \(path)")
        }
        // One byte more than allowed tells a file that is too large.
        let room = UnsafeMutableRawBufferPointer.allocate(
            byteCount: SecretBytes.limit + 1, alignment: 16)
        defer {
            wipe(room)
            room.deallocate()
        }
        var count = 0
        while count < room.count {
            let read = try secret(path) { () throws(SystemError) in
                try check("read \(path)") {
                    Glibc.read(file.raw, room.baseAddress?.advanced(by: count), room.count - count)
                }
            }
            if read == 0 { break }
            count += read
        }
        return try SecretBytes(room[..<count], name: path)
    }

    /// Reads a file that holds a secret in encrypted form.
    static func ciphertext(_ path: String, limit: Int) throws(SecretError) -> [UInt8] {
        let file = try open(path, for: "a secret is to come from it")
        do throws(SystemError) {
            let bytes = try file.readAll(limit: limit)
            if bytes.isEmpty { throw SystemError("read \(path)", ENODATA) }
            return bytes
        } catch {
            switch error.code {
            case EFBIG: throw .tooLarge(path, limit: limit)
            case ENODATA: throw .damaged(path: path, reason: "it is empty")
            default: throw .system(SystemError("read \(path)", error.code))
            }
        }
    }

    /// Tells early, and in our words, that a key file is not there.
    static func checkIdentity(_ path: String) throws(SecretError) {
        _ = try open(path, for: "the age identity that decrypts is expected there")
    }

    /// Opens a regular file and nothing else: a pipe would make us wait, a folder reads as an error.
    private static func open(
        _ path: String, for what: String
    ) throws(SecretError) -> Descriptor {
        let file: Descriptor
        do throws(SystemError) {
            file = try Descriptor.open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY)
        } catch {
            if error.isMissing { throw .missing(path: path, what: what) }
            throw .system(error)
        }
        switch try status(file, path).st_mode & S_IFMT {
        case S_IFREG: return file
        case S_IFDIR:
            throw .unusable(path: path, reason: "it is a folder; name one of the files in it")
        default: throw .unusable(path: path, reason: "it is no regular file")
        }
    }

    private static func status(
        _ file: borrowing Descriptor, _ path: String
    ) throws(SecretError) -> stat {
        var info = stat()
        let raw = file.raw
        let result = fstat(raw, &info)
        guard result == 0 else { throw .system(SystemError("stat \(path)")) }
        return info
    }
}
