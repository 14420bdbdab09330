// SPDX-License-Identifier: Apache-2.0

/// Something that an image takes from elsewhere, pinned by its SHA-256.
///
/// Exactly one of `archive`, `binary`, `deb` and `pip` says what it is.
package struct ImageSource: Record {
    package var archive: SourcePlace?
    package var binary: SourcePlace?
    package var deb: SourcePlace?
    package var pip: [String]?
    package var sha256: String?
    package var to: String?
    package var strip = 0
    package var remove: [String] = []
    package var mode: FileMode?
    package var compressed = false
    package var venv: String?

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("archive", &archive, "A tar.gz, tar.xz, tar.zst or zip to unpack: URL, or path.")
        key("binary", &binary, "One program to install: URL, or path.")
        key("deb", &deb, "A Debian package to install with what it depends on: URL, or path.")
        key("pip", &pip, "Python requirements, each with its '==' version and '--hash=sha256:…'.")
        key("sha256", &sha256, "SHA-256 of the file, unless each architecture has its own.")
        key("to", &to, "Where it goes in the image: an archive's folder, or the program's path.")
        key("strip", &strip, "Leading parts of an archive's paths to take off, as tar counts them.")
        key("remove", &remove, "Paths of an archive, stripped, that are left out.")
        key("mode", &mode, "Permissions of a binary in octal, in quotes; \"0755\" by default.")
        key("compressed", &compressed, "A binary that is packed with gzip, xz or zstd.")
        key("venv", &venv, "The folder of the virtual environment that 'pip' fills.")
    }

    /// The file to get, where it is one.
    package var place: SourcePlace? { archive ?? binary ?? deb }

    package mutating func finish(_ scope: Scope) {
        let kinds: [(String, Bool)] = [
            ("archive", archive != nil), ("binary", binary != nil), ("deb", deb != nil),
            ("pip", pip != nil),
        ]
        let given = kinds.filter(\.1).map(\.0)
        guard given.count == 1 else {
            return scope.fail("a source is exactly one of 'archive', 'binary', 'deb', 'pip'")
        }
        let kind = given[0]
        let keys: [(key: String, isGiven: Bool, of: [String], isNeeded: Bool)] = [
            ("to", to != nil, ["archive", "binary"], true),
            ("strip", strip != 0, ["archive"], false),
            ("remove", !remove.isEmpty, ["archive"], false),
            ("mode", mode != nil, ["binary"], false),
            ("compressed", compressed, ["binary"], false),
            ("venv", venv != nil, ["pip"], true),
        ]
        for key in keys {
            if key.isGiven, !key.of.contains(kind) {
                scope.fail("'\(key.key)' is for \(quoted(key.of)), not for '\(kind)'")
            }
            if key.isNeeded, !key.isGiven, key.of.contains(kind) {
                scope.fail("'\(kind)' needs '\(key.key)'")
            }
        }
        guard let place else {
            if sha256 != nil { scope.fail("'pip' has its digests in the requirements") }
            return
        }
        if place.url != nil, sha256 == nil {
            scope.fail("'sha256' is required: nothing is taken whose content is not known before")
        }
        if place.url == nil, sha256 != nil {
            scope.fail("each architecture has a 'sha256' of its own; leave the common one out")
        }
    }

    private func quoted(_ words: [String]) -> String {
        words.map { "'\($0)'" }.joined(separator: " and ")
    }
}

/// Where a file comes from: a URL or a path, or one with its digest for each architecture.
package struct SourcePlace: Declared {
    /// The same for all architectures; a path is absolute.
    package var url: String?
    package var pins = ArchitecturePins()

    package init(url: String) { self.url = url }
    private init(pins: ArchitecturePins) { self.pins = pins }

    package static func read(_ scope: Scope) -> SourcePlace? {
        if case .mapping = scope.node.content {
            return ArchitecturePins.read(scope).map { SourcePlace(pins: $0) }
        }
        return SourceAddress.read(scope).map { SourcePlace(url: $0.text) }
    }
    package var json: JSONValue { url.map(JSONValue.string) ?? pins.json }
    package static var schema: JSONValue {
        ["anyOf": [SourceAddress.schema, ArchitecturePins.schema]]
    }
}

/// The files of one source by Debian's names of architectures.
package struct ArchitecturePins: Record {
    package var amd64: SourcePin?
    package var arm64: SourcePin?

    package init() {}
    package mutating func declare(_ key: Fields) {
        key("amd64", &amd64, "The file for x86-64.")
        key("arm64", &arm64, "The file for 64-bit ARM.")
    }
    package mutating func finish(_ scope: Scope) {
        if amd64 == nil, arm64 == nil { scope.fail("give 'amd64', 'arm64' or both") }
    }
}

/// A file and its digest.
package struct SourcePin: Record {
    package var url = SourceAddress(text: "")
    package var sha256 = ""

    package init() {}
    package mutating func declare(_ key: Fields) {
        key("url", &url, .required, "URL, or path.")
        key("sha256", &sha256, .required, "SHA-256 of the file.")
    }
}

/// A URL, or a path that starts at the folder of the file that it stands in.
package struct SourceAddress: Declared {
    package var text: String

    package static func read(_ scope: Scope) -> SourceAddress? {
        guard let text = String.read(scope) else { return nil }
        if text.contains("://") { return SourceAddress(text: text) }
        return SourceAddress(text: scope.diagnostics.resolve(text, from: scope.node.mark.file))
    }
    package var json: JSONValue { .string(text) }
    package static var schema: JSONValue { String.schema }

    /// What is wrong with an address; nil for one that can be fetched.
    static func problem(_ text: String) -> String? {
        guard text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) || !text.contains("://") else {
            return "a URL holds neither spaces nor letters outside of ASCII"
        }
        if text.hasPrefix("https://") { return nil }
        if !text.contains("://"), !text.isEmpty, !text.hasPrefix("~") { return nil }
        guard text.hasPrefix("http://") else {
            return "expected an https:// URL or a path, found '\(text)'"
        }
        return isLoopback(text)
            ? nil : "http is for this machine alone; use https, which hides what is fetched"
    }

    /// Whether an http URL leads to this machine.
    package static func isLoopback(_ url: String) -> Bool {
        let rest = url.dropFirst("http://".utf8.count).prefix {
            $0 != "/" && $0 != "?" && $0 != "#"
        }
        if rest.contains("@") { return false }
        if rest.hasPrefix("[::1]") { return rest == "[::1]" || rest.hasPrefix("[::1]:") }
        let host = rest.prefix { $0 != ":" }
        return host == "localhost" || host == "127.0.0.1"
    }
}

extension ImageSource {
    /// What is wrong with a requirement of `pip`; nil for one that is pinned.
    static func problem(ofRequirement text: String) -> String? {
        let words = text.split(whereSeparator: \.isWhitespace)
        let hashes = words.filter { $0.hasPrefix("--") }
        let rest = words.prefix { !$0.hasPrefix("--") }.joined(separator: " ")
        let spec = rest.prefix { $0 != ";" }
        let parts = spec.ranges(of: "==")
        guard text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }),
            spec.first.map({ $0.isLetter || $0.isNumber }) == true, parts.count == 1,
            !spec.contains("@"), !spec.contains("*"),
            spec[parts[0].upperBound...].contains(where: { $0.isNumber })
        else { return "'\(rest)' is not pinned: write NAME==VERSION --hash=sha256:…" }
        if hashes.isEmpty { return "'\(rest)' has no digest: add --hash=sha256:…" }
        for hash in hashes {
            let digest = hash.dropFirst("--hash=sha256:".utf8.count)
            if !hash.hasPrefix("--hash=sha256:") || !isSHA256(String(digest)) {
                return "'\(hash)' is no --hash=sha256: with 64 hexadecimal digits"
            }
        }
        return nil
    }

    static func isSHA256(_ text: String) -> Bool {
        isHexPattern(text, String(repeating: "x", count: 64)) && text.contains { $0 != "0" }
    }
}
