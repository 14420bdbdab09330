// SPDX-License-Identifier: Apache-2.0
package import Fleets

extension SecretBytes {
    /// A new value in the form that a fleet file asks for, from the kernel's random numbers.
    ///
    /// - `hex16`, `hex32`, `hex64`: that many hexadecimal digits, of 4 random bits each.
    /// - `base64`: 32 random bytes in base64, 44 characters.
    /// - `password`: 24 letters and digits (139 random bits) without those that are easily taken
    ///   for each other: 0 O o, 1 I l.
    ///
    /// None ends with a newline. The corresponding C function is `getrandom`.
    package static func random(_ form: GeneratedSecret) -> SecretBytes {
        switch form {
        case .hex16: random(16, of: "0123456789abcdef")
        case .hex32: random(32, of: "0123456789abcdef")
        case .hex64: random(64, of: "0123456789abcdef")
        case .password:
            random(24, of: "23456789abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ")
        case .base64: randomBase64()
        }
    }

    private static func random(_ count: Int, of characters: String) -> SecretBytes {
        let characters = Array(characters.utf8)
        return SecretBytes(count: count) { place in
            var generator = SystemRandomNumberGenerator()
            for index in place.indices {
                place[index] = characters[Int.random(in: characters.indices, using: &generator)]
            }
        }
    }

    /// 256 bits are 42 digits of 6 bits and one whose last two bits are zero, made in place.
    private static func randomBase64() -> SecretBytes {
        SecretBytes(count: 44) { place in
            var generator = SystemRandomNumberGenerator()
            for index in 0..<42 {
                place[index] = Base64.digits[Int.random(in: 0..<64, using: &generator)]
            }
            place[42] = Base64.digits[4 * Int.random(in: 0..<16, using: &generator)]
            place[43] = UInt8(ascii: "=")
        }
    }
}

/// Base64 (RFC 4648) with its padding.
enum Base64 {
    static let digits = Array(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    private static let values: [UInt8: UInt32] = Dictionary(
        uniqueKeysWithValues: digits.enumerated().map { ($1, UInt32($0)) })

    /// Nil for anything that an encoder would not write.
    static func decode(_ text: some StringProtocol) -> [UInt8]? {
        let text = Array(text.utf8)
        guard !text.isEmpty, text.count.isMultiple(of: 4) else { return nil }
        let padding = text.suffix(2).count { $0 == UInt8(ascii: "=") }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.count / 4 * 3)
        var bits: UInt32 = 0
        for (index, digit) in text.dropLast(padding).enumerated() {
            guard let value = values[digit] else { return nil }
            bits = bits << 6 | value
            if index % 4 == 3 {
                bytes += [UInt8(bits >> 16), UInt8(bits >> 8 & 255), UInt8(bits & 255)]
                bits = 0
            }
        }
        switch padding {
        case 0: return bytes
        case 1: return bits & 3 == 0 ? bytes + [UInt8(bits >> 10), UInt8(bits >> 2 & 255)] : nil
        default: return bits & 15 == 0 ? bytes + [UInt8(bits >> 4)] : nil
        }
    }
}
