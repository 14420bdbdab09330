// SPDX-License-Identifier: Apache-2.0
import CCrypto
import Glibc
import Linux

/// What sops encrypts and hashes with, from OpenSSL's libcrypto.
struct Crypto {
    private let functions: ml_crypto

    init() throws(SecretError) {
        guard let functions = ml_crypto() else {
            throw .missingTool(
                name: "libcrypto.so.3", package: "libssl3, or libssl3t64 from Debian 13 on")
        }
        self.functions = functions.pointee
    }

    /// Decrypts with AES-256 in Galois counter mode; nil unless key, text and `additional` are
    /// exactly those that it was encrypted with.
    ///
    /// The key has 32 bytes, the tag 16; the initialisation vector may have any length but zero. The
    /// corresponding C function is `EVP_CipherInit_ex`.
    func open(
        _ text: [UInt8], key: SecretBytes, iv: [UInt8], tag: [UInt8], additional: [UInt8]
    ) throws(SecretError) -> SecretBytes? {
        guard key.count == 32, tag.count == 16, !iv.isEmpty else { return nil }
        guard let context = functions.EVP_CIPHER_CTX_new() else {
            throw .system(.init("AES", ENOMEM))
        }
        defer { functions.EVP_CIPHER_CTX_free(context) }
        guard
            functions.EVP_CipherInit_ex(context, functions.EVP_aes_256_gcm(), nil, nil, nil, 0)
                == 1,
            // Before the vector itself: the usual length is 12, and a longer one would be cut off.
            functions.EVP_CIPHER_CTX_ctrl(
                context, Int32(ml_gcm_set_iv_length), Int32(iv.count), nil) == 1,
            key.withBytes({ key in
                functions.EVP_CipherInit_ex(
                    context, nil, nil, key.baseAddress?.assumingMemoryBound(to: UInt8.self), iv, 0)
            }) == 1
        else { throw .system(.init("AES", EINVAL)) }
        var count: Int32 = 0
        guard
            functions.EVP_CipherUpdate(context, nil, &count, additional, Int32(additional.count))
                == 1
        else { return nil }
        var isWhole = false
        let plain = SecretBytes(count: text.count) { place in
            let start = place.baseAddress?.assumingMemoryBound(to: UInt8.self)
            var tag = tag
            var rest: Int32 = 0
            isWhole =
                functions.EVP_CipherUpdate(context, start, &count, text, Int32(text.count)) == 1
                && Int(count) == text.count
                && functions.EVP_CIPHER_CTX_ctrl(
                    context, Int32(ml_gcm_set_tag), Int32(tag.count), &tag) == 1
                // Only here the tag is compared: until then nothing of the text may be used.
                && functions.EVP_CipherFinal_ex(context, start, &rest) == 1
        }
        return isWhole ? plain : nil
    }

    /// SHA-512 of pieces one after the other, in upper-case hexadecimal.
    ///
    /// The corresponding C function is `EVP_DigestUpdate`.
    func sha512(_ pieces: [SecretBytes]) throws(SecretError) -> String {
        guard let context = functions.EVP_MD_CTX_new() else {
            throw .system(.init("SHA-512", ENOMEM))
        }
        defer { functions.EVP_MD_CTX_free(context) }
        var isDone = functions.EVP_DigestInit_ex(context, functions.EVP_sha512(), nil) == 1
        for piece in pieces {
            isDone =
                isDone
                && piece.withBytes {
                    functions.EVP_DigestUpdate(context, $0.baseAddress, $0.count) == 1
                }
        }
        var digest = [UInt8](repeating: 0, count: 64)
        guard isDone, functions.EVP_DigestFinal_ex(context, &digest, nil) == 1 else {
            throw .system(.init("SHA-512", EINVAL))
        }
        return digest.map {
            ($0 < 16 ? "0" : "") + String($0, radix: 16, uppercase: true)
        }.joined()
    }
}
