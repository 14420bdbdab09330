// SPDX-License-Identifier: Apache-2.0

/// The ready services that the binary carries, one YAML file of the folder `catalogue/` each.
package enum Catalogue {
    /// What messages call the folder of the files that are part of the program.
    package static let folder = "martlet/catalogue"

    package static var ids: [String] { CatalogueFiles.all.map(\.id) }

    /// The file of a service; nil when there is none of that name.
    package static func document(_ id: String) -> FleetFile.Document? {
        guard let file = CatalogueFiles.all.first(where: { $0.id == id }) else { return nil }
        let bytes = file.text.withUTF8Buffer { Array($0) }
        return FleetFile.Document(path: "\(folder)/\(id).yaml", bytes: bytes)
    }
}

/// One file of the catalogue that has been read and checked.
package struct ServiceFile: Sendable {
    package let service: Service
    package let path: String
    let node: Node

    /// Reads a file; nil when it has mistakes.
    static func read(
        _ id: String, _ document: FleetFile.Document, _ diagnostics: Diagnostics
    ) -> ServiceFile? {
        let number = diagnostics.addFile(document.path)
        guard let node = parseYAML(document.bytes, file: number, diagnostics) else { return nil }
        guard let file = read(id, node, document.path, diagnostics) else { return nil }
        return ServiceChecks(file, diagnostics).check() ? file : nil
    }

    private static func read(
        _ id: String, _ node: Node, _ path: String, _ diagnostics: Diagnostics
    ) -> ServiceFile? {
        let scope = Scope(node: node, path: .root, diagnostics: diagnostics)
        if !isName(id) {
            scope.fail("the file's name is the service's: " + nameRule(id))
            return nil
        }
        guard var service = Service.read(scope) else { return nil }
        service.id = id
        return ServiceFile(service: service, path: path, node: node)
    }

    /// Reads a file and looks for all that an entry of the catalogue must be.
    ///
    /// `known` are the names of all services, for `successor`.
    package static func lint(
        _ id: String, _ document: FleetFile.Document, known: [String]
    ) -> (file: ServiceFile?, diagnostics: [Diagnostic]) {
        let diagnostics = Diagnostics()
        let number = diagnostics.addFile(document.path)
        guard let node = parseYAML(document.bytes, file: number, diagnostics),
            let file = read(id, node, document.path, diagnostics)
        else { return (nil, diagnostics.sorted) }
        let checks = ServiceChecks(file, diagnostics)
        _ = checks.check()
        checks.lint(known: known)
        return (file, diagnostics.sorted)
    }
}
