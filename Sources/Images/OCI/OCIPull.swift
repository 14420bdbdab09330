// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// Gets OCI images by digest: `cache/sources/oci-<digest>/`, as skopeo's `dir:` has them.
///
/// The digests are checked here, too: that of what the recipe names, of the manifest for this
/// platform, of the configuration and of every layer, whenever they are used.
struct OCIPull: Sendable {
    let cache: SourceCache
    let image: String
    let source: LayerRecipe.Source
    let progress: SourceCache.Progress

    private var folder: String { cache.path(source.cacheName) }

    /// The image with the paths of its parts.
    struct Pulled: Sendable {
        let config: [UInt8]
        /// Files, the lowest layer first.
        let layers: [String]
    }

    func run() async throws -> Pulled {
        try Files.makeFolder(cache.folder)
        try Files.makeFolder(cache.locks)
        while true {
            if let lock = try FileLock.attempt("\(cache.locks)/\(source.cacheName)") {
                defer { withExtendedLifetime(lock) {} }
                if let there = try? await check(folder) { return there }
                try Files.remove(folder)
                let part = folder + ".part"
                try Files.remove(part)
                try Files.makeFolder(part)
                do {
                    try await pull(into: part)
                    _ = try await check(part)
                    try Files.rename(part, folder)
                } catch {
                    try? Files.remove(part)
                    throw error
                }
                try Files.syncFolder(cache.folder)
                return try await check(folder)
            }
            progress("waiting for another martlet that pulls \(source.address)")
            try await Task.sleep(for: .milliseconds(200))
        }
    }

    private func pull(into part: String) async throws {
        progress("pulling \(source.address)")
        let first = try await skopeo(["inspect", "--raw"], [reference(source.digest)])
        try compare(first, source.digest)
        try Files.write("\(part)/index.json", first)
        let digest = try chosen(first)
        _ = try await skopeo(
            ["copy", "--quiet", "--preserve-digests"], [reference(digest), "dir:\(part)/image"])
    }

    private func reference(_ digest: String) -> String {
        "docker://\(OCIPull.repository(source.address))@sha256:\(digest)"
    }

    /// A reference without its tag, beside which skopeo takes no digest.
    static func repository(_ reference: String) -> String {
        let name = reference.prefix { $0 != "@" }
        guard let colon = name.lastIndex(of: ":"), !name[colon...].contains("/") else {
            return String(name)
        }
        return String(name[..<colon])
    }

    /// Whether a registry is on this machine, where nobody listens in.
    static func isLoopback(_ reference: String) -> Bool {
        let host = reference.prefix { $0 != "/" }
        return host == "localhost" || host.hasPrefix("localhost:") || host == "127.0.0.1"
            || host.hasPrefix("127.0.0.1:") || host.hasPrefix("[::1]")
    }

    private func chosen(_ first: [UInt8]) throws -> String {
        do throws(OCIImage.Failure) {
            return try OCIImage.choice(from: first, architecture: LayerRecipe.architecture)
                ?? source.digest
        } catch {
            throw bad(error.text)
        }
    }

    private func bad(_ reason: String) -> ImageError {
        .badSource(image: image, source: source.address, reason: reason)
    }

    private func compare(_ bytes: [UInt8], _ digest: String) throws {
        let found = SHA256.hex(bytes)
        guard found == digest else {
            throw ImageError.wrongDigest(
                image: image, source: source.address, expected: digest, found: found)
        }
    }

    /// Runs skopeo as the user would: with their logins, proxies and certificates.
    private func skopeo(_ verb: [String], _ words: [String]) async throws -> [UInt8] {
        let isLocal = OCIPull.isLoopback(source.address)
        let flag = verb[0] == "copy" ? "--src-tls-verify=false" : "--tls-verify=false"
        var program = Program(
            try tool("skopeo", package: "skopeo"), verb + (isLocal ? [flag] : []) + words)
        program.environment =
            SourceFetch.environment()
            + ["HOME", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG"].compactMap {
                name in
                environment(name).map { "\(name)=\($0)" }
            }
        let output = try await program.capture(limit: 8 << 20)
        guard output.exit.isSuccess else {
            let text = output.errorText.split(separator: "\n").last.map(String.init) ?? ""
            throw ImageError.notFetched(
                image: image, source: source.address,
                reason: text.isEmpty ? "skopeo ended with \(output.exit)" : text)
        }
        return output.standardOutput
    }

    /// Reads all of an image and compares every digest.
    private func check(_ folder: String) async throws -> Pulled {
        let first = try Files.read("\(folder)/index.json", limit: 8 << 20)
        try compare(first, source.digest)
        let text = try Files.read("\(folder)/image/manifest.json", limit: 8 << 20)
        try compare(text, try chosen(first))
        let manifest: OCIImage
        do throws(OCIImage.Failure) { manifest = try OCIImage(manifest: text) } catch {
            throw bad(error.text)
        }
        for blob in manifest.layers {
            let path = "\(folder)/image/\(blob.digest)"
            let found = try await blocking { try SHA256.file(path) }
            guard found == blob.digest else {
                throw ImageError.wrongDigest(
                    image: image, source: source.address, expected: blob.digest, found: found)
            }
        }
        let config = try Files.read("\(folder)/image/\(manifest.config.digest)", limit: 8 << 20)
        try compare(config, manifest.config.digest)
        return Pulled(
            config: config, layers: manifest.layers.map { "\(folder)/image/\($0.digest)" })
    }
}
