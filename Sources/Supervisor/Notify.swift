// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// The service manager's notification socket (`NOTIFY_SOCKET`, see sd_notify(3)).
struct Notify {
    private let path: String?

    init(_ path: String? = environment("NOTIFY_SOCKET")) { self.path = path }

    /// Sends assignments such as `READY=1`; does nothing without a service manager.
    func send(_ assignments: String...) {
        guard let path, path.hasPrefix("/") || path.hasPrefix("@") else { return }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var name = [UInt8](path.utf8)
        guard name.count < MemoryLayout.size(ofValue: address.sun_path) else { return }
        // An abstract name begins with a zero byte and has the length that is given.
        if name[0] == UInt8(ascii: "@") { name[0] = 0 }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name) }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + name.count)
        let raw = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard raw >= 0 else { return }
        let socket = Descriptor(owning: raw)
        let message = [UInt8](assignments.joined(separator: "\n").utf8)
        // A manager that does not listen any more is no reason to stop a VM.
        withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = sendto(
                    socket.raw, message, message.count, Int32(MSG_NOSIGNAL), $0, length)
            }
        }
    }
}
