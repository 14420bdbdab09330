// SPDX-License-Identifier: Apache-2.0
import CExpat

/// Bounds that keep a hostile or broken document from taking time and memory.
enum XMLLimit {
    static let bytes = 4 << 20
    static let depth = 64
    static let elements = 50_000
}

/// Reads one XML document into a tree.
///
/// A document type is refused, and with it every entity but the five of XML itself: nothing outside
/// the document is opened, and nothing in it can grow when it is read.
func parseXML(_ bytes: [UInt8]) throws(ImportError) -> Element {
    guard let expat = ml_expat()?.pointee else {
        throw .missingLibrary("libexpat", package: "libexpat1")
    }
    guard bytes.count <= XMLLimit.bytes else {
        throw .malformed("it is larger than \(XMLLimit.bytes >> 20) MiB; is this a domain?")
    }
    guard let parser = expat.XML_ParserCreate(nil) else {
        throw .malformed("there is no memory to read it")
    }
    defer { expat.XML_ParserFree(parser) }
    let builder = TreeBuilder(expat, parser)
    expat.XML_SetUserData(parser, Unmanaged.passUnretained(builder).toOpaque())
    expat.XML_SetElementHandler(
        parser,
        { data, name, attributes in
            TreeBuilder.from(data)?.open(text(name), attributes)
        },
        { data, _ in TreeBuilder.from(data)?.close() })
    expat.XML_SetCharacterDataHandler(parser) { data, characters, count in
        guard let characters else { return }
        TreeBuilder.from(data)?.add(
            UnsafeRawBufferPointer(start: characters, count: max(0, Int(count))))
    }
    expat.XML_SetStartDoctypeDeclHandler(parser) { data, _, _, _, _ in
        TreeBuilder.from(data)?.stop(
            "it has a document type, which libvirt never writes and which is not read")
    }
    // Of a document this small the whole is given at once: no token is looked at twice.
    let status = bytes.withUnsafeBytes {
        expat.XML_Parse(
            parser, $0.baseAddress?.assumingMemoryBound(to: CChar.self), Int32($0.count), 1)
    }
    let place =
        "line \(expat.XML_GetCurrentLineNumber(parser)), "
        + "column \(expat.XML_GetCurrentColumnNumber(parser) + 1)"
    if let problem = builder.problem { throw .malformed("\(place): \(problem)") }
    guard status.rawValue == 1, let root = builder.root else {
        let reason = expat.XML_ErrorString(expat.XML_GetErrorCode(parser))
        throw .malformed("\(place): it is no XML: \(text(reason))")
    }
    return root
}

/// Expat hands out UTF-8, whatever the document was written in.
private func text(_ characters: UnsafePointer<CChar>?) -> String {
    characters.map { String(cString: $0) } ?? ""
}

/// Takes what the parser finds, until a bound is passed.
private final class TreeBuilder {
    private let expat: ml_expat
    private let parser: OpaquePointer
    private var open: [(element: Element, text: [UInt8])] = []
    private var count = 0
    private(set) var root: Element?
    private(set) var problem: String?

    init(_ expat: ml_expat, _ parser: OpaquePointer) {
        self.expat = expat
        self.parser = parser
    }

    static func from(_ data: UnsafeMutableRawPointer?) -> TreeBuilder? {
        data.map { Unmanaged<TreeBuilder>.fromOpaque($0).takeUnretainedValue() }
    }

    /// Ends the parsing; expat may still call once or twice after it.
    func stop(_ reason: String) {
        guard problem == nil else { return }
        problem = reason
        _ = expat.XML_StopParser(parser, 0)
    }

    func open(
        _ name: String, _ attributes: UnsafeMutablePointer<UnsafePointer<CChar>?>?
    ) {
        guard problem == nil else { return }
        count += 1
        if count > XMLLimit.elements { return stop("it has too many elements") }
        if open.count >= XMLLimit.depth { return stop("its elements are nested too deeply") }
        var found: [String: String] = [:]
        var index = 0
        while let attributes, let key = attributes[index], let value = attributes[index + 1] {
            found[String(cString: key)] = String(cString: value)
            index += 2
        }
        open.append((Element(name: name, attributes: found), []))
    }

    func add(_ bytes: UnsafeRawBufferPointer) {
        guard problem == nil, !open.isEmpty else { return }
        open[open.count - 1].text += bytes
    }

    func close() {
        guard problem == nil, var last = open.popLast() else { return }
        let isSpace = { (byte: UInt8) in byte == 0x20 || (0x09...0x0D).contains(byte) }
        let trimmed = last.text.drop(while: isSpace).reversed().drop(while: isSpace).reversed()
        last.element.text = String(decoding: Array(trimmed), as: UTF8.self)
        if open.isEmpty {
            root = last.element
        } else {
            open[open.count - 1].element.children.append(last.element)
        }
    }
}
