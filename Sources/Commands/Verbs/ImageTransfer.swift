// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Glibc
import Images
import Linux

/// `image export` and `image import`: images as one file.
enum ImageTransferVerbs {
    private static let target = Key<String>.argument(
        "FILE", "The file to write.", candidates: .files)
    private static let source = Key<String>.argument(
        "FILE", "A file that 'image export' wrote.", candidates: .files)
    private static let alias = Key<String?>.option(
        "as", value: "NAME", "Another name than the one it was exported with.",
        candidates: .images)

    static let export = Command(
        "export", "Write an image to a file, to carry it to another host.",
        discussion: """
            The file is a tar packed with zstd: kernel, initramfs, layers, and a manifest with \
            the digest of each. It holds nothing of any VM.
            """,
        parameters: [ImageVerbs.name, target, Options.yes],
        examples: [
            .init("martlet image export core core.tar.zst", "The whole image, in one file."),
            .init("martlet image export core core.tar.zst --yes", "Replace an older file."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let name = arguments[ImageVerbs.name]
        let path = arguments[target]
        // Before the question: nothing is replaced by an image that is not there.
        guard try session.engine.images.resolve(name) != nil else { throw ImageError.missing(name) }
        let old = try existing(path)
        if let old {
            try await Confirmation(
                "image export \(name)", losses: ["the file \(path) (\(Units.bytes(old)))"]
            ).require(yes: arguments[Options.yes], session.printer)
        }
        let image: ImageManifest
        do {
            image = try await session.printer.withProgress { progress in
                try await session.engine.images.export(
                    name, to: path, replacing: old != nil
                ) { progress.step(name, $0) }
            }
        } catch let error as SystemError where error.isExisting {
            throw Failure(.failed, "\(path) was made by somebody else meanwhile; it was kept")
        }
        let bytes = try Files.status(path).size
        guard session.printer.isJSON else {
            return session.printer.line("\(name): written to \(path) (\(Units.bytes(bytes)))")
        }
        session.printer.document([
            "name": .string(image.name), "digest": .string("sha256:\(image.digest)"),
            "file": .string(path), "bytes": .integer(bytes),
        ])
    }

    /// The size of the file that would be replaced; nil when there is none.
    private static func existing(_ path: String) throws -> Int64? {
        var info = stat()
        if lstat(path, &info) != 0 {
            if errno == ENOENT { return nil }
            throw SystemError("write \(path)")
        }
        // A rename would replace a link or a device itself.
        guard info.st_mode & S_IFMT == S_IFREG else {
            throw Failure(
                .failed, "\(path) exists and is not a file; it was kept", hint: "Name a file.")
        }
        return Int64(info.st_size)
    }

    static let `import` = Command(
        "import", "Take an image from a file that 'image export' wrote.",
        discussion: """
            Every part is checked against its digest; a file that is cut off, changed or something \
            else leaves nothing behind. The digests prove that the file is whole, not who made \
            it: guests run what is inside. The image keeps its name; what had the name before \
            stays for the VMs that use it. Until 'martlet build', an imported image is used in \
            place of the one that Martlet brings along under that name. Without root, it also \
            stands for the recipe of that name in the fleet file.
            """,
        parameters: [source, alias],
        examples: [
            .init("martlet image import core.tar.zst", "Then VMs can start from it, without root."),
            .init("martlet image import core.tar.zst --as old-core", "Under another name."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let path = arguments[source]
        let image: ImageManifest
        do {
            image = try await session.printer.withProgress { progress in
                try await session.engine.images.import(path, as: arguments[alias]) {
                    progress.step(Files.name(path), $0)
                }
            }
        } catch let error as SystemError where error.isMissing && !Files.exists(path) {
            throw Failure(.notFound, "there is no file \(path)")
        }
        try await ImageVerbs.show([image], session)
    }
}
