// SPDX-License-Identifier: Apache-2.0
@testable import Engine
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

    /// A fleet that is applied needs them, whatever file lies in this folder.
    @Test func whatIsAppliedCounts() {
        func missing(_ needs: PublishNeeds) -> [String] {
            needs.findings { _ in nil }.compactMap(\.package)
        }
        #expect(missing(PublishNeeds(nil)) == [])
        #expect(missing(PublishNeeds(nil, isPublishing: true)) == ["caddy"])
        let renewal = CertificateRenewal(
            vm: "a", host: "a.x.org", kind: "dns:hetzner", needsClock: true)
        #expect(
            missing(PublishNeeds(nil, isPublishing: true, renewals: [renewal]))
                == ["caddy", "lego"])
    }

    private static let reference =
        "docker.io/library/nginx@sha256:" + String(repeating: "a", count: 64)

    @Test(arguments: [
        ("{}", false), ("{image: {oci: \"\(reference)\"}}", true), ("{image: app}", true),
        ("{image: above}", true), ("{image: app, enable: false}", false),
    ])
    func imagesFromARegistryNeedSkopeo(vm: String, isNeeded: Bool) throws {
        let images = "{app: {oci: \"\(Self.reference)\"}, above: {from: app}}"
        let loaded = FleetFile.parse("images: \(images)\nvms: {a: \(vm)}")
        let fleet = try #require(loaded.fleet, "\(loaded.diagnostics)")
        let findings = ImageNeeds(fleet).findings { _ in nil }
        #expect(findings.compactMap(\.package) == (isNeeded ? ["skopeo"] : []))
        #expect(ImageNeeds(fleet).findings { "/usr/bin/\($0)" }.allSatisfy { $0.level == .good })
    }
}
