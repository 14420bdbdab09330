// SPDX-License-Identifier: Apache-2.0
import Glibc
package import Linux

/// The service manager's notification socket (`NOTIFY_SOCKET`, see sd_notify(3)).
package struct Notify: Sendable {
    /// The name of its variable.
    package static let variable = "NOTIFY_SOCKET"

    /// A file, or after an `@` a name in the network namespace.
    package let path: String?

    package init(_ path: String? = environment(Notify.variable)) { self.path = path }

    /// Whether a service manager listens, or says that it does.
    package var isThere: Bool { path != nil }

    /// Sends assignments such as `READY=1`; does nothing without a service manager.
    func send(_ assignments: String...) {
        // A manager that does not listen any more is no reason to stop a VM.
        try? send(assignments, descriptor: nil)
    }

    /// Gives the service manager a descriptor to keep for the next process of the unit, which finds
    /// it by its name.
    ///
    /// It is kept until the unit has stopped or `forget` is sent for it, whatever happens at its
    /// other end.
    package func store(_ descriptor: Int32, as name: String) throws(SystemError) {
        try send(["FDSTORE=1", "FDNAME=\(name)", "FDPOLL=0"], descriptor: descriptor)
    }

    /// Makes the service manager close what it keeps under a name.
    package func forget(_ name: String) { send("FDSTOREREMOVE=1", "FDNAME=\(name)") }

    private func send(_ assignments: [String], descriptor: Int32?) throws(SystemError) {
        guard let path, path.hasPrefix("/") || path.hasPrefix("@") else { return }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var name = [UInt8](path.utf8)
        guard name.count < MemoryLayout.size(ofValue: address.sun_path) else { return }
        // An abstract name begins with a zero byte and has the length that is given.
        if name[0] == UInt8(ascii: "@") { name[0] = 0 }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name) }
        let length = socklen_t(MemoryLayout<sa_family_t>.size + name.count)
        let socket = Descriptor(
            owning: try check("socket") {
                Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
            })
        let connected = withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(socket.raw, $0, length)
            }
        }
        guard connected == 0 else { throw SystemError("connect \(path)") }
        _ = try UnixSocket.send(
            [UInt8](assignments.joined(separator: "\n").utf8),
            descriptors: descriptor.map { [$0] } ?? [], on: socket.raw)
    }
}
