// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// What is seen of the unit of one VM.
package struct UnitReport: Sendable, Equatable {
    package enum Settings: Sendable { case current, missing, old }

    package let vm: String
    package var settings: Settings
    /// Whether the VM as it is applied starts with its host, and whether its unit does.
    package var shouldStart: Bool
    package var starts: Bool
    package var hasFailed: Bool

    package init(
        vm: String, settings: Settings = .current, shouldStart: Bool = true, starts: Bool = true,
        hasFailed: Bool = false
    ) {
        self.vm = vm
        self.settings = settings
        self.shouldStart = shouldStart
        self.starts = starts
        self.hasFailed = hasFailed
    }

    package var unit: String { ServiceManager.unit(vm) }
}

extension ServiceManager {
    /// Compares the files of a unit with what they have to say; changes nothing.
    func compare(_ settings: UnitSettings, failed: Set<String>) -> UnitReport {
        let name = settings.vm.name
        let text = try? Files.readText(self.settings(name))
        return UnitReport(
            vm: name,
            settings: text == nil ? .missing : text == settings.text ? .current : .old,
            shouldStart: settings.isWanted, starts: isLink(wish(name)),
            hasFailed: failed.contains(ServiceManager.unit(name)))
    }

    /// The names of units in a list of systemctl's without legend and marks.
    static func units(in list: String) -> Set<String> {
        let lines = list.split(separator: "\n")
        return Set(lines.compactMap { $0.split(separator: " ").first.map(String.init) })
    }

    /// Whether what starts with the host, or with the user's manager, includes VMs at all.
    package func isTargetEnabled() async throws -> Bool {
        guard let path = findProgram("systemctl") else {
            throw StoreError.missingTool(name: "systemctl", package: "systemd")
        }
        // What is not enabled makes it fail, and is no failure here.
        let words = scope + ["is-enabled", ServiceManager.target]
        return try await Program(path, words).capture().exit.isSuccess
    }

    private func failedUnits() async throws -> Set<String> {
        let output = try await call(
            "look for failed units",
            ["list-units", "--state=failed", "--plain", "--no-legend", ServiceManager.unit("*")])
        return ServiceManager.units(in: output.text)
    }

    /// The units of the VMs of fleets below ROOT; changes nothing.
    package func units(of engine: Engine) async throws -> [UnitReport] {
        let failed = try await failedUnits()
        return try engine.store.names().vms.sorted().compactMap { name in
            guard let fleet = try? engine.store.record(name)?.fleet,
                let vm = try? engine.store.current(name)?.vm
            else { return nil }
            let user = try engine.allocateUser(name).map { UnitAccount.known(vm: name, user: $0) }
            return compare(engine.unitSettings(of: vm, fleet: fleet, user: user), failed: failed)
        }
    }
}
