// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux

/// An OCI image made on the spot, as skopeo's `dir:` has it.
package struct MadeUpImage {
    package let folder: TemporaryFolder
    package let digest: String
    package let manifest: [UInt8]

    /// Of this machine, as images name it.
    package static let architecture: String = {
        #if arch(arm64)
            "arm64"
        #else
            "amd64"
        #endif
    }()

    /// Layers are tar archives, the lowest first.
    package init(
        _ layers: [[UInt8]], config: JSONValue, architecture: String = MadeUpImage.architecture
    ) throws {
        folder = try TemporaryFolder()
        let path = folder.path
        func blob(_ bytes: [UInt8], _ type: String) throws -> JSONValue {
            let hex = SHA256.hex(bytes)
            try Files.write("\(path)/\(hex)", bytes)
            return [
                "mediaType": .string("application/vnd.oci.image.\(type)"),
                "digest": .string("sha256:\(hex)"), "size": .integer(Int64(bytes.count)),
            ]
        }
        let parts = try layers.map { try blob($0, "layer.v1.tar") }
        let whole: JSONValue = [
            "architecture": .string(architecture), "os": "linux", "config": config,
            "rootfs": [
                "type": "layers",
                "diff_ids": .array(layers.map { .string("sha256:" + SHA256.hex($0)) }),
            ],
        ]
        let text: JSONValue = [
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": try blob(Array(whole.text(pretty: false).utf8), "config.v1+json"),
            "layers": .array(parts),
        ]
        manifest = Array(text.text(pretty: false).utf8)
        digest = SHA256.hex(manifest)
        try Files.write("\(path)/manifest.json", manifest)
        try Files.write("\(path)/version", "Directory Transport Version: 1.1\n")
    }

    /// A web server of busybox, with what images are full of: whiteouts, an opaque folder, hard
    /// links, an account, a volume.
    package static func web() throws -> MadeUpImage {
        let busybox = try Files.read("/bin/busybox")
        var base = MadeUpTar()
        for name in ["bin/", "etc/", "srv/", "srv/old/", "data/"] {
            base.add(name, "5", mode: 0o755, user: 0)
        }
        base.add("bin/busybox", bytes: busybox, mode: 0o755, user: 0)
        base.add("bin/sh", "1", link: "bin/busybox", mode: 0o755, user: 0)
        base.add(
            "etc/passwd", content: "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n",
            user: 0)
        base.add("etc/group", content: "root:x:0:\nweb:x:102:\nlogs:x:103:web\n", user: 0)
        base.add("srv/secret", content: "hidden", user: 0)
        base.add("srv/old/a", content: "a", user: 0)
        base.add("www", "2", link: "/srv", user: 0)
        var top = MadeUpTar()
        top.add("srv/.wh.secret", user: 0)
        top.add("srv/old/.wh..wh..opq", user: 0)
        top.add("srv/old/b", content: "b", user: 0)
        top.add("www/index.html", content: "the page\n", mode: 0o644, user: 101)
        top.add("data/start", content: "seeded\n", mode: 0o600, user: 101)
        return try MadeUpImage(
            [base.whole, top.whole],
            config: [
                "User": "web", "Entrypoint": ["/bin/busybox"],
                "Cmd": [
                    "sh", "-c", "echo $WORD-$$ >/data/word; exec busybox httpd -f -p 8080 -h /srv",
                ],
                "Env": ["PATH=/usr/bin:/bin", "WORD=50% of \"it\""], "WorkingDir": "/srv",
                "ExposedPorts": ["8080/tcp": [:]], "Volumes": ["/data": [:]],
                "StopSignal": "SIGTERM",
            ])
    }
}
