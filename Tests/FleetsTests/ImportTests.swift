// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

private struct Missing: Error, CustomStringConvertible {
    var description: String { "No such file or directory" }
}

private let radicale = """
    name: Radicale
    vm: { vcpu: 2, memory: 1GiB }
    category: tools
    summary: Calendars
    license: GPL-3.0-or-later
    tested: { how: read, date: 2026-11-20, note: nothing. }
    """

@Suite struct ImportTests {
    private func load(_ files: [String: String], directory: String = "") -> FleetFile {
        var sources = FleetFile.Sources { path in
            guard let text = files[path] else { throw Missing() }
            return Array(text.utf8)
        }
        sources.directory = directory
        sources.services = ["vaultwarden", "radicale"]
        sources.service = { name in
            name == "radicale"
                ? .init(path: "catalogue/radicale.yaml", bytes: Array(radicale.utf8))
                : nil
        }
        return FleetFile.load("fleet.yaml", from: sources)
    }

    @Test func merged() throws {
        let file = load(
            [
                "fleet.yaml": "imports: [media/a.yaml, b.yaml]\nvms: { own: {} }",
                "media/a.yaml":
                    "imports: [c.yaml]\nvms: { a: { shares: [{ source: ./x, mount: /x }] } }",
                "media/c.yaml": "vms: { c: {} }",
                "b.yaml": "networks: { n: { subnet: 10.0.0.0/24 } }\ntrusted: [wg0]",
            ], directory: "/home/me")
        #expect(file.errors.map(\.description) == [])
        #expect(file.fleet?.vms.map(\.name) == ["c", "a", "own"])
        #expect(file.fleet?.trusted == ["wg0"])
        #expect(file.fleet?.vm("a")?.shares.first?.source == "/home/me/media/x")
        #expect(file.files == ["fleet.yaml", "media/a.yaml", "media/c.yaml", "b.yaml"])
    }

    @Test(
        arguments: [
            (
                ["fleet.yaml": "imports: [a.yaml]\nvms: { x: {} }", "a.yaml": "vms: { x: {} }"],
                ["fleet.yaml:2:8: vms.x: is defined already, at a.yaml:1"]
            ),
            (
                ["fleet.yaml": "imports: [a.yaml]\nvms: {}", "a.yaml": "imports: [./fleet.yaml]"],
                [
                    "a.yaml:1:11: imports[0]: 'fleet.yaml' is imported already; each file can be read "
                        + "only once"
                ]
            ),
            (
                ["fleet.yaml": "imports: [nope.yaml]\nvms: {}"],
                ["fleet.yaml:1:11: imports[0]: cannot read 'nope.yaml': No such file or directory"]
            ),
            (
                [
                    "fleet.yaml": "imports: [a.yaml]\ndefaults: {}\nvms: {}",
                    "a.yaml": "defaults: {}",
                ],
                ["fleet.yaml:2:1: defaults: is defined already, at a.yaml:1"]
            ),
            (
                ["fleet.yaml": "imports: [a.yaml]\nvms: {}", "a.yaml": "vms: { a: { vcpu: x } }"],
                ["a.yaml:1:19: vms.a.vcpu: expected a whole number, found 'x'"]
            ),
            (
                ["fleet.yaml": "vms: { a: { service: radical } }"],
                [
                    "fleet.yaml:1:22: vms.a.service: no service 'radical' in the catalogue; did you "
                        + "mean 'radicale'?"
                ]
            ),
            ([:], ["fleet.yaml:1:1: cannot read the file: No such file or directory"]),
        ] as [([String: String], [String])])
    func mistakes(files: [String: String], expected: [String]) {
        #expect(load(files).diagnostics.map(\.description) == expected)
    }

    @Test func service() throws {
        let file = load(["fleet.yaml": "vms: { cal: { service: radicale, vcpu: 1 } }"])
        #expect(file.errors == [])
        #expect(file.fleet?.vm("cal")?.vcpu == 1)
        #expect(file.fleet?.vm("cal")?.memory == Memory(.gibibytes(1)))
        #expect(
            file.effective("cal")?.first { $0.path == "memory" }?.origin
                == "catalogue/radicale.yaml:2 (service radicale)")
    }
}
