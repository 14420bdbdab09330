// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Glibc
import Linux
import Planning

/// What most verbs begin with: where things go, the engine, and the fleet file when one is there.
struct Session: Sendable {
    let printer: Printer
    let engine: Engine
    private let file: String?

    init(_ arguments: Arguments) throws {
        printer = Printer(arguments)
        let layout = try Layout.standard(user: geteuid())
        try layout.checkOwner(geteuid())
        engine = Engine(layout: layout)
        file = arguments[Options.file]
    }

    /// The fleet, or the failure that lists every mistake in its file.
    func fleet() throws -> Fleet {
        let fleet = try FleetLocation(file).load(overrides: engine.layout.overrides, printer)
        return fleet.assigningAddresses(try engine.store.keptAddresses(of: fleet.name))
    }

    /// The fleet as it would be with one more VM, or the failure that lists what would be wrong.
    func fleet(adding new: AddedVM) throws -> Fleet {
        let location = FleetLocation(file)
        let name = new.vm.name
        let path = engine.layout.override(name)
        let file = try location.read(
            overrides: engine.layout.overrides,
            adding: [name: .init(path: path, bytes: Array(new.text.utf8))])
        return try location.valid(file, printer)
    }

    /// The fleet when there is a file; nil when none was named and none is found.
    func fleetIfAny() throws -> Fleet? {
        do {
            return try fleet()
        } catch let failure as Failure where failure.code == .notFound && file == nil {
            return nil
        }
    }

    /// The VMs that a verb is about: those named, or else all of this fleet that exist.
    func targets(_ names: [String]) async throws -> [VMReport] {
        let fleet = try fleetIfAny()
        let (reports, warnings) = try await engine.observer.observeAll()
        for warning in warnings { printer.warning(warning) }
        let ours = reports.filter { report in
            guard let fleet, report.vm.fleet != fleet.name else { return true }
            // Whose it is cannot be read, but its name says it.
            return report.vm.damaged != nil && report.vm.fleet == nil
                && fleet.vm(report.vm.name) != nil
        }
        if names.isEmpty {
            guard fleet != nil else {
                throw Failure(
                    .usage, "no VM is named, and there is no fleet file to take all VMs of",
                    hint: "Name the VMs, or the file with -f.")
            }
            return ours
        }
        return try names.map { name in
            if let report = ours.first(where: { $0.vm.name == name }) { return report }
            if let other = reports.first(where: { $0.vm.name == name }) {
                // A throw-away VM belongs to no fleet, so to whoever names it.
                guard let owner = other.vm.fleet else { return other }
                throw Failure(
                    .notFound, "\(name) belongs to the fleet '\(owner)', not to this one",
                    hint: "Name that fleet's file with -f.")
            }
            throw missing(name, known: ours.map(\.vm.name) + (fleet?.vms.map(\.name) ?? []))
        }
    }

    func target(_ name: String) async throws -> VMReport {
        let targets = try await targets([name])
        guard let target = targets.first else { throw missing(name, known: []) }
        return target
    }

    private func missing(_ name: String, known: [String]) -> Failure {
        let hint =
            if known.contains(name) {
                "It is declared but was never made: 'martlet up \(name)' makes it."
            } else if let near = nearest(name, among: known) {
                "Did you mean '\(near)'?"
            } else {
                "'martlet list' shows the VMs that exist."
            }
        return Failure(.notFound, "there is no VM '\(name)'", hint: hint)
    }

    /// Does the same to several VMs side by side, shows how it goes, prints the results, and fails at the end if any failed.
    func act(
        _ action: String, on names: [String],
        _ body: @escaping @Sendable (Engine, String) async throws -> String
    ) async throws {
        let outcomes = await printer.withProgress { progress in
            let engine = self.engine.reporting(to: progress.reporter)
            return await withTaskGroup(of: (Int, Outcome).self) { group in
                for (index, name) in names.enumerated() {
                    group.addTask {
                        let start = Clock.monotonic()
                        let result: Result<String, any Error>
                        do {
                            result = .success(try await body(engine, name))
                        } catch {
                            result = .failure(error)
                        }
                        let outcome = Outcome(
                            vm: name, action: action,
                            seconds: Double(Clock.monotonic() - start) / 1e9, result: result)
                        progress.finish(name, outcome.detail, ok: outcome.ok)
                        return (index, outcome)
                    }
                }
                return await group.reduce(into: []) { $0.append($1) }
                    .sorted { $0.0 < $1.0 }.map(\.1)
            }
        }
        try printer.finish(outcomes)
    }
}

extension Progress {
    /// What the engine reports to.
    var reporter: Reporter {
        Reporter { event in
            switch event {
            case .working(let item, let text): self.step(item, text)
            case .finished(let item, let ok, let text): self.finish(item, text, ok: ok)
            case .warning(let text): self.note("warning: \(text)")
            }
        }
    }
}
