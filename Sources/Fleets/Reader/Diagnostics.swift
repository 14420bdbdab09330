// SPDX-License-Identifier: Apache-2.0

/// One mistake in the fleet file: what is wrong, where, and what to do.
package struct Diagnostic: Sendable, Equatable, CustomStringConvertible {
    package enum Severity: String, Sendable { case error, warning }

    package let file: String
    package let line: Int
    package let column: Int
    /// The dotted path of the value, such as `vms.web.memory`; empty for the document.
    package let path: String
    package let message: String
    package let severity: Severity

    /// `fleet.yaml:12:13: vms.web.memory: expected a size such as 512MiB, found 'lots'`.
    package var description: String {
        let place = "\(file):\(line):\(column): "
        let level = severity == .warning ? "warning: " : ""
        return place + level + (path.isEmpty ? "" : path + ": ") + message
    }

    /// The form of cli.md: `file`, `line`, `column`, `path`, `message`, and `severity`.
    package var json: JSONValue {
        [
            "file": .string(file), "line": JSONValue(line), "column": JSONValue(column),
            "path": .string(path), "message": .string(message),
            "severity": .string(severity.rawValue),
        ]
    }
}

/// Collects the mistakes of one run.
final class Diagnostics {
    private struct Key: Hashable {
        let mark: Mark
        let message: String
    }

    /// As the caller names them, for messages.
    private(set) var files: [String] = []
    /// What relative file names start at.
    let directory: String
    private var all: [(mark: Mark, diagnostic: Diagnostic)] = []
    private var seen: Set<Key> = []
    private(set) var errorCount = 0
    var hasErrors: Bool { errorCount > 0 }

    /// A file with more mistakes than this is not the file that was meant.
    static let limit = 1000

    init(directory: String = "") { self.directory = directory }

    func addFile(_ path: String) -> Int32 {
        files.append(path)
        return Int32(files.count - 1)
    }

    /// A path as written in a file, made absolute when `directory` is; `~/` stays as it is.
    func resolve(_ path: String, from file: Int32) -> String {
        guard files.indices.contains(Int(file)), !path.hasPrefix("/"), !path.hasPrefix("~/") else {
            return path
        }
        return join(directory, join(folder(files[Int(file)]), path))
    }

    /// Notes a mistake, once per place: defaults and profiles are read again under every VM.
    func add(
        _ mark: Mark, _ path: String, _ message: String, _ severity: Diagnostic.Severity = .error
    ) {
        if severity == .error { errorCount += 1 }
        guard all.count < Self.limit, seen.insert(Key(mark: mark, message: message)).inserted
        else { return }
        let file = files.indices.contains(Int(mark.file)) ? files[Int(mark.file)] : ""
        all.append(
            (
                mark,
                Diagnostic(
                    file: file, line: Int(mark.line), column: Int(mark.column), path: path,
                    message: message, severity: severity)
            ))
    }

    /// All of them in the order of files, lines and columns.
    var sorted: [Diagnostic] {
        all.enumerated().sorted {
            let (a, b) = ($0.element.mark, $1.element.mark)
            return (a.file, a.line, a.column, Int32($0.offset))
                < (b.file, b.line, b.column, Int32($1.offset))
        }.map(\.element.diagnostic)
    }
}

/// The folder part of a path; empty for a bare name.
func folder(_ path: String) -> String {
    path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? ""
}

/// A path seen from a folder, with `.` and `..` taken out.
func join(_ folder: String, _ path: String) -> String {
    let full = path.hasPrefix("/") || folder.isEmpty ? path : folder + "/" + path
    var parts: [Substring] = []
    for part in full.split(separator: "/") where part != "." {
        if part == "..", let last = parts.last, last != ".." {
            parts.removeLast()
        } else if part != ".." || !full.hasPrefix("/") {
            parts.append(part)
        }
    }
    return (full.hasPrefix("/") ? "/" : "") + parts.joined(separator: "/")
}
