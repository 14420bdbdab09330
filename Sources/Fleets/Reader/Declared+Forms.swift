// SPDX-License-Identifier: Apache-2.0

extension Record {
    /// The long form, for a type whose `read` also takes a short one.
    static func readRecord(_ scope: Scope) -> Self? { Long<Self>.read(scope)?.value }
    static var recordSchema: JSONValue { Long<Self>.schema }
}

/// A record without the short form that its type adds to `read`.
private struct Long<Value: Record>: Record {
    var value = Value()

    mutating func declare(_ key: Fields) { value.declare(key) }
    mutating func finish(_ scope: Scope) { value.finish(scope) }
}
