// SPDX-License-Identifier: Apache-2.0
import Engine
import Glibc
import Linux

/// What was seen of a host's service manager and the units of VMs: plain data.
struct UnitFacts {
    var manager: ServiceManager.Found
    var units: Doctor.Seen<[UnitReport]> = .seen([])
    /// Whether the target that starts VMs is itself started.
    var isTargetEnabled = true
    /// Whether a user's own manager starts with the host.
    var isLingering = true
}

/// What follows from it for the VMs of this host; pure.
struct UnitChecks {
    typealias Finding = Doctor.Finding

    private static let byHand =
        "VMs are started by the command line, and do not start with the host"

    let facts: UnitFacts

    var findings: [Finding] {
        switch facts.manager {
        case .manager(let manager): units(of: manager)
        case .noSystemd:
            [
                notice(
                    "systemd does not run this host: \(UnitChecks.byHand), unless something there "
                        + "calls 'martlet up'")
            ]
        case .elsewhere:
            [
                notice(
                    "they are for other places than this ROOT and RUN: \(UnitChecks.byHand)",
                    "unset MARTLET_ROOT and MARTLET_RUN, or have the host call 'martlet up'")
            ]
        case .noSession:
            [
                notice(
                    "no service manager of your own runs: \(UnitChecks.byHand)",
                    "log in to a session of systemd's, or 'loginctl enable-linger'")
            ]
        case .notInstalled:
            [
                notice(
                    "not installed: \(UnitChecks.byHand)",
                    "install Martlet's Debian package, or 'make install PREFIX=/usr'")
            ]
        }
    }

    private func notice(_ text: String, _ remedy: String? = nil) -> Finding {
        Finding(subject: "units", level: .notice, text: text, remedy: remedy)
    }

    private func units(of manager: ServiceManager) -> [Finding] {
        let all: [UnitReport]
        switch facts.units {
        case .seen(let units): all = units
        case .unknown(let reason): return [notice("their state is not known: \(reason)")]
        }
        let scope = manager.kind == .user ? " --user" : ""
        var found = all.flatMap { problems($0, scope) }
        if all.contains(where: \.shouldStart) {
            if !facts.isTargetEnabled {
                found.append(
                    notice(
                        "\(ServiceManager.target) is not enabled: no VM starts with the host",
                        "systemctl\(scope) enable \(ServiceManager.target)"))
            } else if manager.kind == .user, !facts.isLingering {
                found.append(
                    notice("VMs start when you log in, not with the host", "loginctl enable-linger")
                )
            }
        }
        if found.isEmpty {
            let starting = all.filter(\.starts).count
            let text = "\(manager.template), \(starting) of \(all.count) VMs start with the host"
            found.append(Finding(subject: "units", level: .good, text: text))
        }
        return found
    }

    private func problems(_ unit: UnitReport, _ scope: String) -> [Finding] {
        var found: [Finding] = []
        func add(_ level: Doctor.Level, _ text: String, _ remedy: String) {
            found.append(Finding(subject: unit.unit, level: level, text: text, remedy: remedy))
        }
        switch unit.settings {
        case .current: break
        case .missing:
            add(.missing, "its settings are gone: systemd does not know its user", "martlet up")
        case .old:
            add(.notice, "its settings are not those that the VM has now", "martlet up")
        }
        if unit.shouldStart, !unit.starts, unit.settings != .missing {
            add(
                .notice, "does not start with the host, as the fleet file wants it",
                "martlet up, or 'autostart: false'")
        }
        if unit.hasFailed {
            add(
                .notice, "has failed, and nothing starts it again",
                "journalctl\(scope) -u \(unit.unit) says why; martlet start \(unit.vm)")
        }
        return found
    }
}

// MARK: - Looking

extension UnitFacts {
    /// Looks at the host, and changes nothing.
    init(_ engine: Engine) async {
        self.init(manager: engine.serviceManager)
        guard case .manager(let manager) = self.manager else { return }
        units = await .look { try await manager.units(of: engine) }
        isTargetEnabled = (try? await manager.isTargetEnabled()) ?? true
        if manager.kind == .user, let me = getpwuid(geteuid()) {
            let name = String(cString: me.pointee.pw_name)
            isLingering = Files.exists("/var/lib/systemd/linger/\(name)")
        }
    }
}
