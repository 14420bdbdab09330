// SPDX-License-Identifier: Apache-2.0
import CCrypto

/// What a certificate in PEM says of itself.
package struct Certificate: Sendable, Equatable {
    /// Why it cannot be looked at.
    package enum Problem: Error, Equatable, CustomStringConvertible {
        case noLibrary, unreadable, noKey

        package var description: String {
            switch self {
            case .noLibrary: "libcrypto.so.3, which reads certificates, is not installed (libssl3)"
            case .unreadable: "it holds no certificate in PEM"
            case .noKey: "the key is no private key in PEM, or has a passphrase"
            }
        }
    }

    /// Who signed it.
    package let issuer: String
    /// Seconds since 1970.
    package let begins: Int64
    package let ends: Int64
    /// When it wants to be renewed: with a third of its time left.
    package var renewal: Int64 { ends - (ends - begins) / 3 }
    /// Whether it is for the host name that was asked for, by a wildcard too.
    package let namesHost: Bool
    /// Whether the key is the one that it was made for; false without a key.
    package let fitsKey: Bool

    /// Reads the first certificate of a chain; the corresponding C function is `PEM_read_bio_X509`.
    package init(_ pem: [UInt8], host: String, key: [UInt8]? = nil) throws(Problem) {
        if pem.isEmpty { throw .unreadable }
        if key?.isEmpty == true { throw .noKey }
        var found = ml_certificate()
        let result = pem.withUnsafeBytes { pem in
            (key ?? []).withUnsafeBytes { key in
                pem.baseAddress.map { start in
                    ml_read_certificate(
                        start.assumingMemoryBound(to: CChar.self), pem.count, host,
                        key.baseAddress?.assumingMemoryBound(to: CChar.self), key.count, &found)
                }
            }
        }
        switch result {
        case .some(Int32(ml_certificate_ok)): break
        case .some(Int32(ml_certificate_no_library)): throw .noLibrary
        case .some(Int32(ml_certificate_no_key)): throw .noKey
        default: throw .unreadable
        }
        issuer = withUnsafeBytes(of: &found.issuer) {
            String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
        }
        (begins, ends) = (found.begins, found.ends)
        (namesHost, fitsKey) = (found.names_host != 0, found.fits_key != 0)
    }
}
