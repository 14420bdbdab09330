// SPDX-License-Identifier: Apache-2.0

extension Retention {
    /// Which of these moments, in seconds since 1970, a retention keeps.
    ///
    /// Each rule keeps the newest moment of each of its newest hours, days, ISO weeks, months or years
    /// (UTC) that have any: a gap takes no place. What one rule keeps stays, whatever the others
    /// say. Moments after `now`, which a clock that was wrong has left, are kept and counted nowhere.
    package func retained(_ times: some Sequence<Int64>, now: Int64) -> Set<Int64> {
        let times = Set(times)
        let past = times.filter { $0 <= now }.sorted(by: >)
        var kept = times.filter { $0 > now }
        let rules: [(count: Int, period: (Int64) -> Int64)] = [
            (hourly, { floor($0, by: 3600) }),
            (daily, { floor($0, by: 86400) }),
            // 1970-01-01 was a Thursday: shifted by three days, weeks begin on Mondays.
            (weekly, { floor($0 + 3 * 86400, by: 7 * 86400) }),
            (monthly, { month($0) }),
            (yearly, { floor(month($0), by: 12) }),
        ]
        for rule in rules where rule.count > 0 {
            var periods: Set<Int64> = []
            for time in past where periods.insert(rule.period(time)).inserted {
                if periods.count > rule.count { break }
                kept.insert(time)
            }
        }
        return kept
    }

    /// Which of these things, oldest first, a retention keeps; of several of one second, the newest.
    package func retained<Thing>(
        _ things: [Thing], at time: (Thing) -> Int64, now: Int64
    ) -> [Thing] {
        let times = retained(things.map(time), now: now)
        let newest = Dictionary(
            things.indices.map { (time(things[$0]), $0) }, uniquingKeysWith: { max($0, $1) })
        return things.indices.compactMap { index in
            let moment = time(things[index])
            return times.contains(moment) && newest[moment] == index ? things[index] : nil
        }
    }
}

/// Division that rounds down, also below zero.
private func floor(_ value: Int64, by divisor: Int64) -> Int64 {
    let quotient = value / divisor
    return value % divisor < 0 ? quotient - 1 : quotient
}

/// Months since the beginning of the year 0 in UTC.
///
/// Counted in years that begin in March, so that a leap day comes last (Hinnant's `civil_from_days`).
private func month(_ seconds: Int64) -> Int64 {
    let days = floor(seconds, by: 86400) + 719_468
    let era = floor(days, by: 146_097)
    let day = days - era * 146_097
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365
    let dayOfYear = day - (365 * year + year / 4 - year / 100)
    let marchMonth = (5 * dayOfYear + 2) / 153
    return (era * 400 + year) * 12 + marchMonth + 2
}
