// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Images
import Planning

/// `upgrade`: the newest image, with a way back.
enum UpgradeVerb {
    static let command = Command(
        "upgrade", "Move VMs to the newest build of their image, and back when it fails.",
        discussion: """
            The image is built first and the difference of its packages shown. The VM is stopped, \
            its data kept in a snapshot, and the new generation started. When that does not come \
            up healthy, the data of before and the old generation are given back, without being \
            asked, and the exit code is 1; the state that failed stays as a snapshot, too. A VM that \
            does not run is tried by its next start. What else differs from the fleet file is left \
            to 'martlet up'. Mutable and suspended VMs are refused.
            """,
        parameters: [Options.someVMs, ImageVerbs.refresh],
        examples: [
            .init("martlet upgrade web", "To what its recipe gives now."),
            .init("martlet upgrade web --refresh", "With the newest packages of Debian."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let fleet = try session.fleetIfAny()
        let reports = try await session.targets(arguments[Options.someVMs])
        let vms = try reports.map { report in
            guard let applied = report.vm.applied?.vm else {
                throw LifecycleError.notCreated(report.vm.name)
            }
            return fleet?.vm(report.vm.name) ?? applied
        }
        let images = await session.printer.withProgress { progress in
            let engine = session.engine.reporting(to: progress.reporter)
            return await engine.newImages(for: vms, in: fleet, refresh: arguments[refresh])
        }
        for report in reports { show(report, images[report.vm.name], session) }
        try await session.act("upgrade", on: vms.map(\.name)) { engine, name in
            guard let vm = vms.first(where: { $0.name == name }), let image = images[name] else {
                throw LifecycleError.notCreated(name)
            }
            return try await engine.upgrade(name, to: vm.image, digest: try image.get())
        }
    }

    private static let refresh = ImageVerbs.refresh

    /// Says what becomes of the packages, before anything happens.
    private static func show(
        _ report: VMReport, _ image: Result<String, any Error>?, _ session: Session
    ) {
        guard !session.printer.isJSON, case .success(let new)? = image,
            let old = (report.vm.running ?? report.vm.applied)?.imageDigest, old != new
        else { return }
        let head = "\(report.vm.name): \(short(old)) to \(short(new)): "
        guard let changes = session.engine.packageChanges(from: old, to: new) else {
            return session.printer.line(head + "the packages of the old image are not known")
        }
        guard !changes.isEmpty else { return session.printer.line(head + "the same packages") }
        session.printer.line(head + Units.plural(changes.count, "package"))
        session.printer.table(ImageVerbs.table(changes))
    }
}
