// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Commands
@testable import Engine

/// What `doctor` says of units, by what was seen of a host.
@Suite struct UnitChecksTests {
    private static let system = ServiceManager(
        kind: .system, folder: "/etc/systemd/system",
        template: "/usr/lib/systemd/system/microvm@.service")
    private static let user = ServiceManager(
        kind: .user, folder: "/home/me/.config/systemd/user",
        template: "/usr/lib/systemd/user/microvm@.service")

    private func lines(
        _ manager: ServiceManager.Found = .manager(system), _ units: [UnitReport] = [],
        _ change: (inout UnitFacts) -> Void = { _ in }
    ) -> [String] {
        var facts = UnitFacts(manager: manager, units: .seen(units))
        change(&facts)
        return UnitChecks(facts: facts).findings.map { finding in
            "\(finding.level) \(finding.subject): \(finding.text)"
                + (finding.remedy.map { " [\($0)]" } ?? "")
        }
    }

    @Test func unitsThatAreAsTheyShouldBeAreGood() {
        let manual = UnitReport(vm: "db", shouldStart: false, starts: false)
        #expect(
            lines(.manager(Self.system), [UnitReport(vm: "web"), manual]) == [
                "good units: /usr/lib/systemd/system/microvm@.service, "
                    + "1 of 2 VMs start with the host"
            ])
    }

    @Test(
        arguments: [
            (
                .noSystemd,
                "systemd does not run this host: VMs are started by the command line, and do not "
                    + "start with the host, unless something there calls 'martlet up'"
            ),
            (
                .elsewhere,
                "they are for other places than this ROOT and RUN: VMs are started by the command "
                    + "line, and do not start with the host "
                    + "[unset MARTLET_ROOT and MARTLET_RUN, or have the host call 'martlet up']"
            ),
            (
                .noSession,
                "no service manager of your own runs: VMs are started by the command line, and do "
                    + "not start with the host "
                    + "[log in to a session of systemd's, or 'loginctl enable-linger']"
            ),
            (
                .notInstalled,
                "not installed: VMs are started by the command line, and do not start with the "
                    + "host [install Martlet's Debian package, or 'make install PREFIX=/usr']"
            ),
        ] as [(ServiceManager.Found, String)])
    func whereThereAreNoneItIsSaidWhatFollows(found: ServiceManager.Found, text: String) {
        #expect(lines(found) == ["notice units: " + text])
    }

    @Test(
        arguments: [
            (
                UnitReport(vm: "web", settings: .missing, starts: false),
                "missing microvm@web.service: its settings are gone: systemd does not know its "
                    + "user [martlet up]"
            ),
            (
                UnitReport(vm: "web", settings: .old),
                "notice microvm@web.service: its settings are not those that the VM has now "
                    + "[martlet up]"
            ),
            (
                UnitReport(vm: "web", starts: false),
                "notice microvm@web.service: does not start with the host, as the fleet file wants "
                    + "it [martlet up, or 'autostart: false']"
            ),
            (
                UnitReport(vm: "web", hasFailed: true),
                "notice microvm@web.service: has failed, and nothing starts it again "
                    + "[journalctl -u microvm@web.service says why; martlet start web]"
            ),
        ] as [(UnitReport, String)])
    func whatIsNotAsItShouldBeIsNamed(unit: UnitReport, line: String) {
        #expect(lines(.manager(Self.system), [UnitReport(vm: "db"), unit]) == [line])
    }

    @Test func theTargetStartsThem() {
        let off = lines(.manager(Self.system), [UnitReport(vm: "web")]) {
            $0.isTargetEnabled = false
        }
        #expect(
            off == [
                "notice units: microvms.target is not enabled: no VM starts with the host "
                    + "[systemctl enable microvms.target]"
            ])
        // Where none is to start nobody needs it.
        #expect(
            lines { $0.isTargetEnabled = false } == [
                "good units: /usr/lib/systemd/system/microvm@.service, "
                    + "0 of 0 VMs start with the host"
            ])
        let mine = lines(.manager(Self.user), [UnitReport(vm: "web")]) { $0.isLingering = false }
        #expect(
            mine == [
                "notice units: VMs start when you log in, not with the host "
                    + "[loginctl enable-linger]"
            ])
        let failed = UnitReport(vm: "web", hasFailed: true)
        #expect(
            lines(.manager(Self.user), [failed]).first?.contains("[journalctl --user -u ") == true)
    }

    @Test func whatCannotBeLookedAtIsNotClaimed() {
        #expect(
            lines { $0.units = .unknown("reload systemd: no bus") } == [
                "notice units: their state is not known: reload systemd: no bus"
            ])
    }
}
