// SPDX-License-Identifier: Apache-2.0

/// A name that a fleet file takes (a-z, 0-9 and inner `-`), as near to the given one as can be.
func fleetName(_ text: String, limit: Int = 32, else fallback: String) -> String {
    var out: [UInt8] = []
    for byte in text.lowercased().utf8 {
        let isGood = (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte)
        if isGood {
            out.append(byte)
        } else if out.last != UInt8(ascii: "-"), !out.isEmpty {
            out.append(UInt8(ascii: "-"))
        }
        if out.count == limit { break }
    }
    while out.last == UInt8(ascii: "-") { out.removeLast() }
    return out.isEmpty ? fallback : String(decoding: out, as: UTF8.self)
}

/// The name, or with a number behind it so that it is none of those that are taken.
func free(_ name: String, limit: Int = 32, among taken: Set<String>) -> String {
    var candidate = name
    var number = 2
    while taken.contains(candidate) {
        let end = "-\(number)"
        candidate = fleetName(String(name.prefix(limit - end.utf8.count)), else: "x") + end
        number += 1
    }
    return candidate
}

/// A word that can be a tag or the name of a credential; nil when nothing of it is left.
func tagName(_ text: String) -> String? {
    let good = text.utf8.map { byte -> UInt8 in
        let isGood =
            (0x61...0x7A).contains(byte | 0x20) || (0x30...0x39).contains(byte)
            || "-_.".utf8.contains(byte)
        return isGood ? byte : UInt8(ascii: "-")
    }
    let trimmed = good.drop { $0 == UInt8(ascii: "-") }.prefix(36)
    return trimmed.isEmpty ? nil : String(decoding: trimmed, as: UTF8.self)
}

/// The last part of a path, without its ending.
func baseName(_ path: String) -> String {
    let last = path.split(separator: "/").last.map(String.init) ?? path
    guard let dot = last.lastIndex(of: "."), dot != last.startIndex else { return last }
    return String(last[..<dot])
}

/// A subnet that follows from a network's name, so that several imports agree on it.
///
/// It is not the other tool's own: that one is on the host until the other tool gives it up.
func subnet(for network: String) -> String {
    var hash: UInt32 = 2_166_136_261
    for byte in network.utf8 { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
    return "10.\(64 + hash % 64).\(hash >> 8 & 0xFF).0/24"
}

/// A word for use in a shell.
func shellQuoted(_ text: String) -> String {
    let isPlain = text.utf8.allSatisfy {
        (0x61...0x7A).contains($0 | 0x20) || (0x30...0x39).contains($0)
            || "/._-+@=:,".utf8.contains($0)
    }
    if isPlain, !text.isEmpty { return text }
    return "'"
        + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: #"'\''"#)
        + "'"
}
