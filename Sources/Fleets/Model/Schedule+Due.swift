// SPDX-License-Identifier: Apache-2.0
import Glibc

/// A moment as the clocks of one place show it.
private struct LocalTime {
    var year: Int32
    /// 1 to 12.
    var month: Int32
    var day: Int32
    var hour: Int32
    var minute: Int32

    /// The corresponding C function is `localtime_r`.
    init(_ seconds: Int64) {
        var time = time_t(seconds)
        var parts = tm()
        localtime_r(&time, &parts)
        (year, month, day) = (parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday)
        (hour, minute) = (parts.tm_hour, parts.tm_min)
    }

    /// Seconds since 1970; of an hour that comes twice its first, and what an hour that is left out
    /// holds comes in the one after it.
    var seconds: Int64 {
        let found = seconds(isSummer: -1)
        // What mktime makes of a time that does not exist, or exists twice, is not said and differs
        // from call to call.
        guard LocalTime(found).shows(as: self) else { return seconds(isSummer: 0) }
        for earlier in [found - 3600, found - 1800] where LocalTime(earlier).shows(as: self) {
            return earlier
        }
        return found
    }

    /// The corresponding C function is `mktime`.
    private func seconds(isSummer: Int32) -> Int64 {
        var parts = tm()
        parts.tm_year = year - 1900
        parts.tm_mon = month - 1
        parts.tm_mday = day
        parts.tm_hour = hour
        parts.tm_min = minute
        parts.tm_isdst = isSummer
        return Int64(mktime(&parts))
    }

    private func shows(as other: LocalTime) -> Bool {
        (year, month, day, hour) == (other.year, other.month, other.day, other.hour)
            && minute == other.minute
    }

    /// 0 is Sunday.
    var weekday: Int32 {
        var parts = tm()
        parts.tm_year = year - 1900
        parts.tm_mon = month - 1
        parts.tm_mday = day
        // Noon is left out nowhere.
        parts.tm_hour = 12
        parts.tm_isdst = -1
        mktime(&parts)
        return parts.tm_wday
    }

    mutating func advanceDay() {
        var parts = tm()
        parts.tm_year = year - 1900
        parts.tm_mon = month - 1
        parts.tm_mday = day + 1
        parts.tm_hour = 12
        parts.tm_isdst = -1
        mktime(&parts)
        (year, month, day) = (parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday)
    }
}

/// The minutes, hours and days on which something is due.
private struct Calendar {
    var minutes: Set<Int32>
    var hours: Set<Int32>
    var days: Set<Int32>
    var months: Set<Int32>
    var weekdays: Set<Int32>
    /// Cron's rule: where both kinds of days are restricted, either of them will do.
    var isEitherDay = false

    static func all(_ range: ClosedRange<Int32>) -> Set<Int32> { Set(range) }

    /// The earliest planned moment of a day after this one.
    ///
    /// Where the clocks are put forward, a later hour and minute may come earlier.
    func first(of day: LocalTime, after moment: Int64) -> Int64? {
        var first: Int64?
        for hour in hours {
            for minute in minutes {
                var time = day
                (time.hour, time.minute) = (hour, minute)
                let seconds = time.seconds
                if seconds > moment { first = min(first ?? seconds, seconds) }
            }
        }
        return first
    }

    func includes(_ time: LocalTime) -> Bool {
        guard months.contains(time.month) else { return false }
        let day = days.contains(time.day)
        let weekday = weekdays.contains(time.weekday)
        return isEitherDay ? day || weekday : day && weekday
    }
}

extension Schedule {
    /// The first planned moment after this one, in seconds since 1970, by the clocks of this host;
    /// nil when there is none within the next nine years.
    ///
    /// What lies in the hour that a change of the clocks leaves out happens right after it, what lies
    /// in the one that comes twice happens once.
    package func next(after moment: Int64) -> Int64? {
        // An hour is an hour, whatever the clocks do: what is planned for each is due in each.
        if calendar.hours.count == 24 { return everyHour(after: moment) }
        var day = LocalTime(moment)
        // A 29th of February may be eight years away.
        for _ in 0..<(9 * 366) {
            if calendar.includes(day), let next = calendar.first(of: day, after: moment) {
                return next
            }
            day.advanceDay()
        }
        return nil
    }

    private func everyHour(after moment: Int64) -> Int64? {
        let calendar = calendar
        var minute = moment - moment.quotientAndRemainder(dividingBy: 60).remainder + 60
        let end = moment + 9 * 366 * 86400
        while minute < end {
            let time = LocalTime(minute)
            if calendar.includes(time) {
                if calendar.minutes.contains(time.minute) { return minute }
                minute += 60
            } else {
                // Days are never shorter than this, so none is jumped over.
                minute += time.hour < 22 ? 3600 : 60
            }
        }
        return nil
    }

    private var calendar: Calendar {
        var calendar = Calendar(
            minutes: [0], hours: [0], days: Calendar.all(1...31), months: Calendar.all(1...12),
            weekdays: Calendar.all(0...6))
        switch text {
        case "hourly": calendar.hours = Calendar.all(0...23)
        case "daily": break
        case "weekly": calendar.weekdays = [1]
        case "monthly": calendar.days = [1]
        default:
            if let time = Schedule.time(text) {
                calendar.hours = [Int32(time.hour)]
                calendar.minutes = [Int32(time.minute)]
            } else {
                readCron(into: &calendar)
            }
        }
        return calendar
    }

    private func readCron(into calendar: inout Calendar) {
        let fields = text.split(separator: " ")
        guard fields.count == 5 else { return }
        calendar.minutes = Schedule.values(fields[0], in: 0...59)
        calendar.hours = Schedule.values(fields[1], in: 0...23)
        calendar.days = Schedule.values(fields[2], in: 1...31)
        calendar.months = Schedule.values(fields[3], in: 1...12)
        // 7 is Sunday, too.
        calendar.weekdays = Set(Schedule.values(fields[4], in: 0...7).map { $0 % 7 })
        calendar.isEitherDay = !fields[2].hasPrefix("*") && !fields[4].hasPrefix("*")
    }

    /// The numbers of a field that was checked when it was read: `*/15`, `1-5`, `1,2,30-40/5`.
    private static func values(_ field: Substring, in range: ClosedRange<Int32>) -> Set<Int32> {
        var values: Set<Int32> = []
        for item in field.split(separator: ",") {
            let parts = item.split(separator: "/")
            let ends =
                parts[0] == "*" ? [] : parts[0].split(separator: "-").compactMap { Int32($0) }
            let first = ends.first ?? range.lowerBound
            let last = ends.count == 1 && parts.count == 1 ? first : ends.dropFirst().last
            let step = parts.count > 1 ? Int(parts[1]) ?? 1 : 1
            let upper = last ?? range.upperBound
            values.formUnion(stride(from: first, through: upper, by: step))
        }
        return values
    }
}

extension Schedule {
    /// Whether something is due that was last done at `last`, or declared at `since`.
    ///
    /// What was missed while the host was off is made up once, however often it was missed.
    package func isDue(last: Int64?, since: Int64, now: Int64) -> Bool {
        guard let planned = next(after: last ?? since) else { return false }
        return planned <= now
    }
}
