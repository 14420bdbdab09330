// SPDX-License-Identifier: Apache-2.0

/// A word of a shell script, as it was written.
struct ShellWord: Sendable, Equatable {
    var text = ""
    /// Whether the script itself would still make something of it: `$(…)`, `$NAME`, `~`, `*`.
    ///
    /// The text holds that part as it was written: nothing is ever run or looked up.
    var isComputed = false
}

/// The simple commands of a shell script, in their order, as lists of words.
///
/// This is what a runner needs and no shell: quotes, continued lines, comments and redirections are
/// understood; what a shell would compute is marked. Control flow is read as if all of it ran.
struct ShellScript {
    private(set) var commands: [[ShellWord]] = []

    private let bytes: [UInt8]
    private var position = 0
    private var words: [ShellWord] = []
    private var word: ShellWord?
    /// Whether a redirection takes the next word.
    private var isRedirected = false

    private static let limit = 2 << 20

    init(_ bytes: [UInt8]) throws(ImportError) {
        guard bytes.count <= Self.limit else {
            throw .malformed("it is larger than 2 MiB; is this a runner?")
        }
        guard !bytes.contains(0) else { throw .malformed("it is no text; is this a runner?") }
        self.bytes = bytes
        while position < bytes.count { try step() }
        endCommand()
    }

    private var next: UInt8? { position + 1 < bytes.count ? bytes[position + 1] : nil }

    private mutating func step() throws(ImportError) {
        let byte = bytes[position]
        switch byte {
        case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"): endWord()
        case UInt8(ascii: "\n"), UInt8(ascii: ";"), UInt8(ascii: "&"), UInt8(ascii: "|"),
            UInt8(ascii: "("), UInt8(ascii: ")"):
            endCommand()
        case UInt8(ascii: "#") where word == nil:
            while position < bytes.count, bytes[position] != 0x0A { position += 1 }
            return
        case UInt8(ascii: "\\"):
            // A backslash takes the end of the line away, and the meaning of anything else.
            if next != 0x0A { append(next ?? byte) }
            position += 1
        case UInt8(ascii: "'"): try singleQuoted()
        case UInt8(ascii: "\""): try doubleQuoted()
        case UInt8(ascii: "$"), UInt8(ascii: "`"): try computed()
        case UInt8(ascii: "<"), UInt8(ascii: ">"): try redirection()
        case UInt8(ascii: "*"), UInt8(ascii: "?"):
            append(byte)
            word?.isComputed = true
        default:
            let isHome = byte == UInt8(ascii: "~") && word == nil
            append(byte)
            if isHome { word?.isComputed = true }
        }
        position += 1
    }

    private mutating func append(_ byte: UInt8) { append([byte]) }

    private mutating func append(_ part: some Collection<UInt8>) {
        pendingBytes += part
        if word == nil { word = ShellWord() }
    }

    /// The bytes of the word in the making: a character may come in several.
    private var pendingBytes: [UInt8] = []

    private mutating func endWord() {
        guard var done = word else { return }
        done.text = String(decoding: pendingBytes, as: UTF8.self)
        pendingBytes = []
        word = nil
        if !isRedirected { words.append(done) }
        isRedirected = false
    }

    private mutating func endCommand() {
        endWord()
        isRedirected = false
        if !words.isEmpty { commands.append(words) }
        words = []
    }

    private mutating func singleQuoted() throws(ImportError) {
        let start = position + 1
        guard let end = bytes[start...].firstIndex(of: UInt8(ascii: "'")) else {
            throw unfinished("a quote")
        }
        append(bytes[start..<end])
        position = end
    }

    private mutating func doubleQuoted() throws(ImportError) {
        append([])
        position += 1
        while position < bytes.count, bytes[position] != UInt8(ascii: "\"") {
            let byte = bytes[position]
            if byte == UInt8(ascii: "\\"), let next {
                let isSpecial = "\"\\$`".utf8.contains(next)
                if isSpecial { append(next) } else if next != 0x0A { append([byte, next]) }
                position += 1
            } else if byte == UInt8(ascii: "$") || byte == UInt8(ascii: "`") {
                try computed()
            } else {
                append(byte)
            }
            position += 1
        }
        if position >= bytes.count { throw unfinished("a quote") }
    }

    /// Takes `$(…)`, `${…}`, `$NAME` or back quotes as they stand, up to their last byte.
    private mutating func computed() throws(ImportError) {
        let start = position
        if bytes[position] == UInt8(ascii: "`") {
            position += 1
            while position < bytes.count, bytes[position] != UInt8(ascii: "`") {
                position += bytes[position] == UInt8(ascii: "\\") ? 2 : 1
            }
        } else if next == UInt8(ascii: "(") || next == UInt8(ascii: "{") {
            position += 1
            try skipBracket()
        } else if next == UInt8(ascii: "'") {
            // $'…' has escapes of its own, which no runner uses.
            position += 2
            while position < bytes.count, bytes[position] != UInt8(ascii: "'") {
                position += bytes[position] == UInt8(ascii: "\\") ? 2 : 1
            }
        } else {
            while let byte = next, isNameByte(byte) { position += 1 }
            // A lone dollar is a dollar.
            if position == start { return append(bytes[start]) }
        }
        guard position < bytes.count else { throw unfinished("a substitution") }
        append(bytes[start...position])
        word?.isComputed = true
    }

    private func isNameByte(_ byte: UInt8) -> Bool {
        (0x61...0x7A).contains(byte | 0x20) || (0x30...0x39).contains(byte)
            || "_@#?!*".utf8.contains(byte)
    }

    /// Stands on the bracket that opens, and ends on the one that closes; quotes hide brackets.
    private mutating func skipBracket() throws(ImportError) {
        var depth = 0
        while position < bytes.count {
            switch bytes[position] {
            case UInt8(ascii: "("), UInt8(ascii: "{"): depth += 1
            case UInt8(ascii: ")"), UInt8(ascii: "}"):
                depth -= 1
                if depth == 0 { return }
            case UInt8(ascii: "\\"): position += 1
            case UInt8(ascii: "'"), UInt8(ascii: "\""):
                let quote = bytes[position]
                position += 1
                while position < bytes.count, bytes[position] != quote {
                    let isEscape =
                        quote == UInt8(ascii: "\"") && bytes[position] == UInt8(ascii: "\\")
                    position += isEscape ? 2 : 1
                }
            default: break
            }
            position += 1
        }
        throw unfinished("a substitution")
    }

    private mutating func redirection() throws(ImportError) {
        // A number right before belongs to it: `exec 3<>FILE`.
        if word != nil, Int(String(decoding: pendingBytes, as: UTF8.self)) != nil {
            word = nil
            pendingBytes = []
        } else {
            endWord()
        }
        let isInput = bytes[position] == UInt8(ascii: "<")
        if isInput, next == UInt8(ascii: "<") {
            position += 1
            if next != UInt8(ascii: "<") { return try hereDocument() }
            position += 1
        } else if let byte = next, "<>&|".utf8.contains(byte) {
            position += 1
        }
        isRedirected = true
    }

    /// Skips what `<<WORD` brings: it is data, and never a command.
    private mutating func hereDocument() throws(ImportError) {
        var start = position + 1
        if start < bytes.count, bytes[start] == UInt8(ascii: "-") { start += 1 }
        let lineEnd = bytes[start...].firstIndex(of: 0x0A) ?? bytes.count
        let isEnd = { (byte: UInt8) in " ;|&<>".utf8.contains(byte) }
        let marker = bytes[start..<lineEnd].drop { $0 == 0x20 }.prefix { !isEnd($0) }
            .filter { !"'\"\\".utf8.contains($0) }
        var line = min(lineEnd + 1, bytes.count)
        while line < bytes.count {
            let end = bytes[line...].firstIndex(of: 0x0A) ?? bytes.count
            let text = bytes[line..<end].drop { $0 == 0x09 }
            if text.elementsEqual(marker) {
                position = end - 1
                return endCommand()
            }
            line = end + 1
        }
        throw unfinished("a here-document")
    }

    private func unfinished(_ what: String) -> ImportError {
        .malformed("\(what) in the script does not end; is this a runner?")
    }
}
