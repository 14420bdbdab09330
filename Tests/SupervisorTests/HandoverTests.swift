// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Testing

@testable import Supervisor

/// What a service manager hears and what it hands on.
@Suite struct HandoverTests {
    /// A service manager's socket, in a folder that goes with it.
    private final class Manager {
        let folder: String
        let socket: Descriptor
        var path: String { folder + "/notify" }

        init() throws {
            var template = [CChar]("/tmp/martlet-notify.XXXXXX".utf8CString)
            folder = String(cString: try #require(mkdtemp(&template)))
            socket = Descriptor(
                owning: Glibc.socket(
                    AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0))
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            let path = folder + "/notify"
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
            let bound = withUnsafePointer(to: address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(socket.raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
                }
            }
            try #require(bound == 0)
        }

        deinit { try? Files.remove(folder) }
    }

    @Test func assignmentsReachTheManager() throws {
        let manager = try Manager()
        Notify(manager.path).send("READY=1", "STATUS=running")
        #expect(try manager.socket.read(100) == [UInt8]("READY=1\nSTATUS=running".utf8))
        // Nobody there: nothing happens.
        Notify(manager.folder + "/nobody").send("READY=1")
        Notify(nil).send("READY=1")
    }

    @Test func descriptorsAreStoredUnderTheirNames() throws {
        let manager = try Manager()
        let (reader, writer) = try Pipe().split()
        defer { for end in [reader, writer] { close(end) } }
        var handed = Inheritance()
        handed.machine = [reader]
        handed.lock = writer
        try handed.store(with: Notify(manager.path))
        var names: [String] = []
        for _ in 0..<2 {
            let (bytes, descriptors) = try UnixSocket.receive(200, from: manager.socket.raw)
            names.append(String(decoding: bytes, as: UTF8.self))
            #expect(descriptors.count == 1)
            for one in descriptors { close(one) }
        }
        #expect(names == ["machine0", "lock"].map { "FDSTORE=1\nFDNAME=\($0)\nFDPOLL=0" })
    }

    /// The manager hands them on in any order, among others that are not ours.
    @Test func descriptorsAreFoundByName() {
        let variables = [
            "LISTEN_PID": "7", "LISTEN_FDS": "5",
            "LISTEN_FDNAMES": "lock:machine1:stored:machine0:shares",
        ]
        let found = Inheritance.parse(pid: 7) { variables[$0] }
        #expect(found.machine == [6, 4])
        #expect(found.shares == 7)
        #expect(found.lock == 3)
        // They were meant for another process, which has handed its environment on.
        #expect(Inheritance.parse(pid: 8) { variables[$0] } == Inheritance())
    }

    @Test func aGapEndsTheDescriptorsOfTheMachine() {
        let variables = [
            "LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "machine0:machine2",
        ]
        #expect(Inheritance.parse(pid: 7) { variables[$0] }.machine == [3])
    }

    @Test func aCommandLineHandsThemOnByNumber() {
        let variables = ["MARTLET_TAPS": "4,5", "MARTLET_SHARES": "6"]
        let found = Inheritance.parse(pid: 7) { variables[$0] }
        #expect(found.machine == [4, 5])
        #expect(found.shares == 6)
        #expect(found.lock == nil)
    }
}
