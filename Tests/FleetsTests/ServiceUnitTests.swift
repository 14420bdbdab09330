// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

/// What an entry becomes in its image.
@Suite struct ServiceUnitTests {
    private func service(_ text: String = wikiEntry) throws -> Service {
        let document = FleetFile.Document(path: "f", bytes: Array(text.utf8))
        return try #require(ServiceFile.lint("wiki", document, known: []).file?.service)
    }

    @Test func unit() throws {
        let file = try service().imageRecipe.files["/etc/systemd/system/wiki.service"]
        #expect(
            file?.text == """
                [Unit]
                Description=Wiki 100%%
                Documentation=https://wiki.example.org
                After=network-online.target
                Wants=network-online.target
                [Service]
                Type=exec
                User=wiki
                Group=wiki
                StateDirectory=wiki
                StateDirectoryMode=0700
                ReadWritePaths=/var/spool/wiki
                ReadWritePaths=-/srv/pages
                Environment="WIKI_KEY=%d/HOST-key"
                Environment="WIKI_LOG=50%% \\"x\\"\\\\y"
                EnvironmentFile=-/run/credentials/@system/HOST-env
                LoadCredential=HOST-key:HOST-key
                ImportCredential=HOST-mail
                LoadCredential=HOST-token:HOST-token
                ExecStartPre=/usr/lib/martlet/services/wiki-environment /bin/true
                ExecStart=/usr/lib/martlet/services/wiki-environment /usr/local/bin/wiki --log ${WIKI_LOG} --mail %d/HOST-mail
                Restart=on-failure
                RestartSec=5
                NoNewPrivileges=yes
                CapabilityBoundingSet=
                AmbientCapabilities=
                ProtectSystem=strict
                ProtectHome=yes
                PrivateTmp=yes
                PrivateDevices=yes
                PrivateUsers=yes
                PrivateMounts=yes
                PrivateIPC=yes
                ProtectClock=yes
                ProtectControlGroups=yes
                ProtectHostname=yes
                ProtectKernelLogs=yes
                ProtectKernelModules=yes
                ProtectKernelTunables=yes
                ProtectProc=invisible
                ProcSubset=pid
                RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
                RestrictNamespaces=yes
                RestrictRealtime=yes
                RestrictSUIDSGID=yes
                LockPersonality=yes
                MemoryDenyWriteExecute=yes
                RemoveIPC=yes
                KeyringMode=private
                DevicePolicy=closed
                SystemCallArchitectures=native
                SystemCallFilter=@system-service
                SystemCallFilter=~@privileged @resources
                SystemCallErrorNumber=EPERM
                LimitCORE=0
                TimeoutStopSec=20
                UMask=0022
                [Install]
                WantedBy=multi-user.target

                """)
    }

    @Test func unitOfATimer() throws {
        let service = try service()
        let files = service.imageRecipe.files
        let text = try #require(files["/etc/systemd/system/wiki-index.service"]?.text)
        #expect(text.contains("Description=Wiki 100%% (wiki-index)\n"))
        #expect(text.contains("After=network-online.target wiki.service\n"))
        #expect(text.contains("Requires=wiki.service\n"))
        #expect(text.contains("Type=oneshot\nUser=wiki\n"))
        #expect(
            text.contains("LoadCredential=HOST-key:HOST-key\nExecStart=/usr/local/bin/wiki index\n")
        )
        #expect(!text.contains("HOST-token"), "it gets the secrets that it asks for")
        #expect(!text.contains("[Install]") && !text.contains("Restart="))
        #expect(text.contains("MemoryDenyWriteExecute=no\n"))
        #expect(text.contains("SystemCallFilter=~@privileged @debug @mount\n"))
        #expect(
            files["/etc/systemd/system/wiki-index.timer"]?.text == """
                [Unit]
                Description=Wiki 100%% (wiki-index)
                [Timer]
                OnCalendar=daily
                Persistent=yes
                [Install]
                WantedBy=timers.target

                """)
    }

    @Test func image() throws {
        let recipe = try service().imageRecipe
        #expect(recipe.from == "core")
        #expect(
            recipe.run == [
                "systemd-sysusers /usr/lib/sysusers.d/martlet-wiki.conf", "wiki --version",
                "systemctl -q enable wiki.service wiki-index.timer",
            ])
        let account = try #require(recipe.files["/usr/lib/sysusers.d/martlet-wiki.conf"]?.text)
        #expect(account == "u wiki 2625 \"Wiki 100\" /var/lib/wiki /usr/sbin/nologin\n")
        #expect(
            recipe.files["/usr/lib/tmpfiles.d/martlet-wiki.conf"]?.text
                == "d /var/spool/wiki 0750 wiki wiki -\n")
        let wrapper = try #require(recipe.files["/usr/lib/martlet/services/wiki-environment"])
        #expect(wrapper.mode == FileMode(bits: 0o755))
        #expect(
            wrapper.text == """
                #!/bin/sh
                # Hands secrets over to a program that takes them in no other way.
                set -eu
                if [ -e "$CREDENTIALS_DIRECTORY/HOST-token" ]; then
                	WIKI_TOKEN=$(cat "$CREDENTIALS_DIRECTORY/HOST-token")
                	export WIKI_TOKEN
                fi
                exec "$@"

                """)
    }

    /// A folder of the host belongs to numbers: a group has the same one in every image.
    @Test func groupsHaveTheSameNumberEverywhere() throws {
        let lines = try ["sonarr", "qbittorrent"].map { id in
            let document = try #require(Catalogue.document(id))
            let file = try #require(ServiceFile.lint(id, document, known: []).file)
            let text = file.service.imageRecipe.files["/usr/lib/sysusers.d/martlet-\(id).conf"]?
                .text
            return (text ?? "").split(separator: "\n").map(String.init)
        }
        #expect(lines[0][1] == lines[1][1])
        #expect(lines[0][1] == "g media 18067")
        #expect(lines[0][2] == "m sonarr media" && lines[1][2] == "m qbittorrent media")
    }

    /// Nothing of one VM reaches the image that all of them share.
    @Test func noValueOfAVMIsInTheImage() throws {
        for id in Catalogue.ids {
            let document = try #require(Catalogue.document(id))
            let file = try #require(ServiceFile.lint(id, document, known: []).file)
            for (path, file) in file.service.imageRecipe.files {
                let text = file.text ?? ""
                #expect(!text.contains("${with."), "\(id): \(path)")
                #expect(!text.contains("${vm.") && !text.contains("${secret."), "\(id): \(path)")
            }
        }
    }

    @Test func classes() {
        func value(_ sandbox: ServiceUnit.Sandbox, _ name: String) -> [String] {
            sandbox.lines.filter { $0.0 == name }.map(\.1)
        }
        #expect(value(.dns, "AmbientCapabilities") == ["CAP_NET_BIND_SERVICE"])
        #expect(value(.dns, "PrivateUsers") == ["no"])
        #expect(value(.strict, "PrivateUsers") == ["yes"])
        #expect(value(.jit, "MemoryDenyWriteExecute") == ["no"])
        #expect(ServiceUnit.Sandbox.privileged.lines.map(\.0) == ["UMask"])
    }

    @Test func templates() {
        #expect(Template("a").pieces == [.text("a")])
        #expect(
            Template("${with.a}b${secret.c}${D}${vm.name}${vm.host}").pieces == [
                .parameter("a"), .text("b"), .secret("c"), .variable("D"), .vmName, .vmHost,
            ])
        #expect(Template("${").pieces == [.text("${")])
        #expect(Template("${}").pieces == [.unknown("")])
        #expect(Template("${with}").pieces == [.unknown("with")])
        #expect(Template("$x ${a.b}").pieces == [.text("$x "), .unknown("a.b")])
    }
}
