// SPDX-License-Identifier: Apache-2.0
import CCrypto
import Glibc

extension SHA256 {
    /// The digest of a file's content, in lower-case hexadecimal.
    ///
    /// Blocks the thread. By OpenSSL's libcrypto, which uses what the CPU has for it and takes an
    /// eighth of the time; where it is not installed, by our own code.
    package static func file(_ path: String) throws(SystemError) -> String {
        let file = try Descriptor.open(path, O_RDONLY)
        var hash = Stream()
        defer { hash.end() }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        while true {
            let count = Glibc.read(file.raw, buffer.baseAddress, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw SystemError("read \(path)") }
            if count == 0 { return hash.finish() }
            hash.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        }
    }
}

extension SHA256 {
    /// The digest of megabytes in memory, by libcrypto as above: loading that takes longer than a
    /// few kilobytes do.
    package static func large(_ bytes: [UInt8]) -> String {
        var hash = Stream()
        defer { hash.end() }
        bytes.withUnsafeBytes { hash.update($0) }
        return hash.finish()
    }

    /// SHA-256 by the fastest code that there is: libcrypto's, else our own.
    package struct Stream {
        private let functions: ml_crypto?
        private var context: OpaquePointer?
        private var own = SHA256()

        package init() {
            functions = ml_crypto()?.pointee
            guard let functions, let context = functions.EVP_MD_CTX_new() else { return }
            if functions.EVP_DigestInit_ex(context, functions.EVP_sha256(), nil) == 1 {
                self.context = context
            } else {
                functions.EVP_MD_CTX_free(context)
            }
        }

        package mutating func update(_ bytes: UnsafeRawBufferPointer) {
            guard let functions, let context else { return own.update(bytes) }
            // It fails for contexts that were not begun alone.
            _ = functions.EVP_DigestUpdate(context, bytes.baseAddress, bytes.count)
        }

        /// The digest in lower-case hexadecimal; nothing may be added after it.
        package mutating func finish() -> String {
            guard let functions, let context else { return own.finish() }
            var digest = [UInt8](repeating: 0, count: 32)
            _ = functions.EVP_DigestFinal_ex(context, &digest, nil)
            return digest.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        }

        /// Gives back what is not Swift's; to be called once, whatever happened.
        package mutating func end() {
            if let functions, let context { functions.EVP_MD_CTX_free(context) }
            context = nil
        }
    }
}
