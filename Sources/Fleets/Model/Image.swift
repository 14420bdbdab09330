// SPDX-License-Identifier: Apache-2.0

/// How an image is made: packages and sources on top of another image, an OCI image, or a foreign disk.
package struct ImageRecipe: Record {
    package var name = ""
    package var from: String?
    package var packages: [String] = []
    package var sources: [ImageSource] = []
    package var files: [String: ImageFile] = [:]
    package var run: [String] = []
    package var oci: String?
    package var disk: String?
    package var firmware: Firmware?
    /// What a service of the catalogue wants of its OCI image; no key of a fleet file.
    package var ociService: OCIService?

    package init() {}
    package init(name: String) { self.name = name }

    /// Images that Martlet brings along.
    package static let builtIn = ["core", "docker", "dev"]

    package mutating func declare(_ key: Fields) {
        key(
            "from", &from, "The image to build on: a built-in (core, docker, dev) or another entry."
        )
        key("packages", &packages, "Debian packages to install.")
        key("sources", &sources, "Archives, programs and packages from elsewhere, by digest.")
        key("files", &files, "Files to write: path to text, or to { source, mode }.")
        key("run", &run, "Shell commands to run in the image at the end.")
        key("oci", &oci, "An OCI image to run as a service inside the core image.")
        key.path("disk", &disk, "A foreign disk image to boot.")
        key("firmware", &firmware, "How it boots: direct (the default) or uefi (of a disk).")
    }

    package mutating func finish(_ scope: Scope) {
        let grounds = [from, oci, disk].compactMap { $0 }.count
        if grounds > 1 { scope.fail("only one of 'from', 'oci' and 'disk' can be the source") }
        if disk != nil, !(packages.isEmpty && sources.isEmpty && files.isEmpty && run.isEmpty) {
            scope.fail(
                "a foreign disk is booted as it is: 'packages', 'sources', 'files' and 'run' need "
                    + "'from'")
        }
        if firmware == .direct, disk != nil {
            scope.fail("a foreign disk brings its own kernel and boots with 'firmware: uefi'")
        }
        if firmware == .uefi, disk == nil {
            scope.fail("'firmware: uefi' is for a foreign 'disk'; built images boot directly")
        }
        if oci == nil, disk == nil, from == nil { from = "core" }
        if firmware == nil { firmware = disk == nil ? .direct : .uefi }
    }
}

package enum Firmware: String, Choice { case direct, uefi }

/// What the program of an OCI image is told by the service that it is of.
package struct OCIService: Sendable, Equatable {
    /// The unit that runs the program.
    package static let unit = "martlet-oci.service"
    /// Where the program finds its credentials, each under its whole name.
    package static let credentials = "/run/credentials/\(unit)"

    /// Folders of the data volume, each with the path that the program has for it.
    package var state: [ServiceState] = []
    package var secrets: [String: ServiceSecret] = [:]

    package init() {}
}

/// A file of an image: text, or a file beside the fleet file.
package struct ImageFile: Record {
    package var text: String?
    package var source: String?
    package var mode = FileMode.readable

    package init() {}
    package init(text: String) { self.text = text }

    package static func read(_ scope: Scope) -> ImageFile? {
        if case .scalar = scope.node.content {
            return String.read(scope).map { ImageFile(text: $0) }
        }
        return readRecord(scope)
    }
    package static var schema: JSONValue { ["anyOf": [String.schema, recordSchema]] }

    package mutating func declare(_ key: Fields) {
        key("text", &text, "The contents.")
        key.path("source", &source, "A file to copy, relative to the fleet file.")
        key("mode", &mode, "Permissions in octal, in quotes.")
    }

    package mutating func finish(_ scope: Scope) {
        if (text == nil) == (source == nil) { scope.fail("give either 'text' or 'source'") }
    }
}

/// Permission bits, written `"0644"`.
package struct FileMode: Notation {
    package var bits: UInt16

    package static let readable = FileMode(bits: 0o644)
    package static let directory = FileMode(bits: 0o755)

    package init(bits: UInt16) { self.bits = bits }
    package init?(_ text: String) {
        guard (3...4).contains(text.utf8.count), let bits = UInt16(text, radix: 8), bits <= 0o7777
        else { return nil }
        self.bits = bits
    }

    package var description: String {
        let text = String(bits, radix: 8)
        return String(repeating: "0", count: max(0, 4 - text.count)) + text
    }
    package static var expected: String { "permissions in octal such as \"0644\"" }
    package static var pattern: String { "^[0-7]{3,4}$" }
}

/// The image of a VM: a name, or a recipe that stands inline.
package enum ImageReference: Declared, ExpressibleByStringLiteral {
    case named(String)
    case inline(ImageRecipe)

    package init(stringLiteral value: String) { self = .named(value) }

    package static func read(_ scope: Scope) -> ImageReference? {
        if case .mapping = scope.node.content { return ImageRecipe.read(scope).map(inline) }
        if scope.scalar() == nil { scope.expected("an image's name or a recipe") }
        return scope.scalar().map(named)
    }
    package var json: JSONValue {
        switch self {
        case .named(let name): .string(name)
        case .inline(let recipe): recipe.json
        }
    }
    package static var schema: JSONValue { ["anyOf": [String.schema, ImageRecipe.schema]] }
}
