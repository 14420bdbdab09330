// SPDX-License-Identifier: Apache-2.0
import Glibc
package import Linux

/// Who runs the guest's instructions: the CPU itself, or QEMU's translator.
package enum Accelerator: String, Codable, Sendable {
    case kvm, tcg

    /// What `detect` found, and why it is not KVM.
    package struct Probe: Sendable, Equatable {
        package let accelerator: Accelerator
        /// A sentence for people; nil when KVM is there.
        package let reason: String?
    }

    /// Looks for a KVM that works.
    ///
    /// A `/dev/kvm` alone proves nothing: nested ones exist that hang stock kernels, and they
    /// stand out by a CPU without `vmx` or `svm`.
    package static func detect() -> Probe {
        // The flags stand in the first processor's block; the file grows with the cores.
        let info = try? Descriptor.open("/proc/cpuinfo", O_RDONLY).read(16384)
        let flags = String(decoding: info ?? [], as: UTF8.self)
        do throws(SystemError) {
            _ = try Descriptor.open("/dev/kvm", O_RDWR)
            return judge(cpuInfo: flags, openError: nil)
        } catch {
            return judge(cpuInfo: flags, openError: error)
        }
    }

    /// Decides from the text of /proc/cpuinfo and the outcome of opening /dev/kvm; pure.
    package static func judge(cpuInfo: String, openError: SystemError?) -> Probe {
        let line = cpuInfo.split(separator: "\n").first { $0.hasPrefix("flags") } ?? ""
        let flags = line.split(whereSeparator: { $0 == " " || $0 == "\t" || $0 == ":" })
        guard flags.contains("vmx") || flags.contains("svm") else {
            return Probe(
                accelerator: .tcg,
                reason: "the CPU offers no virtualisation (neither vmx nor svm in /proc/cpuinfo)")
        }
        switch openError {
        case nil:
            return Probe(accelerator: .kvm, reason: nil)
        case .some(let error) where error.isMissing:
            return Probe(
                accelerator: .tcg,
                reason: "/dev/kvm is missing: load the module kvm_intel or kvm_amd")
        case .some(let error) where error.isPermission:
            return Probe(
                accelerator: .tcg,
                reason: "/dev/kvm may not be opened: add this user to the group kvm")
        case .some(let error):
            return Probe(accelerator: .tcg, reason: "/dev/kvm does not open: \(error.reason)")
        }
    }
}
