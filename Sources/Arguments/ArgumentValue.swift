// SPDX-License-Identifier: Apache-2.0

/// A type whose values can be written on a command line.
package protocol ArgumentValue: Sendable {
    /// What a value looks like, for messages: "a whole number", "a duration such as 30s".
    static var expected: String { get }
    /// Every spelling, when there are few: help lists them and completion offers them.
    static var spellings: [String] { get }

    /// Nil when the text is no value of this type.
    init?(argument: String)

    /// The text that `init(argument:)` reads back as this value.
    var argument: String { get }
}

extension ArgumentValue {
    package static var spellings: [String] { [] }
}

extension String: ArgumentValue {
    package static var expected: String { "text" }
    package init?(argument: String) { self = argument }
    package var argument: String { self }
}

extension Int: ArgumentValue {
    package static var expected: String { "a whole number" }
    package init?(argument: String) { self.init(argument) }
    package var argument: String { String(self) }
}

/// An enum with text values is an option with a fixed choice; it only has to say so.
extension ArgumentValue where Self: RawRepresentable & CaseIterable, RawValue == String {
    package static var spellings: [String] { allCases.map(\.rawValue) }
    package static var expected: String { orList(spellings) }
    package init?(argument: String) { self.init(rawValue: argument) }
    package var argument: String { rawValue }
}

/// `a`, `a or b`, `a, b or c`.
func orList(_ words: [String]) -> String {
    guard let last = words.last, words.count > 1 else { return words.first ?? "" }
    return words.dropLast().joined(separator: ", ") + " or " + last
}
