// SPDX-License-Identifier: Apache-2.0

/// A number followed by a unit; `units` maps each unit to its factor, largest first.
private func quantity(_ text: String, _ units: [(String, UInt64)]) -> UInt64? {
    guard let unit = units.first(where: { text.hasSuffix($0.0) }) else { return nil }
    let digits = text.dropLast(unit.0.count)
    guard let first = digits.utf8.first, (0x30...0x39).contains(first) else { return nil }
    if let whole = UInt64(digits) {
        let (product, overflow) = whole.multipliedReportingOverflow(by: unit.1)
        return overflow ? nil : product
    }
    // 1.5GiB is welcome as long as it is a whole number of the smallest unit.
    let parts = digits.pieces(".")
    guard parts.count == 2, let whole = UInt64(parts[0]), parts[1].count <= 3,
        let part = UInt64(parts[1])
    else { return nil }
    let scale = [10, 100, 1000][parts[1].count - 1] as UInt64
    let (product, overflow) = (whole &* scale &+ part).multipliedReportingOverflow(by: unit.1)
    guard whole < 1 << 32, !overflow, product % scale == 0 else { return nil }
    return product / scale
}

/// The largest unit that needs no fraction.
private func notation(_ value: UInt64, _ units: [(String, UInt64)]) -> String {
    guard let (name, factor) = units.first(where: { value % $0.1 == 0 && value >= $0.1 }) else {
        return "0" + (units.last?.0 ?? "")
    }
    return "\(value / factor)\(name)"
}

private let byteUnits: [(String, UInt64)] = [
    ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1),
]

/// A number of bytes, written `512MiB`.
package struct ByteSize: Notation, Comparable {
    package var bytes: UInt64

    package init(bytes: UInt64) { self.bytes = bytes }
    package init?(_ text: String) {
        guard let bytes = quantity(text, byteUnits), bytes <= 1 << 60 else { return nil }
        self.bytes = bytes
    }

    package static func mebibytes(_ count: UInt64) -> ByteSize { ByteSize(bytes: count << 20) }
    package static func gibibytes(_ count: UInt64) -> ByteSize { ByteSize(bytes: count << 30) }
    package static func < (a: ByteSize, b: ByteSize) -> Bool { a.bytes < b.bytes }

    package var description: String { notation(bytes, byteUnits) }
    package static var expected: String { "a size such as 512MiB" }
    package static var pattern: String { #"^[0-9]+(\.[0-9]{1,3})?(B|KiB|MiB|GiB|TiB)$"# }
}

/// Bytes per second, written `50MiB/s`.
package struct ByteRate: Notation {
    package var bytesPerSecond: UInt64

    package init?(_ text: String) {
        guard text.hasSuffix("/s"), let size = ByteSize(String(text.dropLast(2))), size.bytes > 0
        else { return nil }
        bytesPerSecond = size.bytes
    }

    package var description: String { ByteSize(bytes: bytesPerSecond).description + "/s" }
    package static var expected: String { "a rate such as 50MiB/s" }
    package static var pattern: String { #"^[0-9]+(\.[0-9]{1,3})?(B|KiB|MiB|GiB|TiB)/s$"# }
}

/// Bits per second in powers of ten, as networks count: `100Mbit/s`.
package struct BitRate: Notation {
    package var bitsPerSecond: UInt64

    private static let units: [(String, UInt64)] = [
        ("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000), ("bit/s", 1),
    ]

    package init?(_ text: String) {
        guard let bits = quantity(text, Self.units), bits > 0 else { return nil }
        bitsPerSecond = bits
    }

    package var description: String { notation(bitsPerSecond, Self.units) }
    package static var expected: String { "a rate such as 100Mbit/s" }
    package static var pattern: String { #"^[0-9]+(\.[0-9]{1,3})?[kMG]?bit/s$"# }
}

/// A span of time in whole milliseconds, written `90s`.
package struct Period: Notation, Comparable {
    package var milliseconds: Int64

    private static let units: [(String, UInt64)] = [
        ("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000),
    ]

    package init(milliseconds: Int64) { self.milliseconds = milliseconds }
    package init?(_ text: String) {
        guard let value = quantity(text, Self.units), value <= 3_155_760_000_000 else { return nil }
        milliseconds = Int64(value)
    }

    package static func seconds(_ count: Int64) -> Period { Period(milliseconds: count * 1_000) }
    package static func < (a: Period, b: Period) -> Bool { a.milliseconds < b.milliseconds }
    package var duration: Duration { .milliseconds(milliseconds) }
    package var seconds: Double { Double(milliseconds) / 1_000 }

    package var description: String {
        // 90s stays 90s, and 60s does not turn into 1m: a person compares with what was written.
        if milliseconds % 1_000 != 0 { return "\(milliseconds)ms" }
        if milliseconds % 86_400_000 == 0, milliseconds > 0 {
            return "\(milliseconds / 86_400_000)d"
        }
        if milliseconds % 3_600_000 == 0, milliseconds > 0 {
            return "\(milliseconds / 3_600_000)h"
        }
        if milliseconds % 60_000 == 0, milliseconds >= 600_000 {
            return "\(milliseconds / 60_000)m"
        }
        return "\(milliseconds / 1_000)s"
    }
    package static var expected: String { "a duration such as 30s" }
    package static var pattern: String { #"^[0-9]+(\.[0-9]{1,3})?(ms|s|m|h|d)$"# }
}

/// Hundredths of one CPU, written `150%`.
package struct Percent: Notation, Comparable {
    package var value: Int

    package init?(_ text: String) {
        guard text.hasSuffix("%"), let value = Int(text.dropLast()), (1...100_000).contains(value)
        else { return nil }
        self.value = value
    }

    package static func < (a: Percent, b: Percent) -> Bool { a.value < b.value }
    package var description: String { "\(value)%" }
    package static var expected: String { "a percentage of one CPU such as 150%" }
    package static var pattern: String { "^[0-9]+%$" }
}
