// SPDX-License-Identifier: Apache-2.0

/// A text of a service with places for what only its VM knows.
///
/// `${with.NAME}` is a parameter, `${secret.NAME}` the file of a secret, `${vm.name}` the VM's name and
/// `${vm.host}` the first host name that it is published under. Any other `${NAME}` is systemd's, which puts a variable of the environment there.
struct Template: Equatable {
    enum Piece: Equatable {
        case text(String)
        case parameter(String)
        case secret(String)
        case vmName
        case vmHost
        /// `${with…}` and the like that is none of them.
        case unknown(String)
        case variable(String)
    }

    let pieces: [Piece]

    init(_ text: String) {
        var pieces: [Piece] = []
        var rest = text[...]
        while let start = rest.firstRange(of: "${"),
            let end = rest[start.upperBound...].firstIndex(of: "}")
        {
            if start.lowerBound > rest.startIndex {
                pieces.append(.text(String(rest[..<start.lowerBound])))
            }
            pieces.append(Template.piece(String(rest[start.upperBound..<end])))
            rest = rest[rest.index(after: end)...]
        }
        if !rest.isEmpty { pieces.append(.text(String(rest))) }
        self.pieces = pieces
    }

    private static func piece(_ name: String) -> Piece {
        if name == "vm.name" { return .vmName }
        if name == "vm.host" { return .vmHost }
        let parts = name.split(separator: ".", maxSplits: 1).map(String.init)
        if parts.count == 2, parts[0] == "with" { return .parameter(parts[1]) }
        if parts.count == 2, parts[0] == "secret" { return .secret(parts[1]) }
        if ["with", "secret", "vm"].contains(parts.first) || name.isEmpty { return .unknown(name) }
        return parts.count == 1 ? .variable(name) : .unknown(name)
    }

    var parameters: [String] {
        pieces.compactMap { if case .parameter(let name) = $0 { name } else { nil } }
    }
    var secrets: [String] {
        pieces.compactMap { if case .secret(let name) = $0 { name } else { nil } }
    }
    var unknown: [String] {
        pieces.compactMap { if case .unknown(let name) = $0 { name } else { nil } }
    }
    var variables: [String] {
        pieces.compactMap { if case .variable(let name) = $0 { name } else { nil } }
    }
    /// Whether a VM has to say something, so that it cannot stand in the image.
    var isOfVM: Bool {
        !parameters.isEmpty || pieces.contains(.vmName) || pieces.contains(.vmHost)
    }

    /// The text for a VM; nil when something in it has no value.
    ///
    /// What only a unit knows stays as it is, but for an OCI image: its unit is always the same.
    func filled(_ values: ServiceValues, isOCI: Bool = false) -> String? {
        var text = ""
        for piece in pieces {
            switch piece {
            case .text(let part): text += part
            case .parameter(let name):
                guard let value = values.parameters[name] else { return nil }
                text += value.text
            case .vmName: text += values.vm
            case .vmHost:
                guard let host = values.host else { return nil }
                text += host
            case .secret(let name) where isOCI:
                guard values.secrets.contains(name) else { return nil }
                text += "\(OCIService.credentials)/\(ServiceCredential.prefix)\(name)"
            case .secret, .unknown, .variable: text += Template.text(piece)
            }
        }
        return text
    }
}

/// What a VM says of its service.
struct ServiceValues {
    struct Value {
        let text: String
        /// Where it was given; nil for a default.
        let mark: Mark?
    }

    let vm: String
    /// Nil for a VM that is not published.
    var host: String?
    var parameters: [String: Value] = [:]
    /// Those that the VM is given.
    var secrets: Set<String> = []
}

extension Node {
    /// The tree of a partial VM with its placeholders filled in.
    ///
    /// What uses a parameter that has no value is left out: the item of a list that it stands in,
    /// else its key.
    func filled(_ values: ServiceValues) -> Node? {
        switch content {
        case .scalar(let text, let plain):
            guard text.contains("${") else { return self }
            let template = Template(text)
            guard let filled = template.filled(values) else { return nil }
            // A path that the fleet file gives starts at the fleet file.
            let given = template.parameters.compactMap { values.parameters[$0]?.mark }.first
            return Node(.scalar(filled, plain: plain), given ?? mark)
        case .sequence(let items):
            let all = items.filter { $0.isFillable(values) }.compactMap { $0.filled(values) }
            return Node(.sequence(all), mark)
        case .mapping(let entries):
            let all = entries.compactMap { entry in
                entry.value.filled(values).map {
                    Entry(name: entry.name, mark: entry.mark, value: $0)
                }
            }
            return Node(.mapping(all), mark)
        }
    }

    /// Whether every placeholder below, short of those in lists, has a value.
    private func isFillable(_ values: ServiceValues) -> Bool {
        switch content {
        case .scalar(let text, _): !text.contains("${") || Template(text).filled(values) != nil
        case .sequence: true
        case .mapping(let entries): entries.allSatisfy { $0.value.isFillable(values) }
        }
    }

    /// Every text of the tree, with where it stands.
    func texts(_ steps: [Step] = []) -> [(steps: [Step], text: String)] {
        switch content {
        case .scalar(let text, _): [(steps, text)]
        case .sequence(let items):
            items.indices.flatMap { items[$0].texts(steps + [.index($0)]) }
        case .mapping(let entries):
            entries.flatMap { $0.value.texts(steps + [.key($0.name)]) }
        }
    }
}
