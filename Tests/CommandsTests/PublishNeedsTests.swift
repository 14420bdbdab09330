// SPDX-License-Identifier: Apache-2.0
import Fleets
import Testing

@testable import Commands

/// What `doctor` says of the programs that published VMs need.
@Suite struct PublishNeedsTests {
    @Test(arguments: [
        ("{}", []),
        ("{ports: [\"8080:80\"], publish: [{host: a.lan, tls: off}]}", ["caddy"]),
        ("{ports: [\"8080:80\"], enable: false, publish: [{host: a.lan, tls: off}]}", []),
        (
            "{ports: [\"8080:80\"], publish: [{host: a.x.org, tls: \"dns:hetzner:s\"}]}",
            ["caddy", "lego"]
        ),
    ])
    func whatIsMissing(vm: String, expected: [String]) throws {
        let loaded = FleetFile.parse("secrets: {s: {generate: hex32}}\nvms: {a: \(vm)}")
        let fleet = try #require(loaded.fleet, "\(loaded.diagnostics)")
        let needs = PublishNeeds(fleet)
        let missing = needs.findings { _ in nil }
        #expect(missing.compactMap(\.package) == expected)
        #expect(missing.allSatisfy { $0.level == .missing })
        #expect(needs.findings { "/usr/bin/\($0)" }.allSatisfy { $0.level == .good })
    }
}
