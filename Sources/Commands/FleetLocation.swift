// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// Which fleet file a verb means: -f, else MARTLET_FLEET, else one of the usual places.
struct FleetLocation: Sendable {
    let path: String
    /// Whether somebody named it: a named file that is missing is always an error.
    let isNamed: Bool

    init(_ option: String?, variable: (String) -> String? = { environment($0) }) {
        if let named = option ?? variable("MARTLET_FLEET").flatMap({ $0.isEmpty ? nil : $0 }) {
            (path, isNamed) = (named, true)
        } else {
            let usual = ["fleet.yaml", "/etc/martlet/fleet.yaml"]
            (path, isNamed) = (usual.first(where: Files.exists) ?? usual[0], false)
        }
    }

    /// Reads the file and what it imports; `overrides` is ROOT's folder of partial VMs.
    ///
    /// `adding` holds overrides that are not written yet, by VM.
    func read(
        overrides: String?, adding: [String: FleetFile.Document] = [:]
    ) throws -> FleetFile {
        guard Files.exists(path) else {
            throw Failure(
                .notFound, "there is no fleet file \(isNamed ? path : "here")",
                hint: isNamed
                    ? nil
                    : "Name one with -f or MARTLET_FLEET, or make one: 'martlet init'.")
        }
        var sources = FleetFile.Sources { try Files.read($0, limit: 64 << 20) }
        sources.directory = Files.workingFolder()
        let services = ServiceFolder(beside: path)
        sources.services = try services.names + Catalogue.ids
        sources.service = { try services.document($0) ?? Catalogue.document($0) }
        if let overrides { sources.overrides = try documents(in: overrides) }
        sources.overrides.merge(adding) { $1 }
        return FleetFile.load(path, from: sources)
    }

    /// The fleet, or the failure that lists every mistake; warnings are shown.
    func load(overrides: String?, _ printer: Printer) throws -> Fleet {
        try valid(try read(overrides: overrides), printer)
    }

    /// The fleet of a file that has been read, or the failure that lists every mistake.
    func valid(_ file: FleetFile, _ printer: Printer) throws(Failure) -> Fleet {
        guard let fleet = file.fleet else { throw Failure(invalid: file, at: path) }
        for warning in file.diagnostics where warning.severity == .warning {
            printer.note(visible(warning.description))
        }
        return fleet
    }

    private func documents(in folder: String) throws -> [String: FleetFile.Document] {
        var documents: [String: FleetFile.Document] = [:]
        for name in try Files.list(folder) where name.hasSuffix(".yaml") {
            let path = "\(folder)/\(name)"
            documents[String(name.dropLast(5))] = .init(path: path, bytes: try Files.read(path))
        }
        return documents
    }
}

/// The services of somebody's own: the files of the folder `catalogue` beside the fleet file.
struct ServiceFolder {
    let path: String

    init(beside fleet: String) {
        let folder = Files.parent(fleet)
        path = fleet.contains("/") && folder != "." ? folder + "/catalogue" : "catalogue"
    }

    var names: [String] {
        get throws {
            guard Files.exists(path) else { return [] }
            return try Files.list(path).filter { $0.hasSuffix(".yaml") }
                .map { String($0.dropLast(5)) }.sorted()
        }
    }

    /// The file of a service; nil when the folder has none of that name, which must be a plain one.
    func document(_ name: String) throws -> FleetFile.Document? {
        let file = "\(path)/\(name).yaml"
        guard Files.exists(file) else { return nil }
        return .init(path: file, bytes: try Files.read(file, limit: 8 << 20))
    }
}

extension Failure {
    /// The failure that lists every mistake of a fleet file.
    init(invalid file: FleetFile, at path: String) {
        let count = file.errors.count
        self.init(
            .invalidFleet, "\(path) has \(Units.plural(count, "mistake"))",
            diagnostics: file.diagnostics)
    }
}
