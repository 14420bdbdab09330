// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

/// An entry with a bit of everything, as small as it can be.
let wikiEntry = """
    name: Wiki 100%
    category: tools
    summary: Pages that everybody may edit
    version: 1.2.3
    links: { home: "https://wiki.example.org" }
    license: MIT
    tested: { how: read, date: 2026-11-20, note: nothing was started. }
    provenance: [its author]
    image:
      packages: [python3]
      sources:
        - binary: "https://wiki.example.org/wiki-1.2.3"
          sha256: 0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0
          to: /usr/local/bin/wiki
      run: [wiki --version]
    user: { name: wiki }
    state: [/var/lib/wiki, { path: /var/spool/wiki, mode: "0750" }]
    web: 8000
    vm:
      memory: 384MiB
      firewall: { tcp: [8000] }
      health: { http: "http://:8000/" }
      shares: [{ source: "${with.pages}", mount: /srv/pages }]
    parameters:
      title: { default: Wiki, help: What it calls itself. }
      pages: { type: folder, help: Pages of the host. }
    secrets:
      token: { generate: hex32, env: WIKI_TOKEN, help: Opens it. }
      key: { generate: hex64, help: Signs. }
      mail: { optional: true, help: A password. }
    env:
      WIKI_TITLE: "${with.title} of ${vm.name}"
      WIKI_URL: "https://${vm.host}/"
      WIKI_KEY: "${secret.key}"
      WIKI_LOG: '50% "x"\\y'
    units:
      - name: wiki
        pre: [/bin/true]
        exec: /usr/local/bin/wiki --log ${WIKI_LOG} --mail ${secret.mail}
        sandbox: strict
        writable: [/srv/pages]
        settings: { UMask: "0022", TimeoutStopSec: 20 }
      - name: wiki-index
        type: oneshot
        exec: /usr/local/bin/wiki index
        sandbox: jit
        secrets: [key]
        after: [wiki]
        timer: daily
    firstRun: Open it.
    """

@Suite struct CatalogueTests {
    private func load(
        _ fleet: String, _ entries: [String: String] = ["wiki": wikiEntry]
    ) -> FleetFile {
        var sources = FleetFile.Sources { _ in Array(fleet.utf8) }
        sources.services = entries.keys.sorted()
        sources.service = { id in
            entries[id].map { .init(path: "catalogue/\(id).yaml", bytes: Array($0.utf8)) }
        }
        return FleetFile.load("/srv/home/fleet.yaml", from: sources)
    }

    private func lint(_ text: String, _ id: String = "wiki") -> [String] {
        ServiceFile.lint(
            id, .init(path: "f", bytes: Array(text.utf8)), known: ["wiki", "gitea"]
        ).diagnostics.map(\.description)
    }

    // MARK: What the program carries

    @Test(arguments: Catalogue.ids)
    func everyServiceIsRight(id: String) throws {
        let document = try #require(Catalogue.document(id))
        let (file, diagnostics) = ServiceFile.lint(id, document, known: Catalogue.ids)
        #expect(diagnostics.map(\.description) == [])
        let service = try #require(file?.service)
        #expect(service.id == id)
        #expect(try Service(record: service.json).json == service.json)
        // Names that guests and units are made of are the same on every machine.
        #expect(service.imageRecipe.name == "service." + id)
        if service.image.oci == nil, service.image.from == "core" {
            #expect(!service.units.isEmpty)
        }
    }

    @Test func theServicesOfTheProgram() {
        #expect(
            Catalogue.ids == [
                "actual", "adguard", "agent-dev", "bazarr", "brave", "dev", "docker", "firefly",
                "firefox", "gitea", "lidarr", "matrix-synapse", "ombi", "overseerr", "paperless",
                "prowlarr", "qbittorrent", "radarr", "readarr", "sabnzbd", "searx", "seerr",
                "sonarr", "tautulli", "vaultwarden", "wireguard",
            ])
        #expect(Catalogue.document("nope") == nil)
    }

    /// Accounts of different services must not own each other's files in a shared folder.
    @Test func accountsHaveNumbersOfTheirOwn() throws {
        var numbers: [Int: String] = [:]
        for id in Catalogue.ids {
            let document = try #require(Catalogue.document(id))
            let file = ServiceFile.lint(id, document, known: []).file
            guard let user = file?.service.user else { continue }
            #expect([nil, user.name].contains(numbers.updateValue(user.name, forKey: user.number)))
        }
    }

    @Test func homelab() throws {
        let file = FleetFile.parse(try repositoryFile("examples/homelab.yaml"))
        #expect(file.errors.map(\.description) == [])
        let fleet = try #require(file.fleet)
        #expect(fleet.vms.count == 21)
        #expect(fleet.vms.allSatisfy { $0.service != nil })
        #expect(fleet.vm("git")?.publish.map(\.port?.number) == [3000])
        #expect(fleet.vm("git")?.disk == .gibibytes(40))
        #expect(fleet.secret("git-secret-key")?.generate == .hex64)
        #expect(fleet.vm("vpn")?.credentials["peers"]?.text?.hasPrefix("[Peer]\n") == true)
        #expect(fleet.vm("sonarr")?.shares.map(\.source) == ["/mnt/storage/media"])
        #expect(fleet.vm("prowlarr")?.shares == [])
        // A warning of its own kind would be one that everybody who copies the example gets.
        #expect(file.diagnostics.allSatisfy { $0.message.contains("/mnt/storage/media") })
    }

    // MARK: A VM of a service

    @Test func expands() throws {
        let file = load(
            """
            defaults: { memory: 2GiB, vcpu: 3 }
            secrets: { b-key: { file: /run/key }, b-mail: { file: /run/mail } }
            networks: { web: { subnet: 10.1.0.0/24 } }
            vms:
              a: { service: wiki }
              b:
                service: wiki
                interfaces: [{ network: web }]
                memory: 1GiB
                with: { title: 'say "$x"', pages: pages }
                publish: [{ host: wiki.example.org }, { host: w.example.org, port: 1 }]
                credentials: { token: { text: plain } }
            """)
        #expect(file.errors.map(\.description) == [])
        let fleet = try #require(file.fleet)
        let (a, b) = (try #require(fleet.vm("a")), try #require(fleet.vm("b")))
        #expect(a.memory == Memory(.mebibytes(384)), "the service wins over the defaults")
        #expect(a.vcpu == 3)
        #expect(b.memory == Memory(.gibibytes(1)), "the VM wins over the service")
        #expect(a.shares == [])
        #expect(b.shares.map(\.source) == ["/srv/home/pages"], "it starts at the fleet file")
        #expect(b.publish.map(\.port?.number) == [8000, 1])
        #expect(a.image == .named("service.wiki") && b.image == a.image)
        #expect(fleet.serviceImages.map(\.name) == ["service.wiki"], "two VMs share one image")
        #expect(a.credentials["env"]?.text == "WIKI_TITLE=\"Wiki of a\"\n")
        #expect(
            b.credentials["env"]?.text
                == "WIKI_TITLE=\"say \\\"\\$x\\\" of b\"\nWIKI_URL=\"https://wiki.example.org/\"\n")
        #expect(a.credentials["key"]?.secret == "a-key")
        #expect(a.credentials["mail"] == nil)
        #expect(b.credentials["mail"]?.secret == "b-mail")
        #expect(b.credentials["token"]?.text == "plain")
        #expect(fleet.secrets.map(\.name) == ["b-key", "b-mail", "a-token", "a-key"])
        #expect(fleet.secret("b-key")?.file == "/run/key", "the fleet's own word on a secret")
        #expect(try VM(record: b.json).json == b.json)
    }

    @Test func saysWhereEachValueComesFrom() throws {
        let file = load(
            "defaults: { vcpu: 3 }\nvms:\n  a:\n    service: wiki\n    with: { pages: /p }\n")
        let keys = try #require(file.effective("a"))
        func origin(_ path: String) -> String? { keys.first { $0.path == path }?.origin }
        #expect(origin("memory") == "catalogue/wiki.yaml:20 (service wiki)")
        #expect(origin("image") == "catalogue/wiki.yaml:10 (service wiki)")
        #expect(origin("vcpu") == "/srv/home/fleet.yaml:1 (defaults)")
        #expect(origin("with.pages") == "/srv/home/fleet.yaml:5")
        #expect(origin("credentials.key.secret") == "catalogue/wiki.yaml:29 (service wiki)")
    }

    @Test func countsServices() throws {
        let file = load("vms: { a: { count: 2, service: wiki, with: { title: \"no {n}\" } } }")
        #expect(file.errors == [])
        let texts = file.fleet?.vms.map { $0.credentials["env"]?.text ?? "" }
        #expect(
            texts == ["WIKI_TITLE=\"no 1 of a-1\"\n", "WIKI_TITLE=\"no 2 of a-2\"\n"])
        #expect(file.fleet?.secret("a-2-key") != nil)
    }

    @Test(
        arguments: [
            (
                "{ service: wikki }",
                "1:22: vms.a.service: no service 'wikki' in the catalogue; did you mean 'wiki'?"
            ),
            (
                "{ service: ../wiki }",
                "1:22: vms.a.service: no service '../wiki' in the catalogue; did you mean 'wiki'?"
            ),
            (
                "{ service: wiki, with: { titel: x } }",
                "1:36: vms.a.with.titel: the service 'wiki' has no parameter 'titel'; did you mean 'title'?"
            ),
            (
                "{ service: wiki, with: { title: [x] } }",
                "1:43: vms.a.with.title: expected a text, a number, true or false, found a list"
            ),
            (
                "{ service: wiki, with: { title: \"a\\nb\" } }",
                "1:43: vms.a.with.title: expected a line of text, found 'a b'"
            ),
            (
                "{ service: wiki, credentialPrefix: X- }",
                "1:46: vms.a.credentialPrefix: the units of a service look for 'HOST-…'; leave it out"
            ),
            (
                "{ with: { title: x } }",
                "1:19: vms.a.with: 'with' holds the parameters of a 'service', and this VM names none"
            ),
        ])
    func mistakesOfAVM(vm: String, expected: String) {
        let found = load("vms: { a: \(vm) }").errors.map(\.description)
        #expect(found == ["/srv/home/fleet.yaml:" + expected])
    }

    @Test func whatMustBeGiven() {
        let entry = wikiEntry.replacing("default: Wiki", with: "required: true")
            .replacing("optional: true", with: "optional: false")
        let found = load("vms: { a: { service: wiki } }", ["wiki": entry]).errors.map(\.message)
        #expect(
            found == ["the service 'wiki' needs 'with: { title: … }': What it calls itself."])
        let next = load("vms: { a: { service: wiki, with: { title: x } } }", ["wiki": entry])
        #expect(
            next.errors.map(\.message) == [
                "the service 'wiki' needs the secret 'a-mail': A password. Declare it in 'secrets'"
            ])
    }

    /// A broken service is said once, in its own file, however many VMs have it.
    @Test func aBrokenService() {
        let entry = wikiEntry.replacing("${with.title} of", with: "${with.titel} of")
        let file = load("vms: { a: { service: wiki }, b: { service: wiki } }", ["wiki": entry])
        #expect(
            file.diagnostics.map(\.description) == [
                "catalogue/wiki.yaml:32:15: env.WIKI_TITLE: no parameter 'titel'; did you mean 'title'?"
            ])
    }

    // MARK: Mistakes in entries

    @Test func theEntryOfTheseTestsIsRight() { #expect(lint(wikiEntry) == []) }

    @Test(
        arguments: [
            ("license: MIT", "licence: MIT", "unknown key 'licence'; did you mean 'license'?"),
            ("2026-11-20", "2026-13-20", "'date' is a day such as 2026-11-20"),
            ("name: wiki }", "name: Wiki }", "'Wiki' is no login name"),
            ("/var/spool/wiki,", "/srv/wiki,", "state is a folder below /var"),
            ("/var/spool/wiki,", "/var/../etc,", "state is a folder below /var"),
            ("memory: 384MiB", "memory: lots", "expected a size such as 512MiB, found 'lots'"),
            ("memory: 384MiB", "service: gitea", "'service' is not the service's to say"),
            ("memory: 384MiB", "interfaces: []", "'interfaces' is not the service's to say"),
            ("${with.pages}", "${secret.key}", "the file of a secret is known to units alone"),
            ("${with.pages}", "${with.page}", "no parameter 'page'; did you mean 'pages'?"),
            ("${vm.host}", "${vm.ip}", "'${vm.ip}' stands for nothing"),
            ("${secret.key}", "${secret.kee}", "no secret 'kee'; did you mean 'key'?"),
            ("${secret.key}", "${secret.key}${vm.name}", "cannot stand in one value"),
            ("WIKI_LOG: '", "WIKI-LOG: '", "'WIKI-LOG' is no name of a variable"),
            ("--log ${WIKI_LOG}", "${with.title}", "a unit is part of the image"),
            ("--log ${WIKI_LOG}", "${WIKI_LOK}", "no variable 'WIKI_LOK' in 'env'"),
            ("exec: /usr/local/bin/wiki index", "exec: wiki index", "the program's whole path"),
            ("sandbox: jit", "sandbox: loose", "expected one of strict, jit, dns, privileged"),
            ("secrets: [key]", "secrets: [kex]", "no secret 'kex'"),
            ("name: wiki-index", "name: wiki", "there is a unit 'wiki' already"),
            ("name: wiki-index", "name: ../x", "'../x' is no name of a unit"),
            ("timer: daily", "user: wikki", "no account 'wikki'; did you mean 'wiki'?"),
            ("UMask:", "umask:", "'umask' is no setting of a unit"),
            ("[/srv/pages]", "[/srv/../etc]", "is no folder that a unit can write to"),
            ("  token:", "  a-name-that-is-far-too-long:", "becomes a credential of the guest"),
            ("default: Wiki", "default: Wiki, required: true", "has no 'default'"),
            (
                "default: Wiki", "type: number, default: Wiki",
                "the default is wrong: expected a whole"
            ),
            // What only lint minds.
            ("home:", "docs:", "'home' is missing"),
            ("https://wiki.example.org\" }", "http://x\" }", "that begins with https://"),
            ("provenance: [its author]\n", "", "'provenance' is missing"),
            ("firstRun: Open it.", "", "'firstRun' is missing"),
            ("license: MIT", "license: MIT\nsuccessor: gitee", "did you mean 'gitea'?"),
            ("wiki-1.2.3", "wiki-latest", "neither 'version' nor a commit"),
            ("wiki-1.2.3", "archive/refs/tags/1.2.3.gz", "archives of tags are made on demand"),
            ("0f1e2d3c4b5a69788796a5b4c3d2e1f0", "00000000000000000000000000000000", "placeholder"),
            ("http: \"http://:8000/\"", "tcp: 8000", "a page needs a check"),
            ("tcp: [8000]", "tcp: [80]", "'vm.firewall.tcp' does not open it"),
            ("key: { generate", "kex: { generate", "nothing uses it: give 'env'"),
            ("${with.pages}", "/srv/x", "nothing uses it: put ${with.pages} somewhere"),
            ("user: { name: wiki }", "", "it would run as root"),
            ("packages: [python3]", "packages: [Python]", "no name of a Debian package"),
            ("packages: [python3]", "from: nothing", "no image 'nothing'"),
        ] as [(String, String, String)])
    func mistakesOfAnEntry(old: String, new: String, expected: String) {
        #expect(wikiEntry.contains(old))
        var text = wikiEntry
        // The digest is written twice over, to fill its 64 digits.
        text = text.replacing(old, with: new, maxReplacements: expected == "placeholder" ? 2 : 1)
        let found = lint(text)
        #expect(found.contains { $0.contains(expected) }, "\(found)")
        #expect(found.allSatisfy { $0.hasPrefix("f:") })
    }

    @Test func anOCIEntry() {
        let entry = """
            name: Web
            category: tools
            summary: Pages
            links: { home: "https://web.example.org" }
            license: MIT
            tested: { how: read, date: 2026-11-20, note: nothing. }
            image: { oci: docker.io/library/web }
            vm: { health: { tcp: 80 } }
            firstRun: Open it.
            """
        #expect(
            lint(entry, "web") == [
                "f:7:15: image.oci: has no digest, so what it stands for changes without "
                    + "notice; add '@sha256:…'"
            ])
        let unit = entry + "\nunits: [{ name: a, exec: /a, sandbox: strict }]"
        #expect(lint(unit, "web").contains { $0.contains("leave 'units' out") })
    }

    private static let ociEntry = """
        name: Pages
        category: tools
        summary: Pages
        links: { home: "https://web.example.org" }
        license: MIT
        tested: { how: read, date: 2026-11-20, note: nothing. }
        image: { oci: "docker.io/library/web@sha256:\(String(repeating: "0f", count: 32))" }
        state: [{ path: /var/lib/pages, mount: /data, mode: "0750" }]
        vm: { health: { tcp: 80 } }
        parameters: { title: { default: 'Say "$x"', help: What it calls itself. } }
        secrets:
          key: { generate: hex32, help: Signs. }
          token: { generate: hex32, env: TOKEN, help: Opens it. }
          mail: { optional: true, help: A password. }
        env:
          FIXED: "1"
          TITLE: "${with.title} of ${vm.name}"
          URL: "https://${vm.host}/"
          KEY_FILE: "${secret.key}"
          KEYS: "${vm.name}=${secret.key}"
          MAIL_FILE: "${secret.mail}"
        firstRun: Open it.
        """

    /// All variables come with the VM, and secrets by the paths that the container has for them.
    @Test func anOCIServiceIsTold() throws {
        let entry = CatalogueTests.ociEntry
        #expect(lint(entry, "pages") == [])
        let file = load(
            """
            secrets: { b-mail: { file: /run/mail } }
            networks: { web: { subnet: 10.1.0.0/24 } }
            vms:
              a: { service: pages }
              b:
                service: pages
                interfaces: [{ network: web }]
                publish: [{ host: b.example.org, port: 80 }]
              c: { service: pages, credentials: { mail: { text: x } } }
            """, ["pages": entry])
        #expect(file.errors.map(\.description) == [])
        let fleet = try #require(file.fleet)
        let folder = "/run/credentials/martlet-oci.service"
        #expect(
            fleet.vm("a")?.credentials["env"]?.text == """
                FIXED="1"
                KEYS="a=\(folder)/HOST-key"
                KEY_FILE="\(folder)/HOST-key"
                TITLE="Say \\"\\$x\\" of a"

                """)
        let b = fleet.vm("b")?.credentials["env"]?.text ?? ""
        #expect(b.contains("MAIL_FILE=\"\(folder)/HOST-mail\"\n"))
        #expect(b.contains("URL=\"https://b.example.org/\"\n"))
        #expect(fleet.vm("c")?.credentials["env"]?.text?.contains("MAIL_FILE=") == true)
        #expect(fleet.vm("a")?.credentials["token"]?.secret == "a-token")
        // One image for all of them, which knows the folders and the names of secrets.
        #expect(fleet.serviceImages.count == 1)
        let recipe = try #require(fleet.serviceImages.first)
        #expect(recipe.files.isEmpty && recipe.run.isEmpty)
        #expect(recipe.ociService?.state.map(\.path) == ["/var/lib/pages"])
        #expect(recipe.ociService?.secrets.keys.sorted() == ["key", "mail", "token"])
    }

    @Test(
        arguments: [
            ("mount: /data, ", "", "'mount' is missing"),
            ("mount: /data", "mount: data", "'data' is no folder of an image"),
            ("mount: /data", "mount: /", "'/' is no folder of an image"),
            ("mount: /data", "mount: /data/../etc", "is no folder of an image"),
            ("mount: /data", "mount: /run/pages", "is no folder of an image"),
            ("path: /var/lib/pages", "path: /var/lib/martlet-oci/volumes", "are Martlet's own"),
            (
                "state: [", "state: [{ path: /var/lib/pages/in, mount: /in }, ",
                "'/var/lib/pages' and '/var/lib/pages/in' lie within each other"
            ),
            (
                "state: [", "state: [{ path: /var/lib/other, mount: /data }, ",
                "another folder is at '/data' already"
            ),
            ("vm: {", "user: { name: pages }\nvm: {", "leave 'user' out"),
            ("env: TOKEN", "env: T-N", "'T-N' is no name of a variable"),
            ("${secret.mail}", "${secret.male}", "no secret 'male'"),
        ] as [(String, String, String)])
    func mistakesOfAnOCIEntry(old: String, new: String, expected: String) {
        #expect(CatalogueTests.ociEntry.contains(old))
        let found = lint(
            CatalogueTests.ociEntry.replacing(old, with: new, maxReplacements: 1), "pages")
        #expect(found.contains { $0.contains(expected) }, "\(found)")
        #expect(found.allSatisfy { $0.hasPrefix("f:") })
    }

    @Test(arguments: ["", "[", "- a", "name: &a [*a]", "units: 7", "vm: [1]", "\u{0}"])
    func hostileEntries(text: String) {
        #expect(!lint(text).isEmpty)
        let file = load("vms: { a: { service: wiki } }", ["wiki": text])
        #expect(file.fleet == nil)
        #expect(!file.errors.isEmpty)
    }
}
