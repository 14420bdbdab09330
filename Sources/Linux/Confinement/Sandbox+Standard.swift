// SPDX-License-Identifier: Apache-2.0
import Glibc

/// What programs need of a host, whatever they do.
extension Sandbox {
    /// The folders of programs and libraries; what is a link on the host is one in the view.
    package static let system: [Place] =
        [Place("/usr", .readable)]
        + [
            "/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/etc/alternatives",
            "/etc/ld.so.cache",
        ].map { Place($0, .readable, isOptional: true) }

    /// Device nodes that are everybody's.
    package static let devices: [Place] = ["null", "zero", "full", "random", "urandom"].map {
        Place("/dev/\($0)", .device)
    }

    /// Where the names of the network's hosts are looked up: /etc/resolv.conf, and the folder that it
    /// leads to where it is a link.
    package static func resolver() -> [Place] {
        let folder = (try? Files.realPath("/etc/resolv.conf")).map(Files.parent)
        return (["/etc/resolv.conf"] + (folder.map { $0 == "/etc" ? [] : [$0] } ?? [])).map {
            Place($0, .readable, isOptional: true)
        }
    }
}

extension Sandbox {
    /// What remains for somebody without privilege when a step is forbidden to him; nil: nothing.
    package func withLess(than step: Step, _ error: SystemError) -> Sandbox? {
        var less = self
        less.ownUser = false
        less.ownIPC = false
        less.ownHostName = false
        switch root {
        case .own where step.isRoot && (error.isPermission || error.isNoSpace || error.isUnknown):
            less.root = .landlock
            less.places.append(Place("/proc", .readable))
        case .landlock where step.isLandlock:
            less.root = .host
        default: return nil
        }
        return less
    }
}

extension SystemError {
    /// The kernel was built without it, or it is switched off.
    fileprivate var isUnknown: Bool { [ENOSYS, EOPNOTSUPP, EUSERS].contains(code) }
}
