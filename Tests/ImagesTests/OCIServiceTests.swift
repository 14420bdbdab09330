// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Images

/// What a service of the catalogue says to the program of its image.
@Suite struct OCIServiceTests {
    static let service: OCIService = {
        var service = OCIService()
        for (path, mount) in [("/var/lib/wiki", "/data"), ("/var/lib/wiki-pages", "/srv/pages")] {
            var state = ServiceState()
            (state.path, state.mount) = (path, mount)
            service.state.append(state)
        }
        service.state[1].mode = FileMode(bits: 0o750)
        for (name, variable, isOptional) in [
            ("key", "WIKI_KEY", false), ("mail", nil, true), ("sign", nil, false),
        ] {
            var secret = ServiceSecret()
            (secret.env, secret.optional) = (variable, isOptional)
            service.secrets[name] = secret
        }
        return service
    }()

    static func units(_ user: OCIUser = OCIUser(user: 101, group: 102)) -> OCIUnits {
        var config = OCIConfig()
        config.command = ["/wiki"]
        config.volumes = ["/cache", "/data", "/link"]
        // In the image, /link leads to /srv/pages.
        let folders = OCIFolder.all(config, service) { $0 == "/link" ? "/srv/pages" : $0 }
        return OCIUnits(
            config: config, user: user, name: "wiki", folders: folders, secrets: service.secrets)
    }

    @Test func unit() {
        let unit = OCIServiceTests.units().serviceUnit
        let told = """
            Environment="HOME=/"
            EnvironmentFile=-/run/credentials/@system/HOST-env
            EnvironmentFile=/run/martlet-oci/secrets
            LoadCredential=HOST-key:HOST-key
            ImportCredential=HOST-mail
            LoadCredential=HOST-sign:HOST-sign
            BindReadOnlyPaths=
            """
        #expect(unit.contains(told), "\(unit)")
        // A folder that is a volume of the image, too, is there once.
        let folders = """
            BindPaths="/var/lib/wiki":"/data"
            BindPaths="/var/lib/wiki-pages":"/srv/pages"
            BindPaths="/var/lib/martlet-oci/volumes/cache":"/cache"
            KillSignal=
            """
        #expect(unit.contains(folders), "\(unit)")
        // Where the values are is part of the image, and no value is.
        let root = OCIServiceTests.units().rootUnit
        #expect(root.contains("RequiresMountsFor=/var /var/lib/wiki /var/lib/wiki-pages\n"))
    }

    /// Every entry of the program that is an OCI image, with the volumes that such images have.
    @Test(
        arguments: [
            ("actual", ["/data"], ["/var/lib/actual": "/data"]),
            ("overseerr", ["/config"], ["/var/lib/overseerr": "/config"]),
            ("seerr", [], ["/var/lib/seerr": "/app/config"]),
            ("vaultwarden", ["/data"], ["/var/lib/vaultwarden": "/data"]),
        ] as [(String, [String], [String: String])])
    func entriesOfTheProgram(id: String, volumes: [String], expected: [String: String]) throws {
        let document = try #require(Catalogue.document(id))
        let file = try #require(ServiceFile.lint(id, document, known: Catalogue.ids).file)
        let recipe = file.service.imageRecipe
        let told = try #require(recipe.ociService)
        var config = OCIConfig()
        config.command = ["x"]
        config.volumes = volumes
        let folders = OCIFolder.all(config, told) { $0 }
        let unit = OCIUnits(
            config: config, user: OCIUser(), name: id, folders: folders, secrets: told.secrets
        ).serviceUnit
        let lines = unit.split(separator: "\n").map(String.init)
        #expect(
            lines.filter { $0.hasPrefix("BindPaths=") }.sorted()
                == expected.map { "BindPaths=\"\($0.key)\":\"\($0.value)\"" }.sorted())
        #expect(lines.contains("EnvironmentFile=-/run/credentials/@system/HOST-env"))
        // No value of a VM, and no variable of the entry, is part of the image.
        #expect(lines.filter { $0.hasPrefix("Environment=") } == ["Environment=\"HOME=/\""])
        #expect(!unit.contains("Credential="))
        #expect(try LayerRecipe.sources(of: recipe).map(\.cacheName.count) == [4 + 64])
    }

    @Test func anInitIsTheFirstProcess() {
        var config = OCIConfig()
        func unit() -> String {
            OCIUnits(config: config, user: OCIUser(), name: "x", folders: [], secrets: nil)
                .serviceUnit
        }
        (config.entrypoint, config.command) = (["/bin/init"], ["/init"])
        #expect(!unit().contains("PrivatePIDs"))
        config.entrypoint = ["/init"]
        #expect(unit().contains("\nPrivatePIDs=yes\n"))
    }

    @Test func whatIsLaidReady() {
        let fill = """
            #!/bin/sh
            set -eu
            export LC_ALL=C
            fill() {
            	[ ! -d "$1" ] || return 0
            	new="${1%/*}/.martlet-new.${1##*/}"
            	mkdir -p "${1%/*}"
            	rm -rf "$new"
            	cp -a "/usr/lib/martlet/oci/rootfs$2" "$new"
            	sync -f "$new"
            	mv -T "$new" "$1"
            }
            fill '/var/lib/wiki' '/data'
            chown 101:102 '/var/lib/wiki' || :
            chmod 0700 '/var/lib/wiki' || :
            fill '/var/lib/wiki-pages' '/srv/pages'
            chown 101:102 '/var/lib/wiki-pages' || :
            chmod 0750 '/var/lib/wiki-pages' || :
            fill '/var/lib/martlet-oci/volumes/cache' '/cache'

            """
        let secrets = #"""
            umask 077
            mkdir -p -m 755 /run/martlet-oci
            variable() {
            	file="/run/credentials/@system/$2"
            	[ ! -e "$file" ] || printf '%s="%s"\n' "$1" "$(sed 's/[\"$`]/\\&/g' "$file")"
            }
            {
            	variable WIKI_KEY 'HOST-key'
            } >/run/martlet-oci/secrets

            """#
        #expect(OCIServiceTests.units().prepareScript == fill + secrets)
        let root = OCIServiceTests.units(OCIUser()).prepareScript
        #expect(!root.contains("chown") && root.contains("chmod 0700 '/var/lib/wiki'"))
    }

    /// Layers are made anew when what a service wants of its image is another, and only then.
    @Test func layersKnowTheService() throws {
        var recipe = ImageRecipe(name: "service.wiki")
        recipe.oci = "localhost/wiki@sha256:" + String(repeating: "ab", count: 32)
        func key(_ service: OCIService?) throws -> String {
            recipe.ociService = service
            return try #require(try LayerRecipe.sources(of: recipe).first).identity
        }
        let plain = try key(nil)
        let same = try key(OCIServiceTests.service)
        #expect(plain != same)
        #expect(try key(OCIServiceTests.service) == same)
        var other = OCIServiceTests.service
        other.state[0].mount = "/other"
        #expect(try key(other) != same)
        other = OCIServiceTests.service
        other.secrets["mail"] = nil
        #expect(try key(other) != same)
    }

    /// The script itself, in a folder that stands for the guest.
    @Test(.enabled(if: getuid() == 0, "owners are root's to give")) func runs() async throws {
        let folder = try TemporaryFolder()
        let guest = folder.path
        let image = guest + "/usr/lib/martlet/oci/rootfs"
        for path in ["data/sub", "cache", "srv/pages"] { try Files.makeFolder("\(image)/\(path)") }
        try Files.write("\(image)/data/start", "seeded", mode: 0o604)
        try Files.makeFolder("\(guest)/run/credentials/@system")
        let value = "a \"quoted\" $HOME `x` \\ 50%"
        try Files.write("\(guest)/run/credentials/@system/HOST-key", value + "\n")
        var script = OCIServiceTests.units().prepareScript
        for top in ["/usr/lib", "/var/lib", "/run"] {
            script = script.replacing(top, with: guest + top)
        }
        func run() async throws -> [String] {
            let output = try await Program("/bin/sh", ["-c", script]).capture()
            try #require(output.exit.isSuccess, "\(output.errorText)")
            return try await listing(guest + "/var/lib")
        }
        let first = try await run()
        #expect(
            first == [
                "martlet-oci/ 755", "martlet-oci/volumes/ 755", "martlet-oci/volumes/cache/ 755",
                "wiki/ 700", "wiki-pages/ 750", "wiki/start 604 seeded", "wiki/sub/ 755",
            ])
        let owners = try await listing(guest + "/var/lib", owners: true)
        #expect(owners.contains("wiki of 101:102") && owners.contains("wiki/start of 0:0"))
        let secrets = guest + "/run/martlet-oci/secrets"
        #expect(
            try Files.readText(secrets)
                == #"WIKI_KEY="a \"quoted\" \$HOME \`x\` \\ 50%""# + "\n")
        #expect(try Files.status(secrets).mode & 0o777 == 0o600)
        // What was removed stays away; what was killed half way is done again; the mode is held.
        try Files.remove(guest + "/var/lib/wiki/start")
        try Files.remove(guest + "/var/lib/wiki-pages")
        try Files.makeFolder(guest + "/var/lib/.martlet-new.wiki-pages/half")
        chmod(guest + "/var/lib/wiki", 0o777)
        #expect(try await run() == first.filter { !$0.contains("start") })
    }
}
