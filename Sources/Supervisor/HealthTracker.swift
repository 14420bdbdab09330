// SPDX-License-Identifier: Apache-2.0

/// Turns the results of health checks into one word; pure.
struct HealthTracker: Sendable {
    private struct Entry {
        var health = Health.starting
        var failures = 0
        var output: String?
        /// When the first of the failures was that followed on a success, or on the start.
        var failingSince: Double?
    }

    private let checks: [SuperviseSpec.HealthCheck]
    private var entries: [Entry]

    init(_ checks: [SuperviseSpec.HealthCheck]) {
        self.checks = checks
        entries = Array(repeating: Entry(), count: checks.count)
    }

    /// The worst of all checks.
    var health: Health {
        if entries.isEmpty { return .none }
        let all = entries.map(\.health)
        if all.contains(.unhealthy) { return .unhealthy }
        return all.contains(.starting) ? .starting : .healthy
    }

    /// What the checks that fail said last.
    var failures: [String] { entries.compactMap(\.output) }

    /// Forgets everything: the guest starts again.
    mutating func reset() { entries = Array(repeating: Entry(), count: checks.count) }

    /// Which checks have failed too often, what each answered, and for how long: a part of a sentence.
    func complaint(at now: Double) -> String {
        entries.filter { $0.health == .unhealthy }.map { entry in
            let seconds = Int((now - (entry.failingSince ?? now)).rounded())
            return "\(entry.output ?? "no answer") (for \(seconds) s)"
        }.joined(separator: "; ")
    }

    /// Takes in one result at `now` (monotonic seconds); a nil failure is a success.
    ///
    /// `secondsSinceStart` counts from the end of the guest's start; it is negative before.
    mutating func record(
        _ index: Int, failure: String?, secondsSinceStart: Double, at now: Double
    ) {
        guard let failure else {
            entries[index] = Entry(health: .healthy)
            return
        }
        entries[index].output = failure
        entries[index].failingSince = entries[index].failingSince ?? now
        let settling = secondsSinceStart < checks[index].startup
        if entries[index].health == .starting, settling { return }
        entries[index].failures += 1
        if entries[index].failures >= checks[index].retries { entries[index].health = .unhealthy }
    }

    /// Seconds until the check is due again: quickly as long as the guest is still starting.
    func pause(_ index: Int) -> Double {
        let interval = checks[index].interval
        return entries[index].health == .starting ? min(interval, 1) : interval
    }

    /// The program that answers the question inside the guest.
    static func command(_ check: SuperviseSpec.HealthCheck) -> [String] {
        let guest = "/usr/lib/martlet/guest"
        let seconds = "\(max(1, Int(check.timeout.rounded(.up))))"
        // What has no bound of its own would stay for ever: the agent cannot end what it started.
        let bound = ["/usr/bin/timeout", "-k", "1", seconds]
        switch check.probe {
        case .tcp(let port): return [guest, "probe", "tcp", "\(port)", seconds]
        case .http(let port, let path): return [guest, "probe", "http", "\(port)", path, seconds]
        case .page(let page): return bound + page.command(seconds: seconds)
        case .dns(let name): return bound + ["/usr/bin/getent", "hosts", name]
        case .exec(let command): return bound + ["/bin/sh", "-c", command]
        }
    }

    /// What a check that failed has to say; nil when it succeeded.
    static func failure(
        _ check: SuperviseSpec.HealthCheck, code: Int32, lastLine: String?
    ) -> String? {
        if code == 0 { return nil }
        let what =
            switch check.probe {
            // The guest's probe names the port itself.
            case .tcp, .http: ""
            case .page, .dns, .exec: "\(name(of: check)): "
            }
        // 124 is what timeout(1) exits with when it had to end the command.
        if code == 124 { return "\(what)no answer within \(check.timeout) s" }
        return what + (lastLine ?? "failed with exit code \(code)")
    }

    /// How people know a check.
    static func name(of check: SuperviseSpec.HealthCheck) -> String {
        switch check.probe {
        case .tcp(let port): "port \(port)"
        case .http(let port, let path): "http port \(port) \(path)"
        case .page(let page): page.name
        case .dns(let name): "dns \(name)"
        case .exec(let command): "exec '\(command)'"
        }
    }
}
