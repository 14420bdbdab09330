// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Testing

@testable import Commands

@Suite(.timeLimit(.minutes(20))) struct CatalogueVerbTests {
    private static let entry = """
        name: Wiki
        category: tools
        summary: Pages
        links: { home: "https://wiki.example.org" }
        license: MIT
        tested: { how: read, date: 2026-11-20, note: nothing. }
        image: { packages: [python3] }
        vm: { memory: 384MiB, health: { tcp: 80 } }
        parameters: { port: { type: number, default: 80, help: Where it listens. } }
        env: { PORT: "${with.port}" }
        units: [{ name: wiki, exec: "/usr/bin/python3 -m http.server ${PORT}", sandbox: privileged }]
        firstRun: Open it.
        """

    private func folder(_ entries: [String: String]) throws -> String {
        let folder = try Martlet.makeFolder()
        try Files.makeFolder("\(folder)/catalogue")
        for (id, text) in entries { try Files.write("\(folder)/catalogue/\(id).yaml", text) }
        return folder
    }

    @Test func listsThoseOfTheProgramAndOnesOwn() async throws {
        let folder = try folder(["wiki": CatalogueVerbTests.entry])
        defer { try? Files.remove(folder) }
        let output = try await Martlet.martlet("catalogue", "list", in: folder)
        #expect(output.exit == .code(0))
        #expect(output.text.contains("wiki") && output.text.contains("vaultwarden"))
        let json = try JSONValue(
            parsing: try await Martlet.martlet("catalogue", "list", "--json", in: folder).text)
        #expect(json.elements.count == Catalogue.ids.count + 1)
        let readarr = json.elements.first { $0["id"] == "readarr" }
        #expect(readarr?["deprecated"]?.string?.isEmpty == false)
    }

    @Test func showsOne() async throws {
        let text = try await Martlet.martlet("catalogue", "show", "gitea").text
        #expect(text.hasPrefix("gitea: Gitea 1.27.2."))
        #expect(text.contains("with closed: "))
        let json = try JSONValue(
            parsing: try await Martlet.martlet("catalogue", "show", "gitea", "--json").text)
        #expect(json["id"] == "gitea")
        #expect(json["units"]?.elements.first?["sandbox"] == "strict")
        let missing = try await Martlet.martlet("catalogue", "show", "gitae")
        #expect(missing.exit == .code(66))
        #expect(missing.errorText.contains("Did you mean 'gitea'?"))
    }

    @Test func lintsAll() async throws {
        let output = try await Martlet.martlet("catalogue", "lint")
        #expect(output.exit == .code(0), "\(output.errorText)")
        #expect(output.text == "" && output.errorText == "")
    }

    @Test func lintsFilesAndSaysWhere() async throws {
        let folder = try folder([
            "wiki": CatalogueVerbTests.entry,
            "bad": CatalogueVerbTests.entry.replacing("memory: 384MiB", with: "memory: lots"),
        ])
        defer { try? Files.remove(folder) }
        let good = try await Martlet.martlet("catalogue", "lint", "catalogue/wiki.yaml", in: folder)
        #expect(good.exit == .code(0), "\(good.errorText)")
        let all = try await Martlet.martlet("catalogue", "lint", in: folder)
        #expect(all.exit == .code(65))
        #expect(
            all.errorText.contains(
                "catalogue/bad.yaml:8:15: vm.memory: expected a size such as 512MiB, found 'lots'"))
        let json = try await Martlet.martlet("catalogue", "lint", "--json", in: folder)
        let error = try JSONValue(parsing: json.text)["error"]
        #expect(error?["diagnostics"]?.elements.first?["line"] == 8)
        let missing = try await Martlet.martlet("catalogue", "lint", "nope.yaml", in: folder)
        #expect(missing.exit == .code(66))
    }

    /// A file of one's own stands before that of the program, and `plan` takes both.
    @Test func aFleetHasServices() async throws {
        let folder = try folder([
            "wiki": CatalogueVerbTests.entry, "gitea": CatalogueVerbTests.entry,
        ])
        defer { try? Files.remove(folder) }
        try Files.write(
            "\(folder)/fleet.yaml",
            """
            vms:
              a: { service: wiki, with: { port: 81 } }
              b: { service: gitea }
              c: { service: vaultwarden }
            """)
        let show = try await Martlet.martlet("show", "a", in: folder)
        #expect(show.text.contains("catalogue/wiki.yaml:8 (service wiki)"))
        #expect(show.text.contains("PORT=\"81\"\\u{a}"))
        let own = try await Martlet.martlet("show", "b", in: folder)
        #expect(own.text.contains("catalogue/gitea.yaml:8 (service gitea)"))
        let others = try await Martlet.martlet("show", "c", in: folder)
        #expect(others.text.contains("martlet/catalogue/vaultwarden.yaml:"))
        let plan = try await Martlet.martlet("plan", "--json", in: folder)
        let changes = try JSONValue(parsing: plan.text)["changes"]?.elements ?? []
        for vm in ["a", "b", "c"] {
            #expect(changes.contains { $0["vm"]?.string == vm && $0["action"] == "create" })
        }
    }

    /// The services that are OCI images are planned like all others, and told what they need.
    @Test func servicesOfOCIImagesArePlanned() async throws {
        let folder = try folder([:])
        defer { try? Files.remove(folder) }
        let ids = ["actual", "overseerr", "seerr", "vaultwarden"]
        try Files.write(
            "\(folder)/fleet.yaml",
            "vms:\n" + ids.map { "  my-\($0): { service: \($0) }\n" }.joined())
        let plan = try await Martlet.martlet("plan", "--json", in: folder)
        let changes = try JSONValue(parsing: plan.text)["changes"]?.elements ?? []
        for id in ids {
            let own = changes.filter { $0["vm"]?.string == "my-\(id)" }
            #expect(own.contains { $0["action"] == "create" }, "\(plan.text)")
            #expect(own.allSatisfy { $0["reason"]?.string?.contains("not available") != true })
        }
        let show = try await Martlet.martlet("show", "my-vaultwarden", in: folder)
        #expect(show.text.contains("ROCKET_PORT=\"8222\"\\u{a}"), "\(show.text)")
    }
}
