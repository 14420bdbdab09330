// SPDX-License-Identifier: Apache-2.0

/// One element of an XML document: its attributes, the elements in it, and its text.
struct Element: Sendable, Equatable {
    let name: String
    let attributes: [String: String]
    var children: [Element] = []
    /// The character data directly in it, without white space at both ends.
    var text = ""

    subscript(attribute: String) -> String? { attributes[attribute] }

    /// The elements of a name directly in it.
    func all(_ name: String) -> [Element] { children.filter { $0.name == name } }

    /// The first element along a path of names; nil when one of them is missing.
    func at(_ path: String...) -> Element? {
        var element = self
        for name in path {
            guard let next = element.children.first(where: { $0.name == name }) else { return nil }
            element = next
        }
        return element
    }
}
