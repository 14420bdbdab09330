// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Fleets

/// What is said about the sources of an image.
@Suite struct SourceTests {
    private static let pin = String(repeating: "1f", count: 32)

    private func expect(_ source: String, _ expected: [String]) {
        expectMistakes("images: { a: { sources: [{ \(source) }] } }\nvms: {}", expected)
    }

    @Test(arguments: [
        "archive: 'https://a/b.tgz', sha256: \(pin), to: /opt/b, strip: 1, remove: [X.Update, a/b]",
        "archive: ./b.zip, sha256: \(pin), to: /",
        "binary: 'http://127.0.0.1:80/b', sha256: \(pin), to: /usr/local/bin/b, mode: \"0755\"",
        "binary: 'http://[::1]:8/b', sha256: \(pin), to: /usr/local/bin/b, compressed: true",
        "deb: { amd64: { url: 'https://a/b.deb', sha256: \(pin) } }",
        "pip: ['a[x]==1.0 --hash=sha256:\(pin) --hash=sha256:\(pin)'], venv: /opt/v",
        "pip: ['a==1.0; python_version > \"3\" --hash=sha256:\(pin)'], venv: /opt/v",
    ])
    func good(source: String) { expect(source, []) }

    @Test(arguments: [
        ("to: /opt/b", "a source is exactly one of"),
        ("archive: 'https://a', deb: 'https://a', sha256: \(pin)", "a source is exactly one of"),
        ("archive: 'https://a/b', to: /opt/b", "'sha256' is required"),
        ("archive: 'https://a/b', sha256: \(pin)", "'archive' needs 'to'"),
        ("deb: 'https://a/b', sha256: \(pin), to: /opt", "'to' is for 'archive' and 'binary'"),
        ("binary: 'https://a/b', sha256: \(pin), to: /b, strip: 1", "'strip' is for 'archive'"),
        (
            "deb: { amd64: { url: 'https://a/b', sha256: \(pin) } }, sha256: \(pin)",
            "each architecture has a 'sha256' of its own"
        ),
        ("deb: {}", "give 'amd64', 'arm64' or both"),
        ("pip: [], venv: /v", "expected requirements"),
        ("pip: ['a==1 --hash=sha256:\(pin)']", "'pip' needs 'venv'"),
    ])
    func wrongForms(source: String, message: String) throws {
        let file = FleetFile.parse("images: { a: { sources: [{ \(source) }] } }\nvms: {}")
        #expect(file.errors.contains { $0.message.hasPrefix(message) }, "\(file.errors)")
    }

    @Test(arguments: [
        ("archive: 'ftp://a/b'", "archive: expected an https:// URL or a path, found 'ftp://a/b'"),
        ("archive: 'http://example.org/b'", "archive: http is for this machine alone"),
        ("archive: 'http://127.0.0.1.example.org/b'", "archive: http is for this machine alone"),
        ("archive: 'http://127.0.0.1@example.org/b'", "archive: http is for this machine alone"),
        ("archive: 'https://a/b c'", "archive: a URL holds neither spaces nor"),
        ("archive: ~/b", "archive: expected an https:// URL or a path"),
    ])
    func wrongAddresses(source: String, message: String) throws {
        let text =
            "images: { a: { sources: [{ \(source), sha256: \(Self.pin), to: /b }] } }\nvms: {}"
        let file = FleetFile.parse(text)
        let found = try #require(file.errors.first)
        #expect("\(found)".contains("images.a.sources[0].\(message)"), "\(found)")
    }

    @Test(arguments: [
        ("sha256: 12", "sha256: expected a SHA-256"),
        ("sha256: '\(String(repeating: "0", count: 64))'", "sha256: expected a SHA-256"),
        ("sha256: \(pin), remove: [../x]", "remove[0]: expected a path inside the archive"),
        ("sha256: \(pin), remove: [/x]", "remove[0]: expected a path inside the archive"),
        ("sha256: \(pin), strip: -1", "strip: 'strip' is a number"),
    ])
    func wrongValues(values: String, message: String) throws {
        let file = FleetFile.parse(
            "images: { a: { sources: [{ archive: 'https://a/b', to: /b, \(values) }] } }\nvms: {}")
        let found = try #require(file.errors.first)
        #expect("\(found)".contains("images.a.sources[0].\(message)"), "\(found)")
    }

    @Test(arguments: [
        ("a", "'a' is not pinned"), ("a>=1 --hash=sha256:\(pin)", "'a>=1' is not pinned"),
        ("a==1", "'a==1' has no digest"), ("a==1.* --hash=sha256:\(pin)", "'a==1.*' is not pinned"),
        ("a==1 --hash=md5:12", "'--hash=md5:12' is no --hash=sha256:"),
        ("a==1 --hash=sha256:12", "'--hash=sha256:12' is no --hash=sha256:"),
        ("a==1 --index-url=https://x", "'--index-url=https://x' is no"),
        ("-r other.txt", "'-r other.txt' is not pinned"),
        ("a @ https://x/a.whl --hash=sha256:\(pin)", "'a @ https://x/a.whl' is not pinned"),
    ])
    func requirements(text: String, message: String) throws {
        #expect(try #require(ImageSource.problem(ofRequirement: text)).hasPrefix(message))
    }

    /// A path starts at its own file's folder, and a URL stays what it is.
    @Test func addresses() throws {
        let record = try ImageSource(record: [
            "archive": ["amd64": ["url": "https://a/b", "sha256": .string(Self.pin)]], "to": "/b",
        ])
        #expect(record.archive?.pins.amd64?.url.text == "https://a/b")
        #expect(try ImageSource(record: record.json) == record)
    }
}
