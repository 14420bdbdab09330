// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// The guest agent's protocol (`qemu-guest-agent`): JSON lines over a virtio-serial port.
package enum GuestAgent {
    /// Requests that the agent answers to with the same number once it is in step.
    package static func sync(_ number: Int64) -> [UInt8] {
        // The leading 0xFF clears what an earlier client may have left half sent.
        [0xFF] + command("guest-sync-delimited", ["id": .integer(number)])
    }

    /// One command as a line, with its end.
    package static func command(_ name: String, _ arguments: JSONValue = [:]) -> [UInt8] {
        var request = [JSONValue.Member("execute", .string(name))]
        if arguments != [:] { request.append(.init("arguments", arguments)) }
        return line(.object(request))
    }

    package enum Reply: Sendable, Equatable {
        case value(JSONValue)
        /// The agent's own words.
        case failed(String)
    }

    /// Reads one line from the agent; nil when it is no reply.
    package static func decode(_ line: [UInt8]) -> Reply? {
        guard let message = try? JSONValue(parsing: line) else { return nil }
        if let value = message["return"] { return .value(value) }
        if let error = message["error"] {
            return .failed(error["desc"]?.string ?? "the guest agent reported an error")
        }
        return nil
    }

    /// Arguments of `guest-exec` that capture what the program prints; the input is base64.
    package static func exec(_ arguments: [String], input: String = "") -> JSONValue {
        let request: JSONValue = [
            "path": .string(arguments.first ?? ""),
            "arg": .array(arguments.dropFirst().map { .string($0) }),
            "capture-output": true,
        ]
        if input.isEmpty { return request }
        return .object(request.members + [.init("input-data", .string(input))])
    }

    /// How a program that `guest-exec` started ended, once it has.
    package struct Ended: Sendable, Equatable {
        /// The exit code, or 128 plus the signal.
        package let code: Int32
        /// Base64.
        package let standardOutput: String
        package let standardError: String
        package let truncated: Bool

        /// Reads what `guest-exec-status` returned; nil while the program runs.
        package init?(_ status: JSONValue) {
            guard status["exited"]?.bool == true else { return nil }
            let signal = status["signal"]?.integer.map { 128 + $0 }
            code = Int32(clamping: status["exitcode"]?.integer ?? signal ?? 255)
            standardOutput = status["out-data"]?.string ?? ""
            standardError = status["err-data"]?.string ?? ""
            truncated =
                status["out-truncated"]?.bool == true
                || status["err-truncated"]?.bool == true
        }
    }

    /// The addresses in what `guest-network-get-interfaces` returned, without loopback and link-local ones.
    package static func addresses(_ interfaces: JSONValue) -> [String] {
        interfaces.elements.flatMap { interface in
            (interface["ip-addresses"]?.elements ?? []).compactMap {
                $0["ip-address"]?.string
            }
        }.filter { !$0.hasPrefix("127.") && $0 != "::1" && !$0.hasPrefix("fe80:") }
    }
}
