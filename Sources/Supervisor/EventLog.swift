// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// The events of one VM in its logs folder, one JSON object a line: they are there after its end.
package struct EventLog: Sendable {
    /// A VM that restarts all day writes a few hundred bytes each time.
    static let limit = 256 << 10
    private let vm: String
    private let path: String
    /// Bytes of the current file that were read; nil before the first look.
    private var offset: Int?

    /// Takes the path of an `events.jsonl`; nothing is opened yet.
    package init(vm: String, path: String) {
        self.vm = vm
        self.path = path
    }

    /// What has come since the last call; at first everything that is kept.
    ///
    /// The VM's own user wrote it: what is no event is skipped, and the name in it means nothing.
    package mutating func next() -> [VMEvent] {
        let size = (try? Files.status(path).size).map { Int($0) } ?? 0
        if size == offset { return [] }
        var lines: [ArraySlice<UInt8>] = []
        if offset == nil || size < offset ?? 0 {
            // The file was begun anew: the rest of the one before comes first.
            let before = whole(path + ".1")
            lines = before.dropFirst(offset ?? 0).split(separator: 10)
            offset = 0
        }
        let now = whole(path)
        lines += now.dropFirst(offset ?? 0).split(separator: 10)
        offset = now.count
        return lines.compactMap { line in
            guard let value = try? JSONValue(parsing: Array(line)) else { return nil }
            var event = VMEvent(wire: value)
            event?.vm = vm
            return event
        }
    }

    /// The whole lines of a file; the last one may still be on its way.
    private func whole(_ path: String) -> [UInt8] {
        let bytes = (try? Files.readUntrusted(path, limit: 2 * EventLog.limit)) ?? []
        return Array(bytes[..<(bytes.lastIndex(of: 10).map { $0 + 1 } ?? 0)])
    }
}
