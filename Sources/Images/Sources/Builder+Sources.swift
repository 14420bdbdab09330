// SPDX-License-Identifier: Apache-2.0
import Archives
import Fleets
import Linux

extension Builder {
    /// Fetches a layer's sources and lays them ready in `sources/` of the work folder.
    ///
    /// Returns the ports that they want open.
    func prepareSources(
        _ layer: LayerRecipe, in work: String,
        progress: @escaping @Sendable (BuildProgress) -> Void
    ) async throws -> [ProtocolPort] {
        guard !layer.sources.isEmpty else { return [] }
        var ports: [ProtocolPort] = []
        let image = layer.image
        let report: @Sendable (String) -> Void = { progress(BuildProgress(image: image, step: $0)) }
        try Files.makeFolder("\(work)/sources")
        let cache = SourceCache(root: store.root)
        for (index, source) in layer.sources.enumerated() {
            let target = "\(work)/sources/\(index)"
            if let requirements = source.requirements {
                try Files.write(target + ".txt", requirements)
                continue
            }
            if case .oci(let service) = source.kind {
                let pull = OCIPull(cache: cache, image: image, source: source, progress: report)
                let pulled = try await pull.run()
                report("unpacking \(source.name)")
                try Files.makeFolder(target)
                let tree = OCITree(folder: target, name: source.name, service: service)
                ports += try await naming(source, of: image) { try tree.make(pulled) }
                continue
            }
            let file = try await cache.file(source, image: image, progress: report)
            switch source.kind {
            case .archive, .binary(_, true): report("unpacking \(source.name)")
            default: break
            }
            try await naming(source, of: image) { try Builder.prepare(source, file, at: target) }
        }
        return ports
    }

    /// Does what blocks, and says of which source something is wrong.
    private func naming<R: Sendable>(
        _ source: LayerRecipe.Source, of image: String, _ body: @escaping @Sendable () throws -> R
    ) async throws -> R {
        do { return try await blocking(body) } catch let error as ArchiveEntries.Failure {
            throw ImageError.badSource(image: image, source: source.address, reason: error.text)
        }
    }

    private static func prepare(
        _ source: LayerRecipe.Source, _ file: String, at target: String
    ) throws {
        switch source.kind {
        case .archive(let strip, let remove):
            try Files.makeFolder(target)
            try Unpacker.unpack(
                file, into: target, rules: Unpacker.Rules(strip: strip, remove: remove))
        case .binary(_, true): try Unpacker.unpackFile(file, to: target)
        // The image sees them read-only; a copy costs more than a second name.
        case .binary(_, false): try ImageStore.share(file, target)
        case .deb: try ImageStore.share(file, target + ".deb")
        case .pip, .oci: break
        }
    }
}
