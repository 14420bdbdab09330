// SPDX-License-Identifier: Apache-2.0
import Glibc

/// Time without Foundation: that keeps the supervisor small and the start fast.
package enum Clock {
    /// Nanoseconds since the host started; never jumps.
    ///
    /// The corresponding C function is `clock_gettime(CLOCK_MONOTONIC)`.
    package static func monotonic() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// Seconds since 1970.
    package static func now() -> Int64 { Int64(time(nil)) }

    /// UTC in the form `2026-11-20T12:00:00Z`.
    package static func iso8601(_ seconds: Int64) -> String {
        var value = time_t(seconds)
        var parts = tm()
        gmtime_r(&value, &parts)
        func two(_ n: Int32) -> String { n < 10 ? "0\(n)" : "\(n)" }
        let date = "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))"
        return "\(date)T\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))Z"
    }

    /// The kernel's random id of this boot of the host: a record with another one is from before a reboot.
    package static func bootID() -> String {
        let text = (try? Files.readText("/proc/sys/kernel/random/boot_id")) ?? ""
        return String(text.prefix { $0 != "\n" })
    }
}
