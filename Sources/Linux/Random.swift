// SPDX-License-Identifier: Apache-2.0

/// `count` random hexadecimal digits.
package func randomHex(_ count: Int) -> String {
    var generator = SystemRandomNumberGenerator()
    return String(
        (0..<count).map { _ in "0123456789abcdef".randomElement(using: &generator) ?? "0" })
}
