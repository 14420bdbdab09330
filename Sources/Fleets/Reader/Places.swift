// SPDX-License-Identifier: Apache-2.0

/// One step from a value to a part of it.
enum Step: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral {
    case key(String)
    case index(Int)

    init(stringLiteral value: String) { self = .key(value) }
    init(integerLiteral value: Int) { self = .index(value) }
}

/// Where the values of the fleet stand, so that checks of the whole can point at them.
struct Places {
    private let diagnostics: Diagnostics
    private var nodes: [String: Node] = [:]

    init(_ diagnostics: Diagnostics) { self.diagnostics = diagnostics }

    mutating func add(_ path: String, _ node: Node) { nodes[path] = node }

    func contains(_ path: String) -> Bool { nodes[path] != nil }

    /// Notes a mistake at a part of a value, or at the nearest thing to it that was written.
    func fail(
        _ base: String, _ steps: [Step], _ message: String,
        _ severity: Diagnostic.Severity = .error
    ) {
        var text = base
        for step in steps {
            switch step {
            case .key(let name): text += "." + name
            case .index(let index): text += "[\(index)]"
            }
        }
        diagnostics.add(mark(base, steps), text, message, severity)
    }

    func warn(_ base: String, _ steps: [Step], _ message: String) {
        fail(base, steps, message, .warning)
    }

    /// `fleet.yaml:12`, for messages that name the other side of a clash.
    func place(_ base: String, _ steps: [Step]) -> String {
        let mark = mark(base, steps)
        guard diagnostics.files.indices.contains(Int(mark.file)) else { return base }
        return "\(diagnostics.files[Int(mark.file)]):\(mark.line)"
    }

    private func mark(_ base: String, _ steps: [Step]) -> Mark {
        var node = nodes[base]
        for step in steps {
            let next: Node? =
                switch (step, node?.content) {
                case (.key(let name), _): node?[name]
                case (.index(let index), .sequence(let items)?):
                    items.indices.contains(index) ? items[index] : nil
                // `health` may be written without a list around its only check.
                case (.index(0), _): node
                default: nil
                }
            guard let next else { break }
            node = next
        }
        return node?.mark ?? Mark()
    }
}
