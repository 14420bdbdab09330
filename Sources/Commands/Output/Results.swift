// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets

extension Printer {
    /// Prints the results of an acting verb, and throws when one of them is a failure.
    func finish(_ outcomes: [Outcome]) throws {
        if isJSON { document(["results": .array(outcomes.map(\.json))]) }
        let failures = outcomes.compactMap { outcome in
            outcome.error.map { (vm: outcome.vm, failure: Failure($0)) }
        }
        guard let first = failures.first else { return }
        // One reason for all has its own exit code; several are just a failure. What failed and
        // why has been said as it happened.
        let codes = Set(failures.map(\.failure.code))
        throw Failure(
            codes.count == 1 ? first.failure.code : .failed,
            "\(failures.count) of \(outcomes.count) failed", hint: first.failure.hint,
            isReported: true)
    }
}

extension Outcome {
    var json: JSONValue {
        [
            "vm": .string(vm), "action": .string(action), "ok": .bool(ok),
            "seconds": .number((seconds * 1000).rounded() / 1000), "detail": .string(detail),
        ]
    }
}
