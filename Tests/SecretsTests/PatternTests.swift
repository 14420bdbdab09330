// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Secrets

struct PatternTests {
    @Test(arguments: [
        ("^(data|stringData)$", ["data", "stringData"], ["metadata", "dat"]),
        ("_secret", ["my_secret", "_secrets"], ["secret"]), (#"a\.b"#, ["a.b"], ["axb"]),
    ])
    func findsAsSopsDoes(_ expression: String, _ found: [String], _ others: [String]) throws {
        let pattern = try #require(Pattern(expression))
        #expect(found.allSatisfy(pattern.isFound) && !others.contains(where: pattern.isFound))
    }

    @Test(arguments: ["(", "[a", "(?i)data", #"\d+"#, #"\bkey"#, "*("])
    func whatMeansSomethingElseIsRefused(_ expression: String) {
        #expect(Pattern(expression) == nil)
    }
}
