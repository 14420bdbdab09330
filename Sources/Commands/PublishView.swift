// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Linux

/// What `status` says of the names under which a VM is published.
enum PublishView {
    /// Terms and texts, several lines for each name.
    static func rows(_ names: [PublishedName], now: Int64) -> [(String, String)] {
        names.flatMap { name -> [(String, String)] in
            var rows: [(String, String)] = [
                (
                    "published",
                    name.url
                        + (name.isServed ? "" : ": not served now; 'martlet up' sees to it")
                )
            ]
            if name.url.hasPrefix("https:") { rows.append(("", certificate(name, now: now))) }
            if let path = name.authority { rows.append(("", "signed by \(path)")) }
            if let upstream = name.upstream {
                let answer = name.upstreamError.map { "does not answer: \($0)" } ?? "answers"
                rows.append(("", "the guest's \(upstream) \(answer)"))
            }
            if let problem = name.problem { rows.append(("", problem)) }
            return rows
        }
    }

    private static func certificate(_ name: PublishedName, now: Int64) -> String {
        guard let ends = name.ends else { return "no certificate yet" }
        let issuer = name.issuer.map { "by '\($0)'" } ?? "of an unnamed authority"
        let left = ends - now
        let span =
            left <= 0
            ? "expired" : "\(Units.duration(seconds: Double(left))) left"
        return "certificate \(issuer), until \(Clock.iso8601(ends)) (\(span))"
    }
}
