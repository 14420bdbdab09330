// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Testing

/// As much of a service manager as a unit needs: a socket, and what is kept from it.
final class FakeManager {
    let world: World
    let socket: Descriptor
    let path: String
    /// All that it was told.
    var said = ""
    private var kept: [(name: String, descriptor: Int32)] = []

    init(_ world: World) throws {
        self.world = world
        path = world.folder + "/notify"
        socket = Descriptor(
            owning: try check("socket") {
                Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
            })
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        try check("bind") {
            withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(socket.raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
        }
        try Files.setMode(path, 0o666)
    }

    deinit { forget() }

    /// Closes what it was given to keep.
    func forget() {
        for one in kept { close(one.descriptor) }
        kept = []
    }

    /// Hears what has been said: whoever says more than a few things waits for that.
    func listen() throws {
        var one = pollfd(fd: socket.raw, events: Int16(POLLIN), revents: 0)
        while poll(&one, 1, 0) > 0 {
            let (bytes, descriptors) = try UnixSocket.receive(4096, from: socket.raw)
            let text = String(decoding: bytes, as: UTF8.self)
            said += text + "\n"
            for line in text.split(separator: "\n") where line.hasPrefix("FDNAME=") {
                let name = String(line.dropFirst("FDNAME=".count))
                for descriptor in descriptors { kept.append((name, descriptor)) }
            }
        }
    }

    /// The first step of a unit.
    func prepare(_ name: String) async throws {
        var program = world.program(["prepare", name])
        program.environment?.append("NOTIFY_SOCKET=\(path)")
        let output = try await program.capture()
        try #require(output.exit.isSuccess, "\(output.errorText)")
        try listen()
    }

    /// The second, with what the first one has left; its messages go to `messages(name)`.
    func supervise(_ name: String, socket: String? = nil) throws -> Child {
        var program = world.program(["supervise", "--confine", name])
        let words = [program.path] + program.arguments
        program.path = "/bin/sh"
        program.arguments = ["-c", "export LISTEN_PID=$$; exec \"$@\"", "sh"] + words
        let names = kept.map(\.name).joined(separator: ":")
        program.environment? += [
            "NOTIFY_SOCKET=\(socket ?? path)", "LISTEN_FDS=\(kept.count)",
            "LISTEN_FDNAMES=\(names)",
        ]
        let log = try Descriptor.open(messages(name), O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        program.descriptors = [1: log.raw, 2: log.raw]
        for (index, one) in kept.enumerated() {
            program.descriptors[3 + Int32(index)] = one.descriptor
        }
        defer { forget() }
        said = ""
        return try program.spawn()
    }

    func messages(_ name: String) -> String { "\(world.folder)/messages-\(name)" }

    func hears(_ text: String) async throws {
        try await world.until("\(text) is said") {
            try listen()
            return said.contains(text)
        }
    }
}
