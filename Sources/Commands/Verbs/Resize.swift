// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Planning

/// `resize`: memory, CPUs and data volume of a VM, without the fleet file.
enum ResizeVerb {
    static let memory = Key<ByteSize?>.option("memory", value: "SIZE", "Such as 2GiB.")
    static let vcpu = Key<Int?>.option("vcpu", value: "COUNT", "How many CPUs the guest has.")
    static let disk = Key<ByteSize?>.option(
        "disk", value: "SIZE", "The data volume; it can grow only.")

    static let command = Command(
        "resize", "Give a VM more or less memory, CPUs or disk.",
        discussion: """
            Records the sizes as overrides, which count more than the fleet file, and says what 'up' \
            would do. A disk grows while the guest runs; memory and CPUs need a restart. Volumes are \
            resized in the fleet file.
            """,
        parameters: [Options.vm, memory, vcpu, disk],
        examples: [
            .init("martlet resize web --disk 20GiB", "Then 'martlet up web': nothing stops."),
            .init(
                "martlet resize web --memory 2GiB --vcpu 2", "The guest sees it after a restart."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let name = arguments[Options.vm]
        let fleet = try session.fleet()
        guard let vm = fleet.vm(name) else {
            throw Failure.noVM(name, in: fleet.vms.map(\.name))
        }
        var values: [(key: String, value: JSONValue)] = []
        if let size = arguments[memory] { values.append(("memory", .string("\(size)"))) }
        if let count = arguments[vcpu] { values.append(("vcpu", JSONValue(count))) }
        if let size = arguments[disk] {
            let applied = await session.engine.observer.observe(name).vm.applied?.vm.disk
            if let applied, size < applied {
                throw Failure(
                    .failed,
                    "the data volume of \(name) has \(applied) and cannot shrink to \(size)",
                    hint: "'martlet recreate \(name)' makes an empty one of any size.")
            }
            values.append(("disk", .string("\(size)")))
        }
        guard !values.isEmpty else {
            throw Failure(
                .usage, "no size is given", hint: "Give --memory, --vcpu or --disk.")
        }
        try await record(values, of: vm, session)
        session.printer.note(
            "Recorded in \(session.engine.layout.override(name)). To keep it in the fleet file "
                + "instead, write it there and remove it here.")
        let plan = try await session.plan(only: [name])
        if session.printer.isJSON {
            session.printer.document(plan.json)
        } else {
            PlanVerb.show(plan, session.printer)
        }
    }

    /// Writes the overrides, and takes them back if the fleet would not be valid with them.
    private static func record(
        _ values: [(key: String, value: JSONValue)], of vm: VM, _ session: Session
    ) async throws {
        let before = try session.engine.overrideText(vm.name)
        try await session.engine.override(vm.name, values)
        do {
            _ = try session.fleet()
        } catch {
            try await session.engine.restoreOverride(vm.name, before)
            throw error
        }
    }
}
