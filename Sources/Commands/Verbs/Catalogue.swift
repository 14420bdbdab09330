// SPDX-License-Identifier: Apache-2.0
import Arguments
import Fleets
import Linux

/// `catalogue …`: ready services, those of the program and those beside the fleet file.
enum CatalogueVerbs {
    static let id = Key<String>.argument("ID", "The service.", candidates: .services)
    static let files = Key<[String]>.arguments(
        "FILE", "Files of services; all that there are when omitted.")

    static let command = Command(
        "catalogue", "List, show and check ready services.",
        discussion: """
            A VM takes one with `service: ID`. Files of the folder `catalogue` beside the fleet \
            file add services, or replace those of the program.
            """,
        groups: [.init("", [list, show, lint])])

    private static let list = Command(
        "list", "List the services.",
        examples: [.init("martlet catalogue list", "What there is, and how far it was tried.")]
    ) { arguments in
        let printer = Printer(arguments)
        let services = try all(arguments, printer).map(\.service)
        if printer.isJSON {
            return printer.document(.array(services.map(\.row)))
        }
        var table = Table(["ID", "CATEGORY", "TESTED", "SUMMARY"])
        for service in services {
            let mark = service.deprecated == nil ? "" : " (deprecated)"
            table.add([
                .init(service.id), .init(service.category.rawValue),
                .init(service.tested.how.rawValue), .init(service.summary + mark),
            ])
        }
        printer.table(table)
    }

    private static let show = Command(
        "show", "Show a service: what it brings, and what it can be told.", parameters: [id],
        examples: [
            .init("martlet catalogue show gitea", "What `service: gitea` stands for."),
            .init("martlet catalogue show gitea --json", "The whole entry."),
        ]
    ) { arguments in
        let printer = Printer(arguments)
        let files = try all(arguments, printer)
        let name = arguments[id]
        guard let file = files.first(where: { $0.service.id == name }) else {
            let near = nearest(name, among: files.map(\.service.id))
            throw Failure(
                .notFound, "there is no service '\(name)'",
                hint: near.map { "Did you mean '\($0)'?" }
                    ?? "'martlet catalogue list' shows those that there are.")
        }
        if printer.isJSON {
            let members: [JSONValue.Member] = [
                .init("id", .string(file.service.id)), .init("file", .string(file.path)),
            ]
            return printer.document(.object(members + file.service.json.members))
        }
        printer.write(ServicesDocument.section(file.service, isPlain: true))
    }

    private static let lint = Command(
        "lint", "Check files of services; print every mistake, or nothing.", parameters: [files],
        examples: [
            .init("martlet catalogue lint catalogue/wiki.yaml", "A service of your own.")
        ]
    ) { arguments in
        let printer = Printer(arguments)
        let own = ServiceFolder(beside: FleetLocation(arguments[Options.file]).path)
        let known = try own.names + Catalogue.ids
        var documents: [(id: String, document: FleetFile.Document)] = []
        if arguments[files].isEmpty {
            documents = try ids(own).compactMap { id in
                try document(id, own).map { (id, $0) }
            }
        }
        for path in arguments[files] {
            guard Files.exists(path) else { throw Failure(.notFound, "there is no file \(path)") }
            let name = Files.name(path)
            let id = name.hasSuffix(".yaml") ? String(name.dropLast(5)) : name
            documents.append((id, .init(path: path, bytes: try Files.read(path, limit: 8 << 20))))
        }
        let named = documents.map(\.id)
        let found = documents.flatMap {
            ServiceFile.lint($0.id, $0.document, known: known + named).diagnostics
        }
        let mistakes = found.filter { $0.severity == .error }.count
        if mistakes > 0 {
            throw Failure(
                .invalidFleet, "\(Units.plural(mistakes, "mistake")) in services",
                diagnostics: found)
        }
        for warning in found { printer.note(visible(warning.description)) }
        if printer.isJSON {
            printer.document([
                "services": JSONValue(documents.count),
                "diagnostics": .array(found.map(\.json)),
            ])
        }
    }

    private static func ids(_ own: ServiceFolder) throws -> [String] {
        Set(try own.names + Catalogue.ids).sorted()
    }

    private static func document(
        _ id: String, _ own: ServiceFolder
    ) throws -> FleetFile.Document? {
        try own.document(id) ?? Catalogue.document(id)
    }

    /// Every service that can be read; of others it is said why not.
    private static func all(_ arguments: Arguments, _ printer: Printer) throws -> [ServiceFile] {
        let own = ServiceFolder(beside: FleetLocation(arguments[Options.file]).path)
        return try ids(own).compactMap { id in
            guard let document = try document(id, own) else { return nil }
            let (file, diagnostics) = ServiceFile.lint(id, document, known: [])
            if file == nil {
                for mistake in diagnostics { printer.note(visible(mistake.description)) }
            }
            return file
        }
    }
}

extension Service {
    fileprivate var row: JSONValue {
        [
            "id": .string(id), "name": .string(name), "category": .string(category.rawValue),
            "summary": .string(summary), "version": .text(version),
            "tested": .string(tested.how.rawValue), "deprecated": .text(deprecated),
            "successor": .text(successor),
        ]
    }
}

extension Candidates {
    /// The names of all services.
    static let services = Candidates.found { arguments in
        let own = ServiceFolder(beside: FleetLocation(arguments[Options.file]).path)
        return Set(((try? own.names) ?? []) + Catalogue.ids).sorted().map { Candidate($0) }
    }
}
