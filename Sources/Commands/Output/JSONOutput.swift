// SPDX-License-Identifier: Apache-2.0
package import Fleets

extension Printer {
    /// Writes the one JSON document of a verb.
    package func document(_ value: JSONValue) { line(value.text(pretty: true)) }

    /// Writes one object of a stream on a line of its own.
    package func object(_ value: JSONValue) { line(value.text()) }
}

extension Failure {
    /// The error document.
    var json: JSONValue {
        [
            "error": [
                "code": JSONValue(code.rawValue), "message": .string(message),
                "hint": hint.map { .string($0) } ?? .null,
                "diagnostics": .array(diagnostics.map(\.json)),
            ]
        ]
    }
}
