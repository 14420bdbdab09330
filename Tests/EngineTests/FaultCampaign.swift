// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Testing

/// Whatever is done to a VM, and whatever dies or fills up meanwhile: one `up` converges, what a guest
/// flushed is there, and what is listed can be restored.
///
/// A seed decides what is done and what happens; `make test` tries two, `make test-faults` 500.
/// MARTLET_SEED=7 tries that one, MARTLET_FAULTS=500 so many, from the first or from that one on.
/// What happens at a system call of `martlet` happens there again; what happens after so many
/// milliseconds depends on the machine.
@Suite(
    .enabled(if: getuid() == 0, "needs root"), .serialized, .timeLimit(.minutes(240)))
struct FaultCampaign {
    static let seeds: [UInt64] = {
        let first = environment("MARTLET_SEED").flatMap { UInt64($0) }
        let count = environment("MARTLET_FAULTS").flatMap { UInt64($0) } ?? (first == nil ? 2 : 1)
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
