// SPDX-License-Identifier: Apache-2.0

/// A hardware address, written `02:00:00:00:00:01`.
package struct MACAddress: Notation {
    /// The 48 bits, first octet highest.
    package var bits: UInt64

    package init(bits: UInt64) { self.bits = bits & 0xFFFF_FFFF_FFFF }
    package init?(_ text: String) {
        let octets = text.pieces(":")
        guard octets.count == 6 else { return nil }
        bits = 0
        for octet in octets {
            guard octet.utf8.count == 2, octet.first?.isHexDigit == true,
                let value = UInt8(octet, radix: 16)
            else { return nil }
            bits = bits << 8 | UInt64(value)
        }
    }

    package var octets: [UInt8] { (0..<6).map { UInt8(truncatingIfNeeded: bits >> (40 - 8 * $0)) } }
    package var isMulticast: Bool { bits >> 40 & 1 == 1 }
    package var description: String { octets.map { hex($0, 2) }.joined(separator: ":") }
    package static var expected: String { "a MAC address such as 02:00:00:00:00:01" }
    package static var pattern: String { "^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$" }
}

/// An integer in lower-case hexadecimal with leading zeros.
func hex(_ value: some BinaryInteger, _ digits: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
}

/// An IPv4 address.
package struct IPv4: Notation, Comparable {
    package var value: UInt32

    package init(_ value: UInt32) { self.value = value }
    package init?(_ text: String) {
        value = 0
        let parts = text.pieces(".")
        guard parts.count == 4 else { return nil }
        for part in parts {
            // 010 is eight to some readers and ten to others.
            guard part.utf8.count <= 3, part.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                part == "0" || !part.hasPrefix("0"), let octet = UInt8(part)
            else { return nil }
            value = value << 8 | UInt32(octet)
        }
    }

    package static func < (a: IPv4, b: IPv4) -> Bool { a.value < b.value }
    package var octets: [UInt8] { [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) } }
    package var description: String { octets.map { String($0) }.joined(separator: ".") }
    package static var expected: String { "an IPv4 address such as 10.1.0.2" }
    package static var pattern: String { #"^[0-9]{1,3}(\.[0-9]{1,3}){3}$"# }
}

/// An IPv4 network, written `10.1.0.0/24`.
package struct CIDR: Notation {
    package var base: IPv4
    package var prefix: Int

    package init(base: IPv4, prefix: Int) {
        self.base = base
        self.prefix = prefix
    }
    package init?(_ text: String) {
        let parts = text.pieces("/")
        guard parts.count == 2, let base = IPv4(String(parts[0])), parts[1].utf8.count <= 2,
            let prefix = UInt8(parts[1]), prefix <= 32
        else { return nil }
        self.init(base: base, prefix: Int(prefix))
        guard base.value & ~mask == 0 else { return nil }
    }

    package var mask: UInt32 { prefix == 0 ? 0 : ~0 << (32 - UInt32(prefix)) }
    package var broadcast: IPv4 { IPv4(base.value | ~mask) }
    package var firstHost: IPv4 { IPv4(base.value + (prefix < 31 ? 1 : 0)) }
    package func contains(_ address: IPv4) -> Bool { address.value & mask == base.value }
    package func overlaps(_ other: CIDR) -> Bool {
        contains(other.base) || other.contains(base)
    }
    package var description: String { "\(base)/\(prefix)" }
    package static var expected: String { "a subnet such as 10.1.0.0/24, without host bits" }
    package static var pattern: String { #"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$"# }
}

/// An IPv6 address.
package struct IPv6: Notation {
    package var high: UInt64
    package var low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
    package init?(_ text: String) {
        let halves = text.split(separator: "::", omittingEmptySubsequences: false)
        guard halves.count <= 2, !text.isEmpty else { return nil }
        var groups: [[UInt64]] = []
        for half in halves {
            var list: [UInt64] = []
            if !half.isEmpty {
                for group in half.pieces(":") {
                    guard (1...4).contains(group.utf8.count), group.first?.isHexDigit == true,
                        let value = UInt16(group, radix: 16)
                    else { return nil }
                    list.append(UInt64(value))
                }
            }
            groups.append(list)
        }
        let written = groups.reduce(0) { $0 + $1.count }
        guard halves.count == 2 ? written < 8 : written == 8 else { return nil }
        var all = groups[0] + Array(repeating: 0, count: 8 - written)
        if halves.count == 2 { all += groups[1] }
        high = all[..<4].reduce(0) { $0 << 16 | $1 }
        low = all[4...].reduce(0) { $0 << 16 | $1 }
    }

    /// The canonical form of RFC 5952: lower case, the longest run of zeros shortened.
    package var description: String {
        let groups = (0..<8).map { ($0 < 4 ? high : low) >> (48 - 16 * ($0 % 4)) & 0xFFFF }
        var best = 0..<0
        var start = 0
        for index in 0...8 where index == 8 || groups[index] != 0 {
            if index - start > max(1, best.count) { best = start..<index }
            start = index + 1
        }
        let text = { (part: ArraySlice<UInt64>) in
            part.map { String($0, radix: 16) }.joined(separator: ":")
        }
        if best.isEmpty { return text(groups[...]) }
        return text(groups[..<best.lowerBound]) + "::" + text(groups[best.upperBound...])
    }
    package static var expected: String { "an IPv6 address such as fd00::1" }
    package static var pattern: String { "^[0-9A-Fa-f:]+$" }
}

/// An IPv6 network, written `fd00:1::/64`.
package struct CIDR6: Notation {
    package var base: IPv6
    package var prefix: Int

    package init(base: IPv6, prefix: Int) {
        self.base = base
        self.prefix = prefix
    }
    package init?(_ text: String) {
        let parts = text.pieces("/")
        guard parts.count == 2, let base = IPv6(String(parts[0])), let prefix = UInt8(parts[1]),
            prefix <= 128
        else { return nil }
        self.init(base: base, prefix: Int(prefix))
        guard base.high & ~mask.high == 0, base.low & ~mask.low == 0 else { return nil }
    }

    private var mask: IPv6 {
        IPv6(
            high: prefix == 0 ? 0 : ~0 << UInt64(64 - min(prefix, 64)),
            low: prefix <= 64 ? 0 : ~0 << UInt64(128 - prefix))
    }
    package func contains(_ address: IPv6) -> Bool {
        address.high & mask.high == base.high && address.low & mask.low == base.low
    }
    package func overlaps(_ other: CIDR6) -> Bool { contains(other.base) || other.contains(base) }
    package var description: String { "\(base)/\(prefix)" }
    package static var expected: String { "a subnet such as fd00:1::/64, without host bits" }
    package static var pattern: String { "^[0-9A-Fa-f:]+/[0-9]{1,3}$" }
}

/// An address of either family.
package enum IPAddress: Notation {
    case v4(IPv4)
    case v6(IPv6)

    package init?(_ text: String) {
        if let address = IPv4(text) {
            self = .v4(address)
        } else if let address = IPv6(text) {
            self = .v6(address)
        } else {
            return nil
        }
    }

    package static let any = IPAddress.v4(IPv4(0))
    /// 0.0.0.0 and :: stand for every address of the host.
    package var isAny: Bool { self == .any || self == .v6(IPv6(high: 0, low: 0)) }
    package var description: String {
        switch self {
        case .v4(let address): address.description
        case .v6(let address): address.description
        }
    }
    package static var expected: String { "an address such as 9.9.9.9" }
    package static var pattern: String { #"^[0-9A-Fa-f:.]+$"# }
}

/// The addresses that mean something else on each host, or nothing to the outside: the host itself,
/// its neighbours, groups.
package enum PrivateRanges {
    package static let v4 = [
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
    ].compactMap { CIDR($0) }
    /// The first one has IPv4 addresses written as IPv6 in it, and 2002::/16 and 64:ff9b::/32 lead
    /// to such.
    package static let v6 = [
        "::/16", "64:ff9b::/32", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8",
    ].compactMap { CIDR6($0) }
}
