// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Linux
import Planning

/// `rollback`: an earlier generation.
enum RollbackVerb {
    static let generation = Key<Int?>.argument(
        "GENERATION", "Its number; the one before the current one when omitted.")

    static let command = Command(
        "rollback", "Return a VM to the configuration and image of an earlier generation.",
        discussion: """
            The VM's data stays as it is, and a snapshot of it is made first: 'martlet snapshot \
            restore' is what returns data. A VM that runs is restarted; where it does not come up, \
            it is not moved again, and the message says so. The image is held until the next 'martlet upgrade'. The \
            fleet file stays the truth for everything else: the next 'martlet up' applies it, and \
            'martlet plan' says what that would be.
            """,
        parameters: [Options.vm, generation],
        examples: [
            .init("martlet rollback web", "To the generation before, skipping what failed."),
            .init("martlet rollback web 3", "To that one."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let target = try await session.target(arguments[Options.vm])
        let number = arguments[generation]
        try await session.act("rollback", on: [target.vm.name]) { engine, name in
            try await engine.rollback(name, to: number)
        }
    }
}

/// `generations`: what was applied, and when.
enum GenerationsVerb {
    static let command = Command(
        "generations", "List what was applied to a VM, and what each time changed.",
        discussion: """
            The last ten are kept, and their images with them. One that 'failed' is what an upgrade \
            went back from; 'martlet up' does not try it again by itself.
            """,
        parameters: [Options.vm],
        examples: [.init("martlet generations web", "Find the one to return to.")]
    ) { arguments in
        let session = try Session(arguments)
        let target = try await session.target(arguments[Options.vm])
        let (views, problems) = try await session.engine.generationViews(target.vm.name)
        for problem in problems { session.printer.warning(problem) }
        if session.printer.isJSON {
            return session.printer.document(.array(views.map(\.json)))
        }
        var table = Table([.number("NUMBER"), "APPLIED", "IMAGE", "STATE", "CHANGED"])
        for view in views {
            table.add([
                .init("\(view.number)"), .init(Clock.iso8601(view.appliedAt)),
                .init("\(view.vm.image.title) \(short(view.imageDigest))"),
                .init(
                    view.marks.joined(separator: ", "), view.failure != nil ? .error : nil),
                .init(view.changes.map(\.field).joined(separator: ", ")),
            ])
        }
        session.printer.table(table)
    }
}

extension GenerationView {
    fileprivate var marks: [String] {
        [
            isCurrent ? "current" : nil, isRunning ? "running" : nil,
            isPinned ? "held by rollback" : nil, failure.map { "failed: \($0)" },
            hasImage ? nil : "image gone",
        ].compactMap { $0 }
    }

    fileprivate var json: JSONValue {
        [
            "number": JSONValue(number), "appliedAt": .string(Clock.iso8601(appliedAt)),
            "image": .string(vm.image.title), "imageDigest": .string(imageDigest),
            "changes": .array(
                changes.map {
                    ["field": .string($0.field), "from": .text($0.from), "to": .text($0.to)]
                }),
            "current": .bool(isCurrent), "running": .bool(isRunning), "pinned": .bool(isPinned),
            "failed": .text(failure), "hasImage": .bool(hasImage),
        ]
    }
}
