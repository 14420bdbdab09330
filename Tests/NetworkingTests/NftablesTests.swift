// SPDX-License-Identifier: Apache-2.0
import Fleets
import Networking
import Support
import Testing

@Suite(.timeLimit(.minutes(20))) struct NftablesTests {
    @Test func aTransactionIsWhollyTakenOrNotAtAll() async throws {
        try await inNewNetwork {
            try Nftables.run("add table inet one")
            #expect(throws: NftablesError.self) {
                try Nftables.run("add table inet two\nadd rule inet nowhere chain accept")
            }
            let tables = try Nftables.list("list tables").compactMap {
                $0["table"]?["name"]?.string
            }
            #expect(tables == ["one"])
        }
    }

    @Test func checkingLeavesNothingBehind() async throws {
        try await inNewNetwork {
            try Nftables.check("add table inet one")
            #expect(try Nftables.list("list tables").allSatisfy { $0["table"] == nil })
        }
    }

    @Test func anErrorSaysWhereAndWhat() {
        #expect(throws: NftablesError.self) { try Nftables.check("add tabel inet one") }
    }
}
