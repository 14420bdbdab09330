// SPDX-License-Identifier: Apache-2.0
import Glibc
package import Linux

/// A folder of one test's own, removed with it.
///
/// Others may pass through it: VMs have users of their own.
package final class TemporaryFolder: Sendable {
    package let path: String

    package init(in parent: String = "/tmp") throws {
        path = "\(parent)/martlet-test-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        try Files.makeFolder(path, mode: 0o755)
    }

    deinit { try? Files.remove(path) }
}

/// Where built images are kept between runs of the tests, so that only the first one takes long.
///
/// It must not lie in root's home: the users of VMs could not reach their images there.
package let imageCache: String =
    environment("MARTLET_TEST_CACHE")
    ?? (getuid() == 0
        ? "/var/cache/martlet-test" : (environment("HOME") ?? "/tmp") + "/.cache/martlet-test")

/// A port of 127.0.0.1 that nobody listens on.
package func freePort() throws -> UInt16 {
    let listener = Descriptor(
        owning: try check("socket") { socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0) })
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    var length = socklen_t(MemoryLayout.size(ofValue: address))
    try withUnsafeMutablePointer(to: &address) { pointer in
        try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
            _ = try check("bind") { bind(listener.raw, address, length) }
            _ = try check("getsockname") { getsockname(listener.raw, address, &length) }
        }
    }
    return UInt16(bigEndian: address.sin_port)
}

/// The program that was built with the tests, run for real in a world of its own.
package struct Martlet: Sendable {
    package let folder: TemporaryFolder
    private let memory: TemporaryFolder
    package var root: String { folder.path + "/root" }
    /// In memory, as it is on a host.
    package var run: String { memory.path + "/run" }

    /// The folder of this test's executable holds the product as well.
    package static let products: String = {
        let path = (try? Files.readLink("/proc/self/exe")) ?? ""
        return Files.parent(path)
    }()

    package init() throws {
        folder = try TemporaryFolder()
        memory = try TemporaryFolder(in: "/dev/shm")
    }

    /// Puts the images that all tests share into its ROOT.
    ///
    /// With the folder where layers are made: they are moved from there, which no two file systems
    /// allow.
    package func shareImages() throws {
        try Files.makeFolder(root)
        for shared in ["layers", "images", "cache", "tmp"] {
            try Files.makeFolder("\(imageCache)/\(shared)")
            try Files.link("\(imageCache)/\(shared)", at: "\(root)/\(shared)")
        }
    }

    package var environment: [String] {
        [
            "PATH=\(Martlet.products):/usr/sbin:/usr/bin:/sbin:/bin", "HOME=\(folder.path)",
            "MARTLET_ROOT=\(root)", "MARTLET_RUN=\(run)", "LC_ALL=C.UTF-8",
            "TERM=xterm",
        ]
    }

    /// Runs `martlet` in the folder to its end.
    package func callAsFunction(
        _ arguments: String..., input: [UInt8] = []
    ) async throws -> Output {
        try await program(arguments).capture(input: input)
    }

    package func program(_ arguments: [String]) -> Program {
        var program = Program(Martlet.products + "/martlet", arguments)
        program.environment = environment
        program.folder = folder.path
        return program
    }

    /// Writes the fleet file that `martlet` finds in its folder.
    package func write(fleet text: String) throws {
        try Files.write(folder.path + "/fleet.yaml", text)
    }
}
