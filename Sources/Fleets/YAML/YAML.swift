// SPDX-License-Identifier: Apache-2.0
import CYaml
import Glibc

/// A document that is not the YAML we read: what is wrong and where.
private struct YAMLError: Error {
    let mark: Mark
    let message: String
}

/// Bounds that keep a hostile or broken file from taking time and memory.
enum YAMLLimit {
    static let bytes = 8 << 20
    static let scalarBytes = 1 << 20
    static let depth = 64
    /// Nodes of the document with every alias written out.
    static let nodes = 1_000_000
}

/// Reads one YAML 1.2 document into a tree; nil when it is broken, and then the mistake is noted.
func parseYAML(_ bytes: [UInt8], file: Int32, _ diagnostics: Diagnostics) -> Node? {
    do {
        return try parse(bytes, file: file, diagnostics)
    } catch {
        diagnostics.add(error.mark, "", error.message)
        return nil
    }
}

private func parse(
    _ bytes: [UInt8], file: Int32, _ diagnostics: Diagnostics
) throws(YAMLError) -> Node {
    let start = Mark(file: file, line: 1, column: 1)
    guard bytes.count <= YAMLLimit.bytes else {
        throw YAMLError(
            mark: start,
            message: "the file is larger than 8 MiB; is this the fleet file?")
    }
    let parser = UnsafeMutablePointer<yaml_parser_t>.allocate(capacity: 1)
    defer { parser.deallocate() }
    guard yaml_parser_initialize(parser) == 1 else {
        throw YAMLError(mark: start, message: "no memory to read the file")
    }
    defer { yaml_parser_delete(parser) }
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING)
    return try bytes.withUnsafeBufferPointer { buffer throws(YAMLError) in
        yaml_parser_set_input_string(parser, buffer.baseAddress, buffer.count)
        var builder = TreeBuilder(file: file, diagnostics: diagnostics)
        var event = yaml_event_t()
        repeat {
            guard yaml_parser_parse(parser, &event) == 1 else {
                throw syntaxError(parser.pointee, buffer, file: file)
            }
            defer { yaml_event_delete(&event) }
            try builder.take(event)
        } while !builder.isComplete
        return builder.root ?? Node(.scalar("", plain: true), start)
    }
}

/// What libyaml says, with the usual traps in plain words.
private func syntaxError(
    _ parser: yaml_parser_t, _ bytes: UnsafeBufferPointer<UInt8>, file: Int32
) -> YAMLError {
    if parser.error == YAML_READER_ERROR {
        // A reader error carries an offset in bytes instead of a mark.
        let before = bytes.prefix(parser.problem_offset)
        let line = before.count { $0 == UInt8(ascii: "\n") } + 1
        let column = before.count - (before.lastIndex(of: UInt8(ascii: "\n")) ?? -1)
        let code = parser.problem_value
        let message =
            code >= 0 && code < 0x20
            ? "the control character \(code) cannot stand in the file; is it a text file?"
            : "the file is not UTF-8 here; save it as UTF-8"
        return YAMLError(
            mark: Mark(file: file, line: Int32(line), column: Int32(column)), message: message)
    }
    let place = parser.problem_mark
    let mark = Mark(
        file: file, line: Int32(clamping: place.line + 1),
        column: Int32(clamping: place.column + 1))
    if place.index < bytes.count, bytes[Int(place.index)] == UInt8(ascii: "\t") {
        return YAMLError(mark: mark, message: "a tab cannot stand here; indent with spaces")
    }
    if place.index >= bytes.count {
        return YAMLError(
            mark: mark, message: "the file ends too early; is a quote, '}' or ']' missing?")
    }
    let problem = parser.problem.map { String(cString: $0) } ?? "cannot be read"
    guard let context = parser.context.map({ String(cString: $0) }) else {
        return YAMLError(mark: mark, message: problem)
    }
    let since = parser.context_mark.line + 1
    return YAMLError(mark: mark, message: "\(problem), \(context) that starts in line \(since)")
}

/// Builds the tree from events; anchors are shared nodes, counted as if they were written out.
private struct TreeBuilder {
    /// Changed in place only, through `frames[top]`: a copy would copy the items with each event.
    struct Frame {
        let mark: Mark
        let isMapping: Bool
        let anchor: String?
        var items: [Node] = []
        var entries: [Node.Entry] = []
        var key: (name: String, mark: Mark)?
        private var names: Set<String> = []
        var nodes = 1

        init(_ mark: Mark, isMapping: Bool, anchor: String?) {
            self.mark = mark
            self.isMapping = isMapping
            self.anchor = anchor
        }

        /// Notes a key; small mappings, nearly all of them, do without a set.
        mutating func isKnown(_ name: String) -> Bool {
            guard entries.count >= 16 else { return entries.contains { $0.name == name } }
            if names.isEmpty { names = Set(entries.map(\.name)) }
            return !names.insert(name).inserted
        }
    }

    let file: Int32
    let diagnostics: Diagnostics
    private(set) var root: Node?
    private(set) var isComplete = false
    private var frames: [Frame] = []
    private var anchors: [String: (node: Node, nodes: Int)] = [:]
    private var total = 0

    init(file: Int32, diagnostics: Diagnostics) {
        self.file = file
        self.diagnostics = diagnostics
    }

    mutating func take(_ event: yaml_event_t) throws(YAMLError) {
        let mark = Mark(
            file: file, line: Int32(clamping: event.start_mark.line + 1),
            column: Int32(clamping: event.start_mark.column + 1))
        switch event.type {
        case YAML_STREAM_END_EVENT: isComplete = true
        case YAML_DOCUMENT_START_EVENT:
            if root != nil {
                throw YAMLError(mark: mark, message: "a second document starts; a file holds one")
            }
        case YAML_SCALAR_EVENT: try scalar(event.data.scalar, mark)
        case YAML_ALIAS_EVENT: try alias(event.data.alias, mark)
        case YAML_SEQUENCE_START_EVENT:
            let start = event.data.sequence_start
            try refuseTag(start.tag, "seq", mark)
            try open(Frame(mark, isMapping: false, anchor: text(start.anchor)))
        case YAML_MAPPING_START_EVENT:
            let start = event.data.mapping_start
            try refuseTag(start.tag, "map", mark)
            try open(Frame(mark, isMapping: true, anchor: text(start.anchor)))
        case YAML_SEQUENCE_END_EVENT, YAML_MAPPING_END_EVENT: try close()
        default: break
        }
    }

    private func text(_ pointer: UnsafeMutablePointer<yaml_char_t>?) -> String? {
        pointer.map { String(cString: $0) }
    }

    private func refuseTag(
        _ tag: UnsafeMutablePointer<yaml_char_t>?, _ allowed: String, _ mark: Mark
    ) throws(YAMLError) {
        guard let tag = text(tag), tag != "tag:yaml.org,2002:" + allowed, tag != "!" else { return }
        throw YAMLError(mark: mark, message: "the tag '\(tag)' means nothing here; remove it")
    }

    private mutating func scalar(
        _ scalar: yaml_event_s.__Unnamed_union_data.__Unnamed_struct_scalar, _ mark: Mark
    ) throws(YAMLError) {
        try refuseTag(scalar.tag, "str", mark)
        guard scalar.length <= YAMLLimit.scalarBytes else {
            throw YAMLError(mark: mark, message: "a text is longer than 1 MiB; put it into a file")
        }
        let bytes = UnsafeBufferPointer(start: scalar.value, count: scalar.length)
        if memchr(scalar.value, 0, scalar.length) != nil {
            throw YAMLError(mark: mark, message: "a text holds a NUL byte, which no setting can")
        }
        let value = String(decoding: bytes, as: UTF8.self)
        let plain = scalar.style == YAML_PLAIN_SCALAR_STYLE && scalar.tag == nil
        let node = Node(.scalar(value, plain: plain), mark)
        if let anchor = text(scalar.anchor) { anchors[anchor] = (node, 1) }
        try add(node, nodes: 1, mark)
    }

    private mutating func alias(
        _ alias: yaml_event_s.__Unnamed_union_data.__Unnamed_struct_alias, _ mark: Mark
    ) throws(YAMLError) {
        let name = text(alias.anchor) ?? ""
        guard let (node, nodes) = anchors[name] else {
            throw YAMLError(
                mark: mark, message: "no anchor '&\(name)' stands before the alias '*\(name)'")
        }
        try add(node, nodes: nodes, mark)
    }

    private mutating func open(_ frame: Frame) throws(YAMLError) {
        guard frames.count < YAMLLimit.depth else {
            throw YAMLError(
                mark: frame.mark, message: "nested deeper than \(YAMLLimit.depth) levels")
        }
        if let parent = frames.last, parent.isMapping, parent.key == nil {
            throw YAMLError(
                mark: frame.mark,
                message: "a key must be a word, not a list or mapping; a text that starts with "
                    + "'{' or '[' needs quotes")
        }
        frames.append(frame)
    }

    private mutating func close() throws(YAMLError) {
        guard let frame = frames.popLast() else { return }
        let node = Node(
            frame.isMapping ? .mapping(frame.entries) : .sequence(frame.items), frame.mark)
        // An anchor is known from its end on: an alias inside its own node cannot make a loop.
        if let anchor = frame.anchor { anchors[anchor] = (node, frame.nodes) }
        total -= frame.nodes - 1
        try add(node, nodes: frame.nodes, frame.mark)
    }

    private mutating func add(_ node: Node, nodes: Int, _ mark: Mark) throws(YAMLError) {
        total += nodes
        guard total <= YAMLLimit.nodes else {
            throw YAMLError(
                mark: mark,
                message: "the file with its aliases written out has more than "
                    + "\(YAMLLimit.nodes) values")
        }
        guard let top = frames.indices.last else {
            root = node
            return
        }
        frames[top].nodes += nodes
        guard frames[top].isMapping else {
            frames[top].items.append(node)
            return
        }
        guard let key = frames[top].key else {
            frames[top].key = try name(node)
            return
        }
        frames[top].key = nil
        guard !frames[top].isKnown(key.name) else {
            let first = frames[top].entries.first { $0.name == key.name }?.mark.line ?? 0
            diagnostics.add(
                key.mark, "", "the key '\(key.name)' is there already, in line \(first)")
            return
        }
        frames[top].entries.append(Node.Entry(name: key.name, mark: key.mark, value: node))
    }

    private func name(_ node: Node) throws(YAMLError) -> (String, Mark) {
        guard case .scalar(let name, let plain) = node.content else {
            throw YAMLError(mark: node.mark, message: "a key must be a word")
        }
        if plain, name == "<<" {
            throw YAMLError(
                mark: node.mark,
                message: "merge keys ('<<') are not supported; put what VMs have in common "
                    + "into 'profiles' or 'defaults'")
        }
        return (name, node.mark)
    }
}
