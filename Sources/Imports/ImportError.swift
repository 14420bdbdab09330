// SPDX-License-Identifier: Apache-2.0

/// Why nothing could be imported.
package enum ImportError: Error, Equatable, CustomStringConvertible {
    /// A library is not installed; `package` is the one of Debian that brings it.
    case missingLibrary(String, package: String)
    /// The document is not what it should be: a sentence that says what is wrong.
    case malformed(String)
    /// It is what it should be, but nothing that a VM of ours could stand for.
    case unsuitable(String)
    /// A file that the document needs is not there.
    case missing(String)

    package var description: String {
        switch self {
        case .missingLibrary(let name, _): "reading XML needs \(name), which is not installed"
        case .malformed(let problem): "the document cannot be read: \(problem)"
        case .unsuitable(let problem): "it cannot be imported: \(problem)"
        case .missing(let problem): problem
        }
    }
}
