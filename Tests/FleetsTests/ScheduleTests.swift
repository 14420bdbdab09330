// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Testing

/// Serialized: the time zone is one of the whole process.
@Suite(.serialized) struct ScheduleTests {
    private func moment(_ text: String) throws -> Int64 {
        let numbers = text.split { !$0.isNumber }.compactMap { Int32($0) }
        try #require(numbers.count == 5, "\(text)")
        var parts = tm()
        (parts.tm_year, parts.tm_mon, parts.tm_mday) = (
            numbers[0] - 1900, numbers[1] - 1, numbers[2]
        )
        (parts.tm_hour, parts.tm_min) = (numbers[3], numbers[4])
        return Int64(timegm(&parts))
    }

    private func text(_ seconds: Int64?) -> String {
        guard let seconds else { return "never" }
        var time = time_t(seconds)
        var parts = tm()
        gmtime_r(&time, &parts)
        var buffer = [CChar](repeating: 0, count: 32)
        let count = strftime(&buffer, buffer.count, "%Y-%m-%d %H:%M", &parts)
        return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private func next(_ schedule: String, _ after: String, zone: String = "UTC") throws -> String {
        setenv("TZ", zone, 1)
        tzset()
        let schedule = try #require(Schedule(schedule), "\(schedule)")
        return text(schedule.next(after: try moment(after)))
    }

    @Test(
        arguments: [
            ("hourly", "2026-11-21 12:00", "2026-11-21 13:00"),
            ("hourly", "2026-11-21 12:59", "2026-11-21 13:00"),
            ("daily", "2026-11-21 00:00", "2026-11-22 00:00"),
            ("daily", "2026-12-31 23:59", "2027-01-01 00:00"),
            // A Saturday, and a Monday itself.
            ("weekly", "2026-11-21 12:00", "2026-11-23 00:00"),
            ("weekly", "2026-11-23 00:00", "2026-11-30 00:00"),
            ("monthly", "2026-01-31 12:00", "2026-02-01 00:00"),
            ("monthly", "2026-12-01 00:00", "2027-01-01 00:00"),
            ("03:30", "2026-11-21 03:29", "2026-11-21 03:30"),
            ("03:30", "2026-11-21 03:30", "2026-11-22 03:30"),
            ("*/15 * * * *", "2026-11-21 12:46", "2026-11-21 13:00"),
            ("5/20 * * * *", "2026-11-21 12:46", "2026-11-21 13:05"),
            ("0 3 * * *", "2026-11-21 12:00", "2026-11-22 03:00"),
            ("10,40 8-10/2 * * *", "2026-11-21 08:40", "2026-11-21 10:10"),
            ("0 0 31 * *", "2026-11-01 00:00", "2026-12-31 00:00"),
            ("0 0 29 2 *", "2026-01-01 00:00", "2028-02-29 00:00"),
            ("30 * 29 2 *", "2026-01-01 00:00", "2028-02-29 00:30"),
            ("0 0 30 2 *", "2026-01-01 00:00", "never"),
            ("0 0 * * 7", "2026-11-21 12:00", "2026-11-22 00:00"),
            ("0 0 * * 1-5", "2026-11-21 12:00", "2026-11-23 00:00"),
            // Either of the two days where both are given.
            ("0 0 13 * 5", "2026-11-11 00:00", "2026-11-13 00:00"),
            ("0 0 13 * 5", "2026-11-13 00:00", "2026-11-20 00:00"),
            ("0 0 13 * *", "2026-11-13 00:00", "2026-12-13 00:00"),
        ]) func theNextPlannedMoment(schedule: String, after: String, expected: String) throws
    {
        #expect(try next(schedule, after) == expected)
    }

    /// In Berlin the clocks go from 02:00 to 03:00 on 2026-03-29 and from 03:00 back to 02:00 on
    /// 2026-10-25, both at 01:00 UTC.
    @Test(
        arguments: [
            // In local time, wherever the host is.
            ("03:30", "2026-11-21 12:00", "2026-11-22 02:30"),
            // The hour that is left out: once, in the hour after it.
            ("02:30", "2026-03-28 12:00", "2026-03-29 01:30"),
            ("02:30", "2026-03-29 01:30", "2026-03-30 00:30"),
            ("0,45 2,3 * * *", "2026-03-29 00:30", "2026-03-29 01:00"),
            // The hour that comes twice: once, at its first.
            ("02:30", "2026-10-24 12:00", "2026-10-25 00:30"),
            ("02:30", "2026-10-25 00:30", "2026-10-26 01:30"),
            // Every hour is every hour.
            ("hourly", "2026-10-25 00:00", "2026-10-25 01:00"),
            ("hourly", "2026-10-25 01:00", "2026-10-25 02:00"),
            ("hourly", "2026-03-29 00:00", "2026-03-29 01:00"),
            ("daily", "2026-03-28 23:00", "2026-03-29 22:00"),
        ]) func clocksThatChange(schedule: String, after: String, expected: String) throws
    {
        #expect(try next(schedule, after, zone: "Europe/Berlin") == expected)
    }

    @Test func whatWasMissedIsDueOnce() throws {
        setenv("TZ", "UTC", 1)
        tzset()
        let daily = try #require(Schedule("daily"))
        let declared = try moment("2026-11-01 12:00")
        let now = try moment("2026-11-21 12:00")
        // Not at once, but at the first planned time after it was declared.
        #expect(!daily.isDue(last: nil, since: now - 60, now: now))
        #expect(daily.isDue(last: nil, since: declared, now: now))
        #expect(!daily.isDue(last: now, since: declared, now: now + 60))
        #expect(daily.isDue(last: now, since: declared, now: try moment("2026-11-22 00:00")))
    }
}
