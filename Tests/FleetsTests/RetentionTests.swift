// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

/// Moments as people write them, in UTC.
@Suite struct RetentionTests {
    private static func time(_ text: String) -> Int64 {
        let parts = text.split { "-T:".contains($0) }.compactMap { Int64($0) }
        let (year, month, day) = (parts[0], parts[1], parts[2])
        // Days from 1970 by counting, so that the test does not share the arithmetic under test.
        var days: Int64 = 0
        func isLeap(_ year: Int64) -> Bool {
            year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        }
        for year in 1970..<year { days += isLeap(year) ? 366 : 365 }
        let lengths: [Int64] = [31, isLeap(year) ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        days += lengths.prefix(Int(month) - 1).reduce(0, +) + day - 1
        let hour = parts.count > 3 ? parts[3] : 0
        let minute = parts.count > 4 ? parts[4] : 0
        return days * 86400 + hour * 3600 + minute * 60
    }

    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        var keep = Retention()
        let kept: [String]
        let gone: [String]
        var now = "2026-11-21T12:00"

        init(
            _ name: String, _ rules: (inout Retention) -> Void, kept: [String], gone: [String]
        ) {
            testDescription = name
            rules(&keep)
            self.kept = kept
            self.gone = gone
        }
    }

    static let cases = [
        Case(
            "the newest of each day", { $0.daily = 2 },
            kept: ["2026-11-21T03:30", "2026-11-20T23:59"],
            gone: ["2026-11-21T00:00", "2026-11-20T00:01", "2026-11-19T23:59"]),
        Case(
            "a gap takes no place", { $0.daily = 2 },
            kept: ["2026-11-21", "2026-08-01"], gone: ["2026-07-31"]),
        Case(
            "weeks begin on Monday", { $0.weekly = 2 },
            // 2026-11-16 is a Monday.
            kept: ["2026-11-16", "2026-11-15"], gone: ["2026-11-09"]),
        Case(
            "week 53 goes over the end of the year", { $0.weekly = 2 },
            // 2026-12-28 to 2027-01-03 is week 53 of 2026: one week, in two years.
            kept: ["2027-01-03T10:00", "2026-12-27"], gone: ["2026-12-31", "2026-12-28"]),
        Case(
            "months differ in length, and years in days", { $0.monthly = 3 },
            kept: ["2024-03-01", "2024-02-29T23:59", "2024-01-31"],
            gone: ["2024-02-28", "2024-01-01", "2023-12-31"]),
        Case(
            "years", { $0.yearly = 2 },
            kept: ["2026-01-01", "2025-12-31T23:59"], gone: ["2025-01-01", "2024-12-31"]),
        Case(
            "hours", { $0.hourly = 2 },
            kept: ["2026-11-21T11:59", "2026-11-21T10:01"],
            gone: ["2026-11-21T11:00", "2026-11-21T10:00", "2026-11-21T09:59"]),
        Case(
            "what one rule keeps stays",
            {
                $0.daily = 1
                $0.monthly = 2
            },
            kept: ["2026-11-21", "2026-10-30"], gone: ["2026-11-20", "2026-10-29"]),
        Case(
            "moments of a clock that was wrong count for nothing", { $0.daily = 1 },
            kept: ["2031-01-01", "2030-01-01", "2026-11-21"], gone: ["2026-11-20"]),
        Case("nothing is kept without a rule", { _ in }, kept: [], gone: ["2026-11-21"]),
        Case(
            "before 1970", { $0.daily = 2 },
            kept: [], gone: []),
    ]

    @Test(arguments: cases) func keepsWhatItShould(_ table: Case) {
        let all = table.kept + table.gone
        var now = Self.time(table.now)
        if let last = table.kept.first, last.hasPrefix("2027") { now = Self.time("2027-01-04") }
        // In any order, and each twice.
        let times = (all + all.reversed()).map(Self.time)
        #expect(
            table.keep.retained(times, now: now) == Set(table.kept.map(Self.time)))
    }

    @Test func whatIsKeptIsKeptAgain() {
        // Pruning what is pruned takes nothing more away.
        var random = SystemRandomNumberGenerator()
        for _ in 0..<50 {
            let times = (0..<60).map { _ in Int64.random(in: 0...1_800_000_000, using: &random) }
            var keep = Retention(daily: 3, weekly: 2, monthly: 4)
            keep.hourly = 2
            keep.yearly = 3
            let once = keep.retained(times, now: 1_800_000_000)
            #expect(keep.retained(Array(once), now: 1_800_000_000) == once)
            #expect(times.max().map(once.contains) == true)
        }
    }

    @Test func ofOneSecondTheNewestIsEnough() {
        let things = [("a", 10), ("c", 20), ("b", 20), ("d", 90_000)].map { ($0.0, Int64($0.1)) }
        let kept = Retention(daily: 2, weekly: 0, monthly: 0).retained(
            things, at: { $0.1 }, now: 100_000)
        #expect(kept.map(\.0) == ["b", "d"])
    }
}
