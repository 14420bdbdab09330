// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// What a guest reads of its hardening, as files that links of the image lead to.
package struct HardeningFiles: Sendable, Equatable {
    /// For systemd-sysctl, from the first moment on.
    package var sysctl = ""
    /// For the end of the start: what it sets would hinder it (guest/agent.c).
    package var lateSysctl = ""
    /// For modprobe.
    package var modprobe = ""

    package init() {}

    /// The texts for a VM; pure.
    ///
    /// What an image needs otherwise stands in a file of its own, whose name comes later in the
    /// alphabet: 95-docker.conf, say.
    package init(_ hardening: Hardening) {
        for (setting, value) in hardening.settings {
            switch setting.kind {
            case .sysctl where setting.name == HardeningSetting.modulesDisabled:
                lateSysctl += "\(setting.name)=\(value)\n"
            case .sysctl:
                sysctl += "\(setting.name)=\(value)\n"
            case .module:
                // `blacklist` alone would leave the way by name open.
                modprobe += "install \(setting.name) /bin/false\n"
            case .parameter:
                break
            }
        }
    }
}

extension Hardening {
    /// The words of the guest's kernel command line; pure.
    package var kernelParameters: [String] {
        settings.filter { $0.setting.kind == .parameter }.map { setting, value in
            value.isEmpty ? setting.name : "\(setting.name)=\(value)"
        }
    }
}
