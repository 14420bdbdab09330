// SPDX-License-Identifier: Apache-2.0

/// What becomes of a guest that runs and does not work.
extension Lifecycle {
    /// What is to come when a stop has come to its end.
    enum AfterStop: Sendable, Equatable {
        case leave
        /// It starts at once, for somebody asked for that.
        case restart
        /// It starts after a pause, for it was unhealthy.
        case recover
        /// It was unhealthy too often.
        case giveUp(String)
    }

    mutating func healthy(_ now: Double) -> [Effect] {
        healthySince = healthySince ?? now
        return []
    }

    /// Shuts an unhealthy guest down and starts it again, as its restart policy allows.
    ///
    /// A tally over a span of time, as crashes have it, would never be full: a check alone may take
    /// minutes to fail. So each time counts until the guest was well for all of that span.
    mutating func unhealthy(_ why: String, _ agent: Bool, _ now: Double) -> [Effect] {
        let since = healthySince
        healthySince = nil
        guard phase == .running, policy.policy != .no else { return [] }
        if let since, now - since >= policy.window { illnesses = 0 }
        illnesses += 1
        let said = "it is unhealthy: \(why)"
        reason = said
        guard illnesses > policy.limit else {
            afterStop = .recover
            // Not `stopping`, which a service manager would take at its word.
            return beginStop(stopGrace, agent, now, .announce(.restarting, said))
        }
        afterStop = .giveUp(
            "it was unhealthy \(illnesses) times and never well for \(Int(policy.window)) s in "
                + "between, last: \(why)")
        return beginStop(stopGrace, agent, now, .announce(.stopping, said))
    }
}
