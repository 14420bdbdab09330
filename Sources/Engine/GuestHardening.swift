// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux
import Planning

/// How far a running guest is hardened, as read back from it.
package struct GuestHardening: Sendable, Equatable {
    package let level: Hardening.Level
    /// The release of the guest's kernel, such as `6.1.0-56-cloud-amd64`.
    package let kernel: String
    package let rows: [HardeningRow]

    /// Whether everything holds that the guest's kernel has and that nobody has declared otherwise.
    package var holds: Bool { !rows.contains { $0.state == .differs } }
}

/// One setting: what the fleet file asks for, and what was found.
package struct HardeningRow: Sendable, Equatable {
    package enum State: Sendable, Equatable {
        case holds
        case differs
        /// The guest's kernel does not have it, and needs to be this.
        case lacks(need: String)
        /// A file of the image, or `kernel.parameters`, says otherwise.
        case overruled(by: String)
        /// `hardening.exceptions` names it.
        case excepted
    }

    /// As `hardening.exceptions` names it.
    package let setting: String
    package let wanted: String
    /// Nil where the kernel has nothing of that name.
    package let found: String?
    package let state: State
}

extension Engine {
    /// Reads back from a running guest every setting of its kernel that its VM asks for.
    ///
    /// One command for all of them. The VM is the one that runs, which is not the declared one while
    /// a change waits for a restart.
    package func guestHardening(of name: String) async throws -> GuestHardening {
        let report = await observer.observe(name)
        guard let vm = report.vm.running?.vm else {
            throw LifecycleError.notRunning(vm: name, phase: report.vm.phase.rawValue)
        }
        let program = try await access(name).program(
            user: "root", command: ["sh", "-c", HardeningFacts.script], terminal: false)
        // The guest answers, and may do so without end.
        let output = try await within(.seconds(60)) { try await program.capture(limit: 1 << 20) }
        guard let output else {
            throw StoreError.failed(
                what: "the hardening of \(name) cannot be read", reason: "no answer within 60 s")
        }
        let facts = HardeningFacts(parsing: output.text)
        guard output.exit.isSuccess, facts.isWhole else {
            let words = output.errorText.split(separator: "\n").last.map(String.init)
            throw StoreError.failed(
                what: "the hardening of \(name) cannot be read", reason: words ?? "\(output.exit)")
        }
        return GuestHardening(vm, facts)
    }
}

// MARK: - Comparing

extension GuestHardening {
    /// Compares what a VM asks for with what was found; pure.
    init(_ vm: VM, _ facts: HardeningFacts) {
        level = vm.hardening.kernel
        kernel = shown(facts.release)
        let declared = Set(vm.kernel.parameters.map(parameterName))
        let asked = Dictionary(
            uniqueKeysWithValues: vm.hardening.settings.map { ($0.setting.key, $0.value) })
        rows = HardeningSetting.table.compactMap { setting in
            guard let value = setting.value(at: vm.hardening.kernel) else { return nil }
            let found = facts.found(setting)
            let state =
                asked[setting.key] == nil
                ? .excepted : facts.state(setting, value, found, declared: declared)
            return HardeningRow(
                setting: setting.key, wanted: value, found: found.map(shown), state: state)
        }
    }
}

/// Text of a guest, cut to what a table has room for.
private func shown(_ text: String) -> String { String(text.prefix(80)) }

extension HardeningFacts {
    fileprivate func found(_ setting: HardeningSetting) -> String? {
        switch setting.kind {
        case .sysctl: return sysctls[setting.name]
        case .module:
            if present.contains(setting.name) { return "loaded" }
            return blocked.contains(setting.name) ? "blocked" : "not blocked"
        case .parameter: return parameters[setting.name]
        }
    }

    fileprivate func state(
        _ setting: HardeningSetting, _ value: String, _ found: String?, declared: Set<String>
    ) -> HardeningRow.State {
        let isOld = setting.need?.isMissing(in: release)
        switch setting.kind {
        case .module: return found == value ? .holds : .differs
        case .sysctl:
            guard let found else {
                let isKnown = setting.need != nil && isOld != false
                let need = isKnown ? setting.need?.description : nil
                return .lacks(need: need ?? "a kernel that is built with it")
            }
            if found == value { return .holds }
            if let other = overrules[setting.name], other.value == found {
                return .overruled(by: other.file)
            }
            return .differs
        case .parameter:
            if isOld == true, let need = setting.need { return .lacks(need: need.description) }
            if found == value, isInEffect(setting.name, value) { return .holds }
            return declared.contains(parameterName(setting.name))
                ? .overruled(by: "kernel.parameters") : .differs
        }
    }

    /// Whether the kernel shows what a parameter did; of most there is nothing to see.
    private func isInEffect(_ name: String, _ value: String) -> Bool {
        switch name {
        case "lockdown": effects[name]?.contains("[\(value)]") == true
        case "module.sig_enforce": effects["sig_enforce"] == "Y"
        case "page_alloc.shuffle": effects["shuffle"] == "Y"
        case "debugfs", "pti": effects[name] == value
        default: true
        }
    }
}
