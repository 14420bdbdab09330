// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// QEMU's control protocol (QMP): JSON lines.
///
/// Encoding and decoding only; the supervisor's loop carries them.
package enum QMP {
    package struct Command: Sendable, Equatable {
        package let name: String
        package let arguments: JSONValue

        package init(_ name: String, _ arguments: JSONValue = [:]) {
            self.name = name
            self.arguments = arguments
        }

        /// Leaves the negotiation; nothing else is accepted before.
        package static let capabilities = Command("qmp_capabilities")
        /// Presses the power button.
        package static let powerDown = Command("system_powerdown")
        package static let quit = Command("quit")
        package static let stop = Command("stop")
        package static let resume = Command("cont")
        package static let status = Command("query-status")
        package static let block = Command("query-block")
        /// Grows a disk that is in use; `node` is as in the command line (`disk-data`).
        package static func resizeBlock(node: String, bytes: Int64) -> Command {
            Command("block_resize", ["node-name": .string(node), "size": .integer(bytes)])
        }

        /// One line with its end; the reply carries the same `id`.
        package func encoded(id: Int64) -> [UInt8] {
            var request: [JSONValue.Member] = [
                .init("execute", .string(name)), .init("id", .integer(id)),
            ]
            if arguments != [:] { request.append(.init("arguments", arguments)) }
            return line(.object(request))
        }
    }

    package enum Message: Sendable, Equatable {
        case greeting
        case value(id: Int64?, JSONValue)
        /// QEMU's own words.
        case failed(id: Int64?, String)
        case event(name: String, data: JSONValue)
    }

    /// Reads one line; nil when it is no message.
    package static func decode(_ line: [UInt8]) -> Message? {
        guard let message = try? JSONValue(parsing: line) else { return nil }
        if message["QMP"] != nil { return .greeting }
        if let event = message["event"]?.string {
            return .event(name: event, data: message["data"] ?? .null)
        }
        let id = message["id"]?.integer
        if let value = message["return"] { return .value(id: id, value) }
        if let error = message["error"] {
            return .failed(id: id, error["desc"]?.string ?? "QEMU reported an error")
        }
        return nil
    }
}
