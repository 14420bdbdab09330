// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux

/// How one layer is made: what comes on top of the layers below it.
package struct LayerRecipe: Sendable, Equatable {
    /// A file to write, by its absolute path in the image.
    package struct File: Sendable, Equatable {
        package let path: String
        package let mode: UInt32
        package let content: [UInt8]
        /// SHA-256 of the content: found once, for a fleet asks for the same layers again and again.
        let digest: String

        package init(path: String, mode: UInt32, content: [UInt8]) {
            self.path = path
            self.mode = mode
            self.content = content
            digest = SHA256.hex(content)
        }
    }

    /// The image whose topmost layer this is.
    package var image: String
    package var packages: [String]
    package var files: [File]
    /// What comes from elsewhere, in the order in which it is put into the image.
    package var sources: [Source] = []
    /// Shell scripts that run in the image at the end, one after the other.
    package var run: [String]

    package init(image: String, packages: [String], files: [File] = [], run: [String] = []) {
        self.image = image
        self.packages = packages
        self.files = files
        self.run = run
    }
}

extension LayerRecipe {
    /// What an image of Martlet's own is built on; nil for the lowest and for unknown names.
    private static let parents = ["core": "base", "docker": "core", "dev": "core"]

    /// The images that Martlet brings along, the lowest first.
    package static let builtIn = ["base", "core", "dev", "docker"]

    /// The recipe of an image that Martlet brings along; nil for other names.
    static func builtIn(_ name: String) -> LayerRecipe? { carried[name] }

    /// Unpacked once: the program's own files do not change while it runs.
    private static let carried = Dictionary(
        uniqueKeysWithValues: builtIn.map { ($0, unpack($0)) })

    private static func unpack(_ name: String) -> LayerRecipe {
        func text(_ file: String) -> String {
            String(decoding: GuestPrograms.bytes("images/\(name)/\(file)") ?? [], as: UTF8.self)
        }
        return LayerRecipe(
            image: name,
            packages: text("packages").split(separator: "\n").map(String.init),
            files: GuestPrograms.files(in: "images/\(name)/files"), run: [text("setup")])
    }

    /// All layers of an image, the lowest first.
    ///
    /// `recipes` are the fleet's own; a name that they define hides a built-in one only for
    /// others, never for itself: `core: { from: core }` builds on the built-in.
    package static func chain(
        for name: String, recipes: [ImageRecipe]
    ) throws(ImageError) -> [LayerRecipe] {
        var layers: [LayerRecipe] = []
        var seen: Set<String> = []
        var next: String? = name
        while let current = next {
            if let recipe = recipes.first(where: { $0.name == current }),
                seen.insert(current).inserted
            {
                guard recipe.disk == nil else { throw .unsupported(image: current) }
                layers.append(try LayerRecipe(recipe))
                next = recipe.from ?? "core"
            } else {
                guard let layer = builtIn(current) else { throw .unknownImage(current) }
                layers.append(layer)
                next = parents[current]
            }
        }
        return layers.reversed()
    }

    private init(_ recipe: ImageRecipe) throws(ImageError) {
        self.init(image: recipe.name, packages: recipe.packages, run: recipe.run)
        sources = try LayerRecipe.sources(of: recipe)
        for (path, file) in recipe.files.sorted(by: { $0.key < $1.key }) {
            let content: [UInt8]
            do {
                content =
                    try file.source.map { (source) throws(SystemError) in
                        try Files.read(source)
                    } ?? Array((file.text ?? "").utf8)
            } catch {
                throw .unreadableSource(image: recipe.name, error)
            }
            files.append(File(path: path, mode: UInt32(file.mode.bits), content: content))
        }
    }
}
