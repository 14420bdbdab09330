// SPDX-License-Identifier: Apache-2.0
import Fleets
import Testing

@testable import Publishing

@Suite("Orders for lego")
struct LegoTests {
    private func lego(_ provider: String, email: String? = "me@example.org") -> Lego {
        var settings = Publishing()
        settings.email = email
        return Lego(
            host: "www.example.org", provider: provider, settings: settings, folder: "/l",
            authority: nil)
    }

    @Test("the command line holds nothing secret")
    func words() throws {
        #expect(
            try lego("hetzner").words("/usr/bin/lego") == [
                "/usr/bin/lego", "--accept-tos", "--email=me@example.org",
                "--server=https://acme-v02.api.letsencrypt.org/directory",
                "--domains=www.example.org", "--dns=hetzner", "--path=/l", "run",
            ])
        #expect(throws: LegoError.noAccount) { try lego("hetzner", email: nil).words("lego") }
    }

    @Test(
        "a secret is one value or lines of KEY=VALUE",
        arguments: [
            ("hetzner", "abc\n", ["HETZNER_API_KEY=abc"]),
            ("hetzner", "ab=c=", ["HETZNER_API_KEY=ab=c="]),
            ("ovh", "OVH_KEY=a\n# comment\n\nOVH_SECRET=b=c\r\n", ["OVH_KEY=a", "OVH_SECRET=b=c"]),
            ("exec", "EXEC_PATH=/h", ["EXEC_PATH=/h"]),
        ])
    func variables(_ provider: String, _ secret: String, _ expected: [String]) throws {
        #expect(try lego(provider).variables(Array(secret.utf8)) == expected)
    }

    @Test("it sees the files that its secret names, and no folder of theirs")
    func files() {
        let variables = [
            "EXEC_PATH=/h/hook", "GCE_SERVICE_ACCOUNT_FILE=/h/key=1", "A_FILE=relative", "B=/h/no",
            "C_FILE=",
        ]
        #expect(Lego.files(in: variables) == ["/h/hook", "/h/key=1"])
    }

    @Test("what is no secret for a provider is refused")
    func refusals() {
        #expect(throws: LegoError.unknownVariable(provider: "ovh")) {
            try lego("ovh").variables(Array("abc".utf8))
        }
        #expect(throws: LegoError.badLine(2)) {
            try lego("ovh").variables(Array("A=b\nword\n".utf8))
        }
        #expect(throws: LegoError.badName("LD_PRELOAD")) {
            try lego("ovh").variables(Array("LD_PRELOAD=/x".utf8))
        }
    }

    @Test("its reason is the end of what it says")
    func reason() {
        let text = """
            2026/11/28 21:44:12 [INFO] [x.org] acme: use dns-01 solver
            2026/11/28 21:44:40 Could not obtain certificates:
            \terror: one or more domains had a problem:
            [x.org] time limit exceeded
            """
        #expect(Lego.reason(text).hasSuffix("had a problem: [x.org] time limit exceeded"))
        #expect(Lego.reason("") == "it ended without a word")
    }
}
