// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux

extension LayerRecipe {
    /// Something that a layer takes from elsewhere, for this host's architecture.
    package struct Source: Sendable, Equatable {
        package enum Kind: Sendable, Equatable {
            case archive(strip: Int, remove: [String])
            case binary(mode: UInt32, isCompressed: Bool)
            case deb
            case pip(requirements: [String])
            /// An OCI image that runs as a service, and what one of the catalogue wants of it.
            case oci(OCIService?)
        }

        package var kind: Kind
        /// URL or path; empty for `pip`.
        package var address: String
        /// SHA-256 of the file, or of the requirements.
        package var digest: String
        /// Where it goes; empty for a Debian package.
        package var to: String

        /// What a person would call it: the file's name.
        package var name: String {
            if case .pip(let all) = kind {
                return all.count == 1 ? "the requirement of \(to)" : "the requirements of \(to)"
            }
            if isOCI {
                let name = OCIPull.repository(address).split(separator: "/").last
                return name.map(String.init) ?? address
            }
            let file = address.prefix { $0 != "?" && $0 != "#" }.split(separator: "/").last
            return file.map(String.init) ?? address
        }

        /// What decides the content, and nothing that only says where it comes from.
        var identity: String {
            switch kind {
            case .archive(let strip, let remove):
                "archive \(digest) \(strip) \(remove.sorted().joined(separator: "\u{1}"))"
            case .binary(let mode, let isCompressed): "binary \(digest) \(mode) \(isCompressed)"
            case .deb: "deb \(digest)"
            case .pip: "pip \(digest)"
            case .oci(let service): "oci \(digest) \(OCIUnits.form(service))"
            }
        }

        /// Its name in `cache/sources`.
        var cacheName: String { isOCI ? "oci-\(digest)" : digest }

        var isOCI: Bool { if case .oci = kind { true } else { false } }

        /// The text that pip reads.
        var requirements: String? {
            guard case .pip(let all) = kind else { return nil }
            return all.sorted().map { $0 + "\n" }.joined()
        }
    }

    /// Debian's name for the architecture that Martlet was built for.
    package static let architecture: String = {
        #if arch(arm64)
            "arm64"
        #else
            "amd64"
        #endif
    }()

    static func sources(of recipe: ImageRecipe) throws(ImageError) -> [Source] {
        var all: [Source] = []
        if let oci = recipe.oci {
            all.append(try Source(oci: oci, recipe.ociService, of: recipe.name))
        }
        for source in recipe.sources { all.append(try Source(source, of: recipe.name)) }
        return all
    }
}

extension LayerRecipe.Source {
    /// The image behind `NAME@sha256:…`.
    fileprivate init(
        oci reference: String, _ service: OCIService?, of image: String
    ) throws(ImageError) {
        let parts = reference.split(separator: "@")
        guard parts.count == 2, let hex = OCIImage.hex(parts[1].lowercased()) else {
            throw .badSource(
                image: image, source: reference,
                reason: "it has no digest, so nobody knows what it is; add '@sha256:…'")
        }
        (kind, address, digest, to) = (.oci(service), reference, hex, OCIUnits.home)
    }

    init(_ source: ImageSource, of image: String) throws(ImageError) {
        to = source.to ?? source.venv ?? ""
        if let requirements = source.pip {
            // However they are spaced, they are the same.
            let plain = requirements.map {
                $0.split(whereSeparator: \.isWhitespace).joined(separator: " ")
            }
            kind = .pip(requirements: plain)
            address = ""
            digest = SHA256.hex(plain.sorted().joined(separator: "\n").utf8)
            return
        }
        if source.archive != nil {
            kind = .archive(strip: source.strip, remove: source.remove)
        } else if source.binary != nil {
            kind = .binary(
                mode: UInt32(source.mode?.bits ?? 0o755), isCompressed: source.compressed)
        } else {
            kind = .deb
        }
        let pins = source.place?.pins
        if let url = source.place?.url, let pin = source.sha256 {
            (address, digest) = (url, pin.lowercased())
        } else if let pin = LayerRecipe.architecture == "arm64" ? pins?.arm64 : pins?.amd64 {
            (address, digest) = (pin.url.text, pin.sha256.lowercased())
        } else {
            let other = pins?.amd64 ?? pins?.arm64
            throw .noPin(
                image: image, source: other.map { Files.name($0.url.text) } ?? "a source",
                architecture: LayerRecipe.architecture)
        }
    }
}
