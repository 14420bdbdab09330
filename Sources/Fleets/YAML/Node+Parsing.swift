// SPDX-License-Identifier: Apache-2.0

extension Node {
    /// Where a document is not YAML, lines and columns from 1.
    package struct Mistake: Error, Equatable {
        package let line: Int
        package let column: Int
        /// What is wrong; it may quote the document.
        package let message: String
    }

    /// Reads one document of YAML, or of JSON, whose members keep their order.
    ///
    /// Every scalar stays the text that was written; a key that stands twice, a second document and
    /// tags are mistakes. The name of the file is not known here: the caller adds it.
    package static func parse(_ bytes: [UInt8]) throws(Mistake) -> Node {
        let diagnostics = Diagnostics()
        let file = diagnostics.addFile("")
        let node = parseYAML(bytes, file: file, diagnostics)
        if let node, !diagnostics.hasErrors { return node }
        let first = diagnostics.sorted.first
        throw Mistake(
            line: first?.line ?? 1, column: first?.column ?? 1, message: first?.message ?? "")
    }
}
