// SPDX-License-Identifier: Apache-2.0

/// A fleet file with everything it imports, read, merged and checked.
package struct FleetFile: Sendable {
    /// The fleet; nil when there is any error.
    package let fleet: Fleet?
    /// Every mistake and warning, in the order of files and lines.
    package let diagnostics: [Diagnostic]
    /// Every file that was read, the fleet file first; also services and overrides.
    package let files: [String]
    /// What each VM was merged from, the first layer being the weakest.
    let layers: [String: [Layer]]

    package var errors: [Diagnostic] { diagnostics.filter { $0.severity == .error } }

    /// A document that comes from elsewhere: its name for messages, and its bytes.
    package struct Document: Sendable {
        package let path: String
        package let bytes: [UInt8]

        package init(path: String, bytes: [UInt8]) {
            self.path = path
            self.bytes = bytes
        }
    }

    /// Where the reader gets what the fleet file names; the reader itself touches no file.
    package struct Sources {
        /// The bytes of the fleet file and of each import.
        package var read: (String) throws -> [UInt8]
        /// The file of a service; nil when there is none of that name.
        package var service: ((String) throws -> Document?)? = { Catalogue.document($0) }
        /// The names of the catalogue, for hints.
        package var services: [String] = Catalogue.ids
        /// Partial VMs that are merged last, by VM.
        package var overrides: [String: Document] = [:]
        /// What relative paths of values start at, usually the working directory.
        package var directory = ""

        package init(read: @escaping (String) throws -> [UInt8]) { self.read = read }
    }

    /// Reads, merges and checks a fleet file.
    package static func load(_ path: String, from sources: Sources) -> FleetFile {
        let diagnostics = Diagnostics(directory: sources.directory)
        let documents = Documents(path, sources.read, diagnostics)
        var reader = FleetReader(documents, sources, diagnostics)
        reader.readFleet()
        validate(reader.fleet, reader.places)
        return FleetFile(
            fleet: diagnostics.hasErrors ? nil : reader.fleet, diagnostics: diagnostics.sorted,
            files: diagnostics.files, layers: reader.layers)
    }

    /// Reads, merges and checks one text that imports nothing.
    package static func parse(_ text: String, path: String = "fleet.yaml") -> FleetFile {
        load(
            path,
            from: Sources { name in
                guard name == path else { throw NoSuchFile() }
                return Array(text.utf8)
            })
    }

    private struct NoSuchFile: Error, CustomStringConvertible {
        var description: String { "No such file or directory" }
    }
}

/// The fleet file and its imports, each section gathered over all of them.
struct Documents {
    /// One named entry of a section, such as one VM of `vms`.
    typealias Named = (name: String, mark: Mark, node: Node)

    private(set) var paths: [String] = []
    /// The root of the fleet file itself; nil when it is broken.
    private(set) var root: Node?
    private(set) var named: [String: [Named]] = [:]
    private(set) var items: [String: [Scope]] = [:]
    private(set) var single: [String: Node.Entry] = [:]
    private let read: (String) throws -> [UInt8]
    private let diagnostics: Diagnostics

    init(_ path: String, _ read: @escaping (String) throws -> [UInt8], _ diagnostics: Diagnostics) {
        self.read = read
        self.diagnostics = diagnostics
        root = load(path, importing: nil)
    }

    /// Where a mistake of the whole file is shown.
    var start: Mark { root?.mark ?? Mark() }

    private mutating func load(_ path: String, importing: Scope?) -> Node? {
        paths.append(path)
        let file = diagnostics.addFile(path)
        let bytes: [UInt8]
        do { bytes = try read(path) } catch {
            if let importing {
                importing.fail("cannot read '\(path)': \(error)")
            } else {
                diagnostics.add(Mark(file: file), "", "cannot read the file: \(error)")
            }
            return nil
        }
        guard let root = parseYAML(bytes, file: file, diagnostics) else { return nil }
        let scope = Scope(node: root, path: .root, diagnostics: diagnostics)
        if root.isNull {
            scope.fail("is empty; the smallest fleet is 'vms: { hello: {} }'")
            return nil
        }
        for entry in scope.mapping() ?? [] where entry.name == "imports" {
            for item in scope.at(entry).items() ?? [] {
                if let name = String.read(item) { importFile(name, from: path, item) }
            }
        }
        gather(scope)
        return root
    }

    private mutating func importFile(_ name: String, from path: String, _ scope: Scope) {
        let target = join(folder(path), name)
        guard !paths.contains(where: { join("", $0) == join("", target) }) else {
            return scope.fail("'\(target)' is imported already; each file can be read only once")
        }
        guard paths.count < 1000 else { return scope.fail("more than 1000 files are imported") }
        _ = load(target, importing: scope)
    }

    private mutating func gather(_ scope: Scope) {
        for entry in scope.mapping() ?? [] {
            guard let section = Section.all.first(where: { $0.name == entry.name }) else {
                diagnostics.add(
                    entry.mark, entry.name,
                    "unknown key '\(entry.name)'" + nearest(entry.name, in: Section.all.map(\.name))
                )
                continue
            }
            let inner = scope.at(entry)
            switch section.kind {
            case .imports: break
            case .named: for item in inner.mapping() ?? [] { add(item, to: entry.name, inner) }
            case .list: items[entry.name, default: []] += inner.items() ?? []
            case .value:
                if let first = single[entry.name] {
                    diagnostics.add(
                        entry.mark, entry.name, "is defined already, at \(place(first.mark))")
                } else {
                    single[entry.name] = entry
                }
            }
        }
    }

    private var seen: [String: Mark] = [:]

    private mutating func add(_ entry: Node.Entry, to section: String, _ scope: Scope) {
        let path = section + "." + entry.name
        if let first = seen.updateValue(entry.mark, forKey: path) {
            diagnostics.add(entry.mark, path, "is defined already, at \(place(first))")
            return
        }
        named[section, default: []].append((entry.name, entry.mark, entry.value))
    }

    private func place(_ mark: Mark) -> String {
        "\(diagnostics.files[Int(mark.file)]):\(mark.line)"
    }
}
