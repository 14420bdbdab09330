// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Images
import Linux
import Planning

/// `build`, `images`, `image …` and `prune`.
enum ImageVerbs {
    static let names = Key<[String]>.arguments(
        "IMAGE", "Images; all of the fleet when omitted.", candidates: .images)
    static let name = Key<String>.argument("IMAGE", "The image.", candidates: .images)
    static let refresh = Key.flag("refresh", "Take newer packages, where Debian has some.")
    static let builtIn = Key.flag("builtin", "List the images that Martlet brings along.")
    static let older = Key<String>.argument("A", "The older image.", candidates: .images)
    static let newer = Key<String>.argument("B", "The newer image.", candidates: .images)

    static let build = Command(
        "build", "Build images, and of them only the layers that are missing or damaged.",
        parameters: [names, refresh],
        examples: [
            .init("martlet build", "Every image that the fleet's VMs use."),
            .init("martlet build core --refresh", "With the newest packages."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let fleet = try session.fleetIfAny()
        var wanted = arguments[names]
        if wanted.isEmpty {
            wanted = Set((fleet?.vms ?? []).map(Engine.imageName)).sorted()
        }
        guard !wanted.isEmpty else {
            throw Failure(.usage, "no image is named, and there is no fleet file to take them of")
        }
        let chosen = wanted
        let built = try await session.printer.withProgress { progress in
            try await session.engine.reporting(to: progress.reporter).buildImages(
                chosen, in: fleet, refresh: arguments[refresh], verify: true)
        }
        try await show(chosen.compactMap { built[$0] }, session)
    }

    static let images = Command(
        "images", "List images.", parameters: [builtIn],
        examples: [.init("martlet images", "What is built, how large it is, and who uses it.")]
    ) { arguments in
        let session = try Session(arguments)
        if arguments[builtIn] {
            return session.printer.isJSON
                ? session.printer.document(.array(LayerRecipe.builtIn.map(JSONValue.string)))
                : LayerRecipe.builtIn.forEach(session.printer.line)
        }
        let (images, problems) = try session.engine.images.list()
        for problem in problems { session.printer.warning(problem) }
        try await show(images.sorted { ($0.name, $0.createdAt) < ($1.name, $1.createdAt) }, session)
    }

    static func show(_ images: [ImageManifest], _ session: Session) async throws {
        let users = try await session.engine.imageUsers()
        if session.printer.isJSON {
            return session.printer.document(
                .array(images.map { $0.row(usedBy: users[$0.digest] ?? []) }))
        }
        var table = Table([
            "NAME", "DIGEST", .number("LAYERS"), .number("SIZE"), .number("PACKAGES"), "CREATED",
            "CHECKED", "USED BY",
        ])
        for image in images {
            table.add([
                .init(image.name), .init(short(image.digest)), .init("\(image.layers.count)"),
                .init(Units.bytes(image.bytes)), .init("\(image.packages.count)"),
                .init(Units.ago(image.createdAt, now: Clock.now())),
                .init(image.isCheckedAtRead ? "at read" : "at start"),
                .init(users[image.digest]?.joined(separator: " ")),
            ])
        }
        session.printer.table(table)
    }

    static let image = Command(
        "image", "Remove, carry and compare images.",
        subcommands: [remove, ImageTransferVerbs.export, ImageTransferVerbs.import, diff])

    private static let remove = Command(
        "rm", "Remove an image that no VM uses.", parameters: [name],
        examples: [.init("martlet image rm tools", "Its layers go when no other image has them.")]
    ) { arguments in
        let session = try Session(arguments)
        try await session.engine.images.remove(
            arguments[name], inUse: try await session.engine.imageUsers())
    }

    private static let diff = Command(
        "diff", "Say which packages differ between two images.", parameters: [older, newer],
        examples: [.init("martlet image diff core tools", "Added, removed and changed packages.")]
    ) { arguments in
        let session = try Session(arguments)
        let ends = try [arguments[older], arguments[newer]].map { name in
            guard let image = try session.engine.images.resolve(name) else {
                throw ImageError.missing(name)
            }
            return image
        }
        let changes = ends[0].changes(to: ends[1])
        if session.printer.isJSON {
            return session.printer.document(
                .array(
                    changes.map {
                        [
                            "package": .string($0.package), "from": .text($0.from),
                            "to": .text($0.to),
                        ]
                    }))
        }
        session.printer.table(table(changes))
    }

    /// What becomes of packages, for people.
    static func table(_ changes: [PackageChange]) -> Table {
        var table = Table(["", "PACKAGE", "FROM", "TO"])
        for change in changes {
            let mark = change.from == nil ? "+" : change.to == nil ? "-" : "~"
            table.add([
                .init(mark), .init(change.package), .init(change.from), .init(change.to),
            ])
        }
        return table
    }

    static let prune = Command(
        "prune", "Remove what nothing refers to any more.",
        discussion: """
            Images without a name that no VM uses, layers of no image, downloaded packages of no \
            image, leftovers of killed builds, and stopped throw-away VMs.
            """,
        examples: [.init("martlet prune", "Free what is not needed.")]
    ) { arguments in
        let session = try Session(arguments)
        let throwaways = try await session.engine.removeThrowaways()
        let users = try await session.engine.imageUsers()
        let freed = try session.engine.images.prune(inUse: Set(users.keys))
        if session.printer.isJSON {
            session.printer.document([
                "freedBytes": .integer(freed), "removed": .array(throwaways.map(JSONValue.string)),
            ])
        } else {
            for name in throwaways { session.printer.line("removed \(name)") }
            session.printer.line("freed \(Units.bytes(freed))")
        }
    }
}

extension ImageManifest {
    fileprivate func row(usedBy users: [String]) -> JSONValue {
        [
            "name": .string(name), "digest": .string("sha256:\(digest)"),
            "layers": .array(layers.map { .string("sha256:\($0.digest)") }),
            "bytes": .integer(bytes), "packages": JSONValue(packages.count),
            "createdAt": .string(Clock.iso8601(createdAt)),
            "checked": .string(isCheckedAtRead ? "at read" : "at start"),
            "usedBy": .array(users.map(JSONValue.string)),
        ]
    }
}
