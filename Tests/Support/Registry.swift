// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux

/// Debian's registry on a port of 127.0.0.1.
package final class Registry: Sendable {
    /// What a program said that failed.
    package struct Failure: Error { let text: String }

    private let folder: TemporaryFolder
    private let child: Child
    package let port: UInt16

    package init() async throws {
        folder = try TemporaryFolder()
        let socket = try InetSocket.make(for: .loopback4(0), .stream)
        try InetSocket.bind(socket.raw, .loopback4(0))
        port = try InetSocket.address(of: socket.raw).port
        _ = consume socket
        try Files.write(
            "\(folder.path)/config.yml",
            """
            version: 0.1
            log: { level: error }
            storage: { filesystem: { rootdirectory: \(folder.path)/data } }
            http: { addr: "127.0.0.1:\(port)" }

            """)
        child = try Program(
            "/usr/bin/docker-registry", ["serve", "\(folder.path)/config.yml"]
        ).spawn()
        for _ in 0..<100 {
            let answer = try await Program(
                "/usr/bin/curl", ["-qsf", "--noproxy", "*", "http://127.0.0.1:\(port)/v2/"]
            ).capture()
            if answer.exit.isSuccess { return }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw SystemError("docker-registry", 110)
    }

    package func stop() async throws {
        child.signal(9)
        _ = try await child.wait()
    }

    /// Takes an image in and returns its reference by digest.
    package func push(_ image: MadeUpImage, as name: String) async throws -> String {
        let output = try await Program(
            "/usr/bin/skopeo",
            [
                "copy", "-q", "--preserve-digests", "--dest-tls-verify=false",
                "dir:\(image.folder.path)", "docker://127.0.0.1:\(port)/\(name):1",
            ]
        ).capture()
        if !output.exit.isSuccess { throw Failure(text: output.errorText) }
        return "127.0.0.1:\(port)/\(name)@sha256:\(image.digest)"
    }

    /// Puts an index over images of several architectures and returns its digest.
    package func index(_ images: [(String, MadeUpImage)], as name: String) async throws -> String {
        let text: JSONValue = [
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": .array(
                images.map { architecture, image in
                    [
                        "mediaType": "application/vnd.oci.image.manifest.v1+json",
                        "digest": .string("sha256:\(image.digest)"),
                        "size": .integer(Int64(image.manifest.count)),
                        "platform": ["os": "linux", "architecture": .string(architecture)],
                    ]
                }),
        ]
        let bytes = Array(text.text(pretty: false).utf8)
        let output = try await Program(
            "/usr/bin/curl",
            [
                "-qsf", "--noproxy", "*", "-X", "PUT", "--data-binary", "@-", "-H",
                "Content-Type: application/vnd.oci.image.index.v1+json",
                "http://127.0.0.1:\(port)/v2/\(name)/manifests/all",
            ]
        ).capture(input: bytes)
        if !output.exit.isSuccess { throw Failure(text: output.errorText) }
        return SHA256.hex(bytes)
    }
}
