// SPDX-License-Identifier: Apache-2.0
import Linux
import Support
import Testing

@testable import Networking

@Suite(.timeLimit(.minutes(20))) struct TakenLinkTests {
    @Test(
        arguments: [
            (
                "# This is private data.\nADMIN_STATE=configured\nOPER_STATE=routable\n"
                    + "NETWORK_FILE=/etc/systemd/network/80-all.network\n",
                TakenLink(link: "mb-x", file: "/etc/systemd/network/80-all.network")
            ),
            ("ADMIN_STATE=configuring\n", TakenLink(link: "mb-x", file: nil)),
            ("ADMIN_STATE=unmanaged\nOPER_STATE=carrier\n", nil), ("ADMIN_STATE=pending\n", nil),
            ("OPER_STATE=off\n", nil), ("", nil),
        ] as [(String, TakenLink?)])
    func whatIsConfiguredIsTaken(text: String, taken: TakenLink?) {
        #expect(TakenLink("mb-x", state: text) == taken)
    }

    /// The numbers of interfaces mean others in another namespace.
    @Test func inAnotherNamespaceNothingIsSaid() async throws {
        let folder = try TemporaryFolder()
        let found = try await inNewNetwork {
            let index = try RouteSocket().addIFB("i0", alias: "martlet/x", group: 0)
            try Files.write("\(folder.path)/\(index)", "ADMIN_STATE=configured\n")
            return try TakenLink.look(in: folder.path)
        }
        #expect(found == [])
    }
}
