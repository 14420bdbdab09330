// SPDX-License-Identifier: Apache-2.0
import Archives
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Images

/// What an OCI image says, and the units that it becomes.
@Suite struct OCIConfigTests {
    private func config(_ json: JSONValue) throws -> OCIConfig {
        let whole: JSONValue = ["architecture": "amd64", "os": "linux", "config": json]
        return try OCIConfig(Array(whole.text(pretty: false).utf8))
    }

    @Test func isRead() throws {
        let config = try config([
            "User": "101:102", "Entrypoint": ["/run.sh"], "Cmd": ["a", "b"], "Env": ["A=1"],
            "WorkingDir": "/srv//www/.", "Volumes": ["/data/": [:], "/a": [:]],
            "ExposedPorts": ["443/tcp": [:], "80": [:], "53/udp": [:], "9/sctp": [:]],
            "StopSignal": "quit",
        ])
        #expect(config.entrypoint == ["/run.sh"] && config.command == ["a", "b"])
        #expect(config.folder == "/srv/www" && config.volumes == ["/a", "/data"])
        #expect(
            config.ports == [
                ProtocolPort(.udp, 53), ProtocolPort(.tcp, 80), ProtocolPort(.tcp, 443),
            ])
        #expect(config.stopSignal == "SIGQUIT")
    }

    @Test(arguments: [
        ("{\"Cmd\": []}", "neither an entrypoint nor a command"),
        ("{\"Cmd\": [\"a\"], \"Volumes\": {\"/\": {}}}", "its volume '/' cannot be one"),
        ("{\"Cmd\": [\"a\"], \"Volumes\": {\"/../etc\": {}}}", "its volume '/../etc' is no path"),
        ("{\"Cmd\": [\"a\"], \"WorkingDir\": \"/a\\nUser=0\"}", "its working folder is no path"),
        ("{\"Cmd\": [\"a\"], \"StopSignal\": \"TERM\\nUser=0\"}", "its stop signal"),
        (
            "{\"Cmd\": [\"a\"], \"ExposedPorts\": {\"99999/tcp\": {}}}",
            "its port '99999/tcp' is none"
        ),
    ])
    func isRefused(text: String, reason: String) throws {
        let json = try JSONValue(parsing: text)
        let error = #expect(throws: OCIImage.Failure.self) { try config(json) }
        let said = try #require(error).text
        #expect(said.contains(reason), "\(said)")
    }

    @Test(arguments: [
        ("", 0, 0, [UInt32](), "/root"), ("web", 101, 102, [103], "/srv"),
        ("101", 101, 102, [103], "/srv"),
        ("web:logs", 101, 103, [], "/srv"), ("web:7", 101, 7, [], "/srv"),
        ("4000", 4000, 0, [], "/"),
        ("4000:5000", 4000, 5000, [], "/"),
    ])
    func usersAreTheImagesOwn(
        text: String, user: UInt32, group: UInt32, groups: [UInt32], home: String
    ) throws {
        let found = try OCIUser(
            text, passwd: "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\nbad\n",
            group: "root:x:0:\nweb:x:102:web\nlogs:x:103:a,web\n")
        #expect(found == OCIUser(user: user, group: group, groups: groups, home: home))
    }

    @Test func unknownUsersAreRefused() {
        for text in ["nobody", "web:none", "-1", "4294967295"] {
            #expect(throws: OCIImage.Failure.self) {
                try OCIUser(text, passwd: "web:x:101:102::/srv:/bin/sh\n", group: "")
            }
        }
    }

    @Test func platformsAreChosen() throws {
        let digest = String(repeating: "ab", count: 32)
        let index = Array(
            """
            {"manifests": [
              {"digest": "sha256:\(String(repeating: "cd", count: 32))", "platform": {"os": "linux", "architecture": "s390x"}},
              {"digest": "sha256:\(digest)", "platform": {"os": "linux", "architecture": "amd64"}}]}
            """.utf8)
        #expect(try OCIImage.choice(from: index, architecture: "amd64") == digest)
        #expect(
            throws: OCIImage.Failure(text: "it has nothing for linux/arm64, only for amd64, s390x")
        ) { try OCIImage.choice(from: index, architecture: "arm64") }
        #expect(try OCIImage.choice(from: Array("{}".utf8), architecture: "amd64") == nil)
        #expect(
            OCIPull.repository("docker.io/library/nginx:1.27@sha256:12")
                == "docker.io/library/nginx")
        #expect(OCIPull.repository("localhost:5000/web") == "localhost:5000/web")
        #expect(
            OCIPull.isLoopback("127.0.0.1:5000/web")
                && !OCIPull.isLoopback("127.0.0.1.example.org/a"))
    }

    @Test func unitOfAnOrdinaryUser() throws {
        var config = OCIConfig()
        config.entrypoint = ["bin/run.sh"]
        config.command = ["--word=$A %h", "two \"words\"\nand a line"]
        config.environment = ["PATH=/opt/bin:/bin", "A=50% \\ \"it\"", "not.a.name=1", "alone"]
        config.folder = "/srv"
        config.volumes = ["/data", "/var/lib/x-y", "/var/lib/x/y"]
        config.ports = [ProtocolPort(.tcp, 80)]
        config.stopSignal = "SIGQUIT"
        let units = OCIUnits(
            config: config, user: OCIUser(user: 101, group: 102, groups: [103], home: "/home/web"),
            name: "web", folders: OCIFolder.all(config, nil) { $0 }, secrets: nil)
        #expect(
            units.serviceUnit == """
                [Unit]
                Description=OCI image web
                Requires=martlet-oci-root.service
                After=martlet-oci-root.service network.target
                [Service]
                Type=exec
                ExecStart=":/srv/bin/run.sh" "--word=$A %%h" "two \\"words\\"\\nand a line"
                RootDirectory=/run/martlet-oci/root
                WorkingDirectory=/srv
                User=101
                Group=102
                SupplementaryGroups=103
                Environment="HOME=/home/web"
                Environment="PATH=/opt/bin:/bin"
                Environment="A=50%% \\\\ \\"it\\""
                EnvironmentFile=-/run/credentials/@system/HOST-env
                ImportCredential=HOST-*
                ExecSearchPath=/opt/bin:/bin
                BindReadOnlyPaths=/run/martlet/resolv.conf:/etc/resolv.conf /run/martlet/hosts:/etc/hosts \
                /run/martlet-oci/hostname:/etc/hostname
                BindPaths="/var/lib/martlet-oci/volumes/data":"/data"
                BindPaths="/var/lib/martlet-oci/volumes/var-lib-x-y":"/var/lib/x-y"
                BindPaths="/var/lib/martlet-oci/volumes/var-lib-x-y-2":"/var/lib/x/y"
                KillSignal=SIGQUIT
                KillMode=mixed
                TimeoutStopSec=30
                SuccessExitStatus=143
                Restart=on-failure
                RestartSec=5
                LimitNOFILE=524288
                UMask=0022
                NoNewPrivileges=yes
                CapabilityBoundingSet=CAP_NET_BIND_SERVICE
                AmbientCapabilities=CAP_NET_BIND_SERVICE
                PrivateTmp=yes
                PrivateDevices=yes
                PrivateIPC=yes
                MountAPIVFS=yes
                ProtectProc=invisible
                ProtectClock=yes
                ProtectControlGroups=yes
                ProtectHostname=yes
                ProtectKernelLogs=yes
                ProtectKernelModules=yes
                ProtectKernelTunables=yes
                RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
                RestrictNamespaces=yes
                RestrictRealtime=yes
                LockPersonality=yes
                RemoveIPC=yes
                KeyringMode=private
                DevicePolicy=closed
                SystemCallArchitectures=native
                SystemCallFilter=@system-service
                SystemCallErrorNumber=EPERM
                LimitCORE=0
                [Install]
                WantedBy=multi-user.target

                """)
    }

    @Test func unitOfRoot() {
        var config = OCIConfig()
        config.command = ["nginx"]
        config.ports = [ProtocolPort(.tcp, 80)]
        let unit = OCIUnits(
            config: config, user: OCIUser(), name: "a", folders: [], secrets: nil
        ).serviceUnit
        #expect(unit.contains("ExecStart=\":nginx\"\n"))
        #expect(unit.contains("User=0\nGroup=0\nEnvironment=\"HOME=/\"\n"))
        #expect(unit.contains("AmbientCapabilities=\n"))
        #expect(unit.contains("CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER"))
        #expect(!unit.contains("CAP_SYS_ADMIN") && !unit.contains("CAP_NET_RAW"))
    }
}

/// Layers that are put on top of each other, some of them made to do harm.
@Suite(.enabled(if: getuid() == 0, "owners are root's to give"))
struct OCILayerTests {
    private let folder: TemporaryFolder
    private var target: String { folder.path + "/tree" }

    init() throws {
        folder = try TemporaryFolder()
        try Files.makeFolder(target)
    }

    private func stack(_ layers: MadeUpTar...) throws {
        let unpacker = try LayerUnpacker(target)
        for layer in layers {
            try Files.write(folder.path + "/layer", layer.whole)
            try unpacker.add(folder.path + "/layer")
        }
    }

    @Test func whiteoutsHideWhatIsBelow() async throws {
        var base = MadeUpTar()
        base.add("a/", "5", mode: 0o755, user: 0)
        base.add("a/gone", content: "1", user: 5)
        base.add("a/stays", content: "2", mode: 0o4750, user: 5)
        base.add("o/sub/", "5", mode: 0o700, user: 7)
        base.add("o/sub/old", content: "3")
        base.add("o/old", content: "4")
        base.add("becomes", "5", mode: 0o755)
        base.add("becomes/x", content: "x")
        base.add("link", "2", link: "a")
        base.add("dev/null", "3")
        var top = MadeUpTar()
        // What comes before its folder's mark belongs to this layer, and stays.
        top.add("o/sub/", "5", mode: 0o700, user: 7)
        top.add("o/sub/new", content: "5", user: 0)
        top.add("o/.wh..wh..opq")
        top.add("o/later", content: "6", user: 0)
        top.add("a/.wh.gone")
        top.add("a/.wh.never")
        top.add("none/.wh.x")
        top.add("becomes", content: "a file", user: 0)
        top.add("link/through", content: "7", user: 0)
        top.add("hard", "1", link: "a/stays")
        try stack(base, top)
        #expect(
            try await listing(target) == [
                "a/ 755", "a/stays 4750 2", "a/through 644 7", "becomes 644 a file",
                "hard 4750 2", "link -> a", "o/ 755", "o/later 644 6", "o/sub/ 700",
                "o/sub/new 644 5",
            ])
        let owners = try await listing(target, owners: true).filter { $0.contains(" of ") }
        #expect(owners.contains("a/stays of 5:5") && owners.contains("o/sub of 7:7"))
    }

    @Test func nothingLeavesTheImage() async throws {
        try Files.write(folder.path + "/victim", "whole")
        var layer = MadeUpTar()
        layer.add("abs", "2", link: folder.path, user: 0)
        layer.add("up", "2", link: "../..", user: 0)
        layer.add("up/victim", content: "in the image", user: 0)
        layer.add("/etc/absolute", content: "y", user: 0)
        try stack(layer)
        #expect(try Files.readText(folder.path + "/victim") == "whole")
        #expect(try Files.readText(target + "/victim") == "in the image")
        #expect(try Files.readText(target + "/etc/absolute") == "y")
        // A link whose target is not in the image leads to nothing.
        layer = MadeUpTar()
        layer.add("abs/victim", content: "x", user: 0)
        #expect(throws: (any Error).self) { try stack(layer) }
        layer = MadeUpTar()
        layer.add("abs/.wh.victim", user: 0)
        layer.add("up/../.wh.tree", user: 0)
        #expect(throws: ArchiveEntries.Failure.self) { try stack(layer) }
        layer = MadeUpTar()
        layer.add("hard", "1", link: "../victim", user: 0)
        #expect(throws: ArchiveEntries.Failure.self) { try stack(layer) }
        layer = MadeUpTar()
        layer.add("abs", "2", link: "/", user: 0)
        layer.add("hard", "1", link: "abs\(folder.path)/victim", user: 0)
        #expect(throws: ArchiveEntries.Failure.self) { try stack(layer) }
        for name in [".wh.", ".wh...", ".wh.."] {
            layer = MadeUpTar()
            layer.add(name, user: 0)
            #expect(throws: ArchiveEntries.Failure.self) { try stack(layer) }
        }
        #expect(try Files.readText(folder.path + "/victim") == "whole")
    }
}

/// Images of a real registry.
@Suite(.enabled(if: getuid() == 0, "owners are root's to give"))
struct OCIRegistryTests {
    private func source(_ reference: String) throws -> LayerRecipe.Source {
        var recipe = ImageRecipe(name: "web")
        recipe.oci = reference
        return try #require(try LayerRecipe.sources(of: recipe).first)
    }

    private func pull(
        _ reference: String, _ root: String
    ) async throws -> OCIPull.Pulled {
        try await OCIPull(
            cache: SourceCache(root: root), image: "web", source: try source(reference),
            progress: { _ in }
        ).run()
    }

    @Test(.timeLimit(.minutes(2))) func isPulledByDigest() async throws {
        let folder = try TemporaryFolder()
        let registry = try await Registry()
        let image = try MadeUpImage.web()
        let reference = try await registry.push(image, as: "test/web")
        let pulled = try await pull(reference, folder.path)
        #expect(pulled.layers.count == 2)
        let tree = folder.path + "/tree"
        try Files.makeFolder(tree)
        let ports = try OCITree(folder: tree, name: "web", service: nil).make(pulled)
        #expect(ports == [ProtocolPort(.tcp, 8080)])
        let files = try await listing(tree + "/rootfs").map { String($0.prefix { $0 != " " }) }
        #expect(files.contains("srv/index.html") && files.contains("srv/old/b"))
        #expect(!files.contains("srv/secret") && !files.contains("srv/old/a"))
        #expect(files.contains("etc/resolv.conf") && files.contains("proc/"))
        let script = try Files.readText(tree + "/prepare")
        #expect(script.contains("fill '/var/lib/martlet-oci/volumes/data' '/data'\n"), "\(script)")
        let unit = try Files.readText("\(tree)/\(OCIUnits.service)")
        #expect(unit.contains("User=101\nGroup=102\nSupplementaryGroups=103\n"), "\(unit)")
        #expect(unit.contains("Environment=\"WORD=50%% of \\\"it\\\"\"\n"))

        // A digest that is not there, and an index with one image for another architecture.
        let wrong = String(repeating: "ab", count: 32)
        let error = await #expect(throws: ImageError.self) {
            try await pull("127.0.0.1:\(registry.port)/test/web@sha256:\(wrong)", folder.path)
        }
        #expect("\(try #require(error))".contains("could not be fetched"), "\(error as Any)")
        let other = try MadeUpImage(
            [MadeUpTar().whole], config: ["Cmd": ["x"]], architecture: "s390x")
        _ = try await registry.push(other, as: "test/web")
        let index = try await registry.index(
            [("s390x", other), (LayerRecipe.architecture, image)], as: "test/web")
        let both = "127.0.0.1:\(registry.port)/test/web:tag@sha256:\(index)"
        #expect(try await pull(both, folder.path).config == pulled.config)
        let alien = try await registry.index([("s390x", other)], as: "test/web")
        let refused = await #expect(throws: ImageError.self) {
            try await pull("127.0.0.1:\(registry.port)/test/web@sha256:\(alien)", folder.path)
        }
        #expect("\(try #require(refused))".contains("it has nothing for linux/"))
        try await registry.stop()

        // From the cache, without a registry; but not what the disk has changed.
        #expect(try await pull(reference, folder.path).layers.count == 2)
        try Files.write(pulled.layers[0], "changed")
        await #expect(throws: ImageError.self) { try await pull(reference, folder.path) }
        #expect(
            try Files.list(folder.path + "/cache/sources") == ["oci-\(index)"])
    }
}
