// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Support
import Testing

@testable import Images

/// What images take from elsewhere, and how it comes into the cache.
@Suite struct SourceTests {
    private let folder: TemporaryFolder
    private let server: WebServer
    private let content = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 3) }
    private var cache: SourceCache { SourceCache(root: folder.path) }

    init() throws {
        folder = try TemporaryFolder()
        server = try WebServer(["gitea-1.0": content])
    }

    private func source(_ address: String, _ digest: String? = nil) -> LayerRecipe.Source {
        .init(
            kind: .binary(mode: 0o755, isCompressed: false), address: address,
            digest: digest ?? SHA256.hex(content), to: "/usr/local/bin/gitea")
    }

    private func fetch(_ source: LayerRecipe.Source) async throws -> String {
        try await cache.file(source, image: "web") { _ in }
    }

    private var kept: [String] { (try? Files.list(cache.folder)) ?? [] }

    @Test func isFetchedOnce() async throws {
        let one = source(server.url("gitea-1.0"))
        let file = try await fetch(one)
        #expect(try Files.read(file) == content)
        #expect(kept == [SHA256.hex(content)])
        // From a mirror that does not answer: it is here already.
        #expect(try await fetch(source("http://127.0.0.1:1/x")) == file)
        #expect(server.requests == ["gitea-1.0"])
        // What the disk has changed is fetched once more.
        try Files.write(file, content.dropLast())
        #expect(try Files.read(try await fetch(one)) == content)
        #expect(server.requests.count == 2)
        server.stop()
    }

    @Test func aWrongDigestKeepsNothing() async throws {
        let wrong = String(repeating: "ab", count: 32)
        let address = server.url("gitea-1.0")
        await #expect(
            throws: ImageError.wrongDigest(
                image: "web", source: address, expected: wrong, found: SHA256.hex(content))
        ) { try await fetch(source(address, wrong)) }
        #expect(kept == [])
        let text = ImageError.wrongDigest(image: "a", source: "b", expected: "c1", found: "d2")
        #expect("\(text)".contains("its SHA-256 is d2, and the recipe says c1; nothing of it is"))
        server.stop()
    }

    @Test func aBrokenLineIsTakenUpAgain() async throws {
        server.breakOff(after: 1_000_000)
        #expect(try Files.read(try await fetch(source(server.url("gitea-1.0")))) == content)
        #expect(server.requests == ["gitea-1.0", "gitea-1.0 from 1000000"])
        server.stop()
    }

    /// What a killed martlet left is gone on with; and where it is of something else, begun anew.
    @Test func whatIsLeftOfAKilledOne() async throws {
        try Files.makeFolder(cache.folder)
        let part = cache.path(SHA256.hex(content)) + ".part"
        try Files.write(part, content.prefix(2_000_000))
        #expect(try Files.read(try await fetch(source(server.url("gitea-1.0")))) == content)
        #expect(server.requests == ["gitea-1.0 from 2000000"])
        try Files.remove(cache.path(SHA256.hex(content)))
        try Files.write(part, [UInt8](repeating: 7, count: 50_000))
        #expect(try Files.read(try await fetch(source(server.url("gitea-1.0")))) == content)
        #expect(server.requests.suffix(2) == ["gitea-1.0 from 50000", "gitea-1.0"])
        // All of it and no name yet: the server has nothing after its end.
        try Files.rename(cache.path(SHA256.hex(content)), part)
        #expect(try Files.read(try await fetch(source(server.url("gitea-1.0")))) == content)
        #expect(kept == [SHA256.hex(content)])
        server.stop()
    }

    @Test func failuresAreSaid() async throws {
        let gone = server.url("nothing")
        let error = await #expect(throws: ImageError.self) { try await fetch(source(gone)) }
        let text = "\(try #require(error))"
        #expect(text.hasPrefix("image 'web': \(gone) could not be fetched: curl: (22)"), "\(text)")
        #expect(text.contains("404"))
        let missing = await #expect(throws: ImageError.self) {
            try await fetch(source(folder.path + "/none"))
        }
        #expect("\(try #require(missing))".contains("takes a file that cannot be read"))
        server.stop()
    }

    @Test func takesFilesOfThisHost() async throws {
        let path = folder.path + "/gitea"
        try Files.write(path, content)
        #expect(try Files.read(try await fetch(source(path))) == content)
        let wrong = String(repeating: "ab", count: 32)
        await #expect(throws: ImageError.self) { try await fetch(source(path, wrong)) }
        #expect(kept == [SHA256.hex(content)])
        server.stop()
    }

    @Test func twoAtOnceFetchItOnce() async throws {
        let one = source(server.url("gitea-1.0"))
        async let first = fetch(one)
        async let second = fetch(one)
        #expect(try await first == second)
        #expect(server.requests.count == 1)
        server.stop()
    }

    @Test func curlTakesNoOtherProtocol() {
        func words(_ url: String) -> String {
            SourceFetch.arguments(url, from: 0).joined(separator: " ")
        }
        #expect(
            words("https://a/b").hasPrefix("-q --silent --show-error --fail --globoff --proto "))
        #expect(words("https://a/b").contains("--proto =https --location --proto-redir =https"))
        #expect(words("http://127.0.0.1/b").contains("--proto =http --noproxy *"))
        #expect(words("https://a/b").hasSuffix("--output - -- https://a/b"))
    }

    // MARK: Recipes

    private func recipe(_ text: String) throws -> LayerRecipe {
        let file = FleetFile.parse("images: { a: { sources: [\(text)] } }\nvms: {}\n")
        let fleet = try #require(file.fleet, "\(file.diagnostics)")
        return try #require(try LayerRecipe.chain(for: "a", recipes: fleet.images).last)
    }

    private static let pin = String(repeating: "1f", count: 32)

    @Test func keysFollowDigestsAndNotAddresses() throws {
        func key(_ text: String) throws -> String { try recipe(text).key(above: "x", mirror: nil) }
        let pin = Self.pin
        let one = try key("{ archive: 'https://a/b.tgz', sha256: \(pin), to: /opt/b }")
        #expect(try one == key("{ archive: 'https://mirror/c', sha256: \(pin), to: /opt/b }"))
        #expect(
            try one == key("{ archive: 'https://m/c', sha256: \(pin.uppercased()), to: /opt/b }"))
        #expect(
            try one
                == key(
                    "{ archive: { amd64: { url: 'https://a/b', sha256: \(pin) }, arm64: { url: "
                        + "'https://a/c', sha256: \(pin) } }, to: /opt/b }"))
        let other = String(repeating: "2f", count: 32)
        for changed in [
            "{ archive: 'https://a/b.tgz', sha256: \(other), to: /opt/b }",
            "{ archive: 'https://a/b.tgz', sha256: \(pin), to: /opt/c }",
            "{ archive: 'https://a/b.tgz', sha256: \(pin), to: /opt/b, strip: 1 }",
            "{ archive: 'https://a/b.tgz', sha256: \(pin), to: /opt/b, remove: [x] }",
            "{ binary: 'https://a/b.tgz', sha256: \(pin), to: /opt/b }",
            "{ deb: 'https://a/b.tgz', sha256: \(pin) }",
        ] { #expect(try one != key(changed), "\(changed)") }
        let pip = try key(
            "{ pip: ['a==1 --hash=sha256:\(pin)', 'b==2 --hash=sha256:\(pin)'], venv: /v }")
        #expect(
            try pip
                == key(
                    "{ pip: ['b==2  --hash=sha256:\(pin)', 'a==1 --hash=sha256:\(pin)'], venv: /v }"
                ))
        #expect(
            try pip != key("{ pip: ['a==1 --hash=sha256:\(pin)'], venv: /v }"))
    }

    @Test func anArchitectureWithoutAFileIsSaid() throws {
        let other = LayerRecipe.architecture == "amd64" ? "arm64" : "amd64"
        let error = #expect(throws: ImageError.self) {
            try recipe(
                "{ deb: { \(other): { url: 'https://a/b.deb', sha256: \(Self.pin) } } }")
        }
        #expect(
            "\(try #require(error))"
                == "image 'a': b.deb has no file for \(LayerRecipe.architecture), which this host is"
        )
    }

    @Test func stepsOfSources() async throws {
        let layer = try recipe(
            "{ archive: 'https://a/b.tgz', sha256: \(Self.pin), to: /opt/b }, "
                + "{ binary: 'https://a/it', sha256: \(Self.pin), to: \"/opt/it's\", mode: '0750' }, "
                + "{ deb: 'https://a/b.deb', sha256: \(Self.pin) }, "
                + "{ pip: ['a==1 --hash=sha256:\(Self.pin)'], venv: /opt/v }")
        let steps = layer.steps(hasParent: true)
        #expect(
            steps.map(\.title) == [
                "stacking the layers below", "preparing the tree", "entering the tree",
                "opening 4 sources", "installing 2 packages", "installing 1 package files",
                "putting an archive into /opt/b", "installing /opt/it's", "filling /opt/v by pip",
                "closing the sources", "cleaning up", "packing the layer",
            ])
        #expect(
            steps[6].script
                == "inside mkdir -p '/opt/b'\ninside cp -a /run/martlet-sources/0/. '/opt/b'/")
        #expect(
            steps[7].script
                == "inside install -D -o 0 -g 0 -m 750 /run/martlet-sources/1 '/opt/it'\\''s'")
        #expect(!LayerSteps.render(steps).contains("https://"))
        let output = try await Program("/bin/sh", ["-n"])
            .capture(input: Array(LayerSteps.render(steps).utf8))
        #expect(output.exit.isSuccess, "\(output.errorText)")
    }
}
