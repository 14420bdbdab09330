// SPDX-License-Identifier: Apache-2.0

/// Numbers as people read them.
package enum Units {
    /// `512 MiB`, `1.5 GiB`, `0 B`.
    package static func bytes(_ count: Int64) -> String {
        let names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
        var value = Double(count)
        var index = 0
        while value.magnitude >= 1023.95, index < names.count - 1 {
            value /= 1024
            index += 1
        }
        return index == 0 ? "\(count) B" : "\(decimal(value)) \(names[index])"
    }

    /// `0.3 s`, `4.1 s`, `2 min 5 s`, `3 hours`, `12 days`.
    package static func duration(seconds: Double) -> String {
        let whole = Int(seconds.rounded())
        switch whole {
        case ..<60: return seconds < 59.95 ? "\(oneDecimal(seconds)) s" : "1 min"
        case ..<3600:
            return whole % 60 == 0 ? "\(whole / 60) min" : "\(whole / 60) min \(whole % 60) s"
        case ..<86400: return plural(whole / 3600, "hour")
        default: return plural(whole / 86400, "day")
        }
    }

    /// How long ago a moment was, both in seconds since 1970: `just now`, `5 min ago`, `3 days ago`.
    package static func ago(_ moment: Int64, now: Int64) -> String {
        let passed = now - moment
        switch passed {
        case ..<0: return "in the future"
        case ..<10: return "just now"
        case ..<60: return "\(passed) s ago"
        case ..<3600: return "\(passed / 60) min ago"
        case ..<86400: return plural(Int(passed / 3600), "hour") + " ago"
        default: return plural(Int(passed / 86400), "day") + " ago"
        }
    }

    /// `1 VM`, `3 VMs`.
    package static func plural(_ count: Int, _ noun: String) -> String {
        "\(count) \(noun)" + (count == 1 ? "" : "s")
    }

    /// `1.5`, but `2` rather than `2.0`.
    private static func decimal(_ value: Double) -> String {
        let text = oneDecimal(value)
        return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
    }

    private static func oneDecimal(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return "\(tenths < 0 ? "-" : "")\(tenths.magnitude / 10).\(tenths.magnitude % 10)"
    }
}
