// SPDX-License-Identifier: Apache-2.0

/// One setting of a guest's kernel, and what each level makes of it.
package struct HardeningSetting: Sendable, Equatable {
    package enum Kind: String, Sendable, CaseIterable { case sysctl, module, parameter }

    package let kind: Kind
    /// As the kernel names it: `kernel.sysrq`, `sctp`, `lockdown`.
    package let name: String
    /// The value at the level `standard`; nil where it leaves the kernel's own.
    ///
    /// A module has the value `blocked`, a parameter that is a bare word an empty one.
    package let standard: String?
    /// The value at the level `strict`.
    package let strict: String?
    /// Why, in a few words.
    package let reason: String
    /// What the guest's kernel must be to have it; nil where all that Martlet starts have it.
    package let need: KernelNeed?

    /// As `hardening.exceptions` names it: a sysctl by its name alone.
    package var key: String { kind == .sysctl ? name : "\(kind.rawValue):\(name)" }

    package func value(at level: Hardening.Level) -> String? {
        switch level {
        case .standard: standard
        case .strict: strict
        case .off: nil
        }
    }
}

/// What a kernel must be to have a setting.
package enum KernelNeed: Sendable, Equatable, CustomStringConvertible {
    /// This version or a later one.
    case version(Int, Int)
    /// An option of its build, or a patch.
    case build(String)

    package var description: String {
        switch self {
        case .version(let major, let minor): "Linux \(major).\(minor)"
        case .build(let what): what
        }
    }

    /// Whether a release such as `6.1.0-56-cloud-amd64` is too old; nil where that does not tell.
    package func isMissing(in release: String) -> Bool? {
        guard case .version(let major, let minor) = self else { return nil }
        let numbers = release.split(separator: ".").prefix(2).map { part in
            Int(part.prefix { $0.isNumber })
        }
        guard numbers.count == 2, let found = numbers[0], let lesser = numbers[1] else {
            return nil
        }
        return (found, lesser) < (major, minor)
    }
}

extension Hardening {
    /// The settings that hold for the VM with their values, in the table's order; pure.
    package var settings: [(setting: HardeningSetting, value: String)] {
        let left = Set(exceptions)
        return HardeningSetting.table.compactMap { setting in
            guard let value = setting.value(at: kernel), !left.contains(setting.key) else {
                return nil
            }
            return (setting, value)
        }
    }

    /// The settings of the level that an exception leaves as they are.
    package var excepted: [HardeningSetting] {
        let left = Set(exceptions)
        return HardeningSetting.table.filter {
            $0.value(at: kernel) != nil && left.contains($0.key)
        }
    }
}
