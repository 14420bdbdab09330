// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Testing

/// Whatever is done to a VM, and whatever dies or fills up meanwhile: one `up` converges, what a guest
/// flushed is there, and what is listed can be restored.
///
/// A seed decides what is done and what happens; MARTLET_FAULTS=500 tries as many, MARTLET_SEED=7 that one,
/// or those from there on; `make test-faults` tries 500. Killed at a step, a seed does the same again; killed after so many
/// milliseconds, it depends on the machine.
@Suite(
    .enabled(
        if: (environment("MARTLET_FAULTS") ?? environment("MARTLET_SEED")) != nil && getuid() == 0,
        "needs MARTLET_FAULTS or MARTLET_SEED, and root"), .serialized,
    .timeLimit(.minutes(240)))
struct FaultCampaign {
    static let seeds: [UInt64] = {
        let first = environment("MARTLET_SEED").flatMap { UInt64($0) }
        let count = environment("MARTLET_FAULTS").flatMap { UInt64($0) } ?? (first == nil ? 6 : 1)
        return Array((first ?? 1)..<(first ?? 1) + count)
    }()

    @Test(arguments: seeds) func everythingIsMadeGood(_ seed: UInt64) async throws {
        let run = try await FaultRun(seed: seed)
        let result: Result<Void, any Error>
        do {
            for _ in 1...3 { try await run.round() }
            try await run.closing()
            result = .success(())
        } catch {
            result = .failure(error)
        }
        try await run.end()
        if case .failure(let error) = result { Issue.record("\(run.hint)\n\(error)") }
    }
}
