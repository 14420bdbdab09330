// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Networking

@Suite(.timeLimit(.minutes(20))) struct KernelFeatureTests {
    /// Where the tests of networks pass, everything is there.
    @Test func nothingIsMissingWhereNetworksWork() async throws {
        let missing = try await KernelFeature.missing()
        #expect(missing == [:])
    }

    @Test(
        arguments: [
            ([.rules], [.rules]), ([.rules, .local], [.local]), ([.rules, .ifb], [.rules, .ifb]),
            ([.rates, .frames], [.rates, .frames]), ([], []),
        ] as [(Set<KernelFeature>, Set<KernelFeature>)])
    func theRulesAreBlamedOnlyWhereNoPartOfThemIs(
        missing: Set<KernelFeature>, named: Set<KernelFeature>
    ) {
        let reasons = Dictionary(uniqueKeysWithValues: missing.map { ($0, "why") })
        #expect(Set(KernelFeature.named(reasons).keys) == named)
    }
}
