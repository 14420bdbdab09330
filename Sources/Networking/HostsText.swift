// SPDX-License-Identifier: Apache-2.0
import Fleets

/// The text of a hosts file, taken apart around our block.
///
/// It works on bytes: the file may hold what is no UTF-8, and a `String` would take a carriage
/// return and a newline for one character.
struct HostsText {
    private struct Section {
        let owner: String
        var lines: [UInt8]
    }

    /// Up to and with the line that begins the block; the whole file when there is none.
    private var before: [UInt8] = []
    /// The block's lines before its first section.
    private var head: [UInt8] = []
    private var sections: [Section] = []
    /// From the line that ends the block.
    private var after: [UInt8] = []
    private(set) var hasBlock = false

    private static let begin = "# BEGIN martlet"
    private static let end = "# END martlet"
    private static let owner = "# owner "
    private static let note =
        "# martlet maintains this block; what is changed here by hand is lost.\n"

    /// Takes a file apart; markers that do not fit together are an error with their line.
    init(_ bytes: [UInt8], path: String) throws(HostsFileError) {
        var begun: Int?
        var number = 0
        for line in Self.split(bytes) {
            number += 1
            switch Self.trimmed(line) {
            case Self.begin:
                if let begun { throw Self.endless(path, begun) }
                if hasBlock {
                    throw .damaged(path: path, line: number, reason: "a second block begins here")
                }
                begun = number
                hasBlock = true
                before += line
            case Self.end:
                guard begun != nil else {
                    throw .damaged(
                        path: path, line: number, reason: "a block ends here that does not begin")
                }
                begun = nil
                after += line
            case let text:
                if begun == nil {
                    if hasBlock { after += line } else { before += line }
                } else {
                    takeInside(line, text)
                }
            }
        }
        if let begun { throw Self.endless(path, begun) }
    }

    private mutating func takeInside(_ line: ArraySlice<UInt8>, _ text: String) {
        if text.hasPrefix(Self.owner) {
            sections.append(Section(owner: String(text.dropFirst(Self.owner.count)), lines: []))
        } else if sections.isEmpty {
            head += line
        } else {
            sections[sections.count - 1].lines += line
        }
    }

    private static func endless(_ path: String, _ line: Int) -> HostsFileError {
        .damaged(
            path: path, line: line,
            reason: "the block that begins here does not end ('\(end)' is missing)")
    }

    /// The file put together again: outside of the block, exactly what was read.
    var bytes: [UInt8] {
        var all = before + head
        for section in sections {
            all += Array("\(Self.owner)\(section.owner)\n".utf8) + section.lines
        }
        return all + after
    }

    /// Adds the empty block at the end, on lines of its own.
    mutating func addBlock() {
        guard !hasBlock else { return }
        hasBlock = true
        if let last = before.last, last != 10 { before.append(10) }
        before += Array("\(Self.begin)\n".utf8)
        head = Array(Self.note.utf8)
        after = Array("\(Self.end)\n".utf8)
    }

    /// Makes these lines the owner's one section, in its old place; none take it away.
    mutating func setSection(_ owner: String, _ lines: [UInt8]) {
        guard hasBlock else { return }
        let place = sections.firstIndex { $0.owner == owner } ?? sections.count
        sections.removeAll { $0.owner == owner }
        if !lines.isEmpty { sections.insert(Section(owner: owner, lines: lines), at: place) }
    }

    /// The entries as lines of a hosts file.
    static func lines(_ entries: [HostsFile.Entry]) throws(HostsFileError) -> [UInt8] {
        var lines = ""
        for (address, names) in entries {
            // A name with a newline would be an entry of its own choosing.
            guard IPAddress(address) != nil else {
                throw .invalid("'\(address)' is no address for a hosts file")
            }
            guard !names.isEmpty else { throw .invalid("\(address) has no name") }
            for name in names where !isName(name) {
                throw .invalid("'\(name)' is no name for a hosts file")
            }
            lines += "\(address)\t\(names.joined(separator: " "))\n"
        }
        return Array(lines.utf8)
    }

    static func checkOwner(_ owner: String) throws(HostsFileError) {
        guard !owner.isEmpty, owner.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw .invalid("'\(owner)' cannot own a part of a hosts file")
        }
    }

    private static func isName(_ name: String) -> Bool {
        (1...253).contains(name.utf8.count)
            && name.utf8.allSatisfy {
                switch $0 {
                case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
                default: false
                }
            }
    }

    /// The lines with their newlines; the last one may have none.
    private static func split(_ bytes: [UInt8]) -> [ArraySlice<UInt8>] {
        var lines: [ArraySlice<UInt8>] = []
        var start = 0
        while start < bytes.count {
            let end = bytes[start...].firstIndex(of: 10).map { $0 + 1 } ?? bytes.count
            lines.append(bytes[start..<end])
            start = end
        }
        return lines
    }

    private static func trimmed(_ line: ArraySlice<UInt8>) -> String {
        var text = line
        while let first = text.first, isBlank(first) { text.removeFirst() }
        while let last = text.last, isBlank(last) { text.removeLast() }
        return String(decoding: text, as: UTF8.self)
    }

    private static func isBlank(_ byte: UInt8) -> Bool { byte == 32 || (9...13).contains(byte) }
}
