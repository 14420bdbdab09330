// SPDX-License-Identifier: Apache-2.0
package import Linux

/// Why an image could not be built, kept or found.
package enum ImageError: Error, Equatable, CustomStringConvertible {
    case unknownImage(String)
    /// It may be defined, but was neither built nor imported.
    case missing(String)
    case badName(String)
    case unsupported(image: String)
    case unreadableSource(image: String, SystemError)
    case missingTool(name: String, package: String)
    case notRoot(image: String)
    /// A package that the archive does not have; the caller adds file and line.
    case unknownPackage(String, image: String)
    /// A source has no file for this host's architecture.
    case noPin(image: String, source: String, architecture: String)
    case notFetched(image: String, source: String, reason: String)
    case wrongDigest(image: String, source: String, expected: String, found: String)
    /// An archive that is damaged, hostile or not what the recipe says.
    case badSource(image: String, source: String, reason: String)
    case noSpace(path: String)
    case failed(image: String, step: String, output: String)
    case badKernel(String)
    case inUse(image: String, by: [String])
    case newerFormat(path: String)
    case damaged(path: String, reason: String)
    case system(SystemError)

    package var description: String {
        switch self {
        case .unknownImage(let name):
            "there is no image '\(name)': neither Martlet nor the fleet file defines it"
        case .missing(let name):
            "no image '\(name)' is here: it was neither built nor imported"
        case .badName(let name):
            "'\(name)' cannot name an image: use letters, digits, '-', '_' and '.'"
        case .unsupported(let image):
            "the image '\(image)' is made from a foreign disk: not available yet"
        case .unreadableSource(let image, let error):
            "the image '\(image)' takes a file that cannot be read: \(error)"
        case .missingTool(let name, let package):
            "'\(name)' is not installed: it comes with the Debian package \(package)"
        case .notRoot(let image):
            "the image '\(image)' is not here, and only root can build it: a build mounts file "
                + "systems and keeps the owners of files"
        case .unknownPackage(let package, let image):
            "image '\(image)': Debian has no package '\(package)'"
        case .noPin(let image, let source, let architecture):
            "image '\(image)': \(source) has no file for \(architecture), which this host is"
        case .notFetched(let image, let source, let reason):
            "image '\(image)': \(source) could not be fetched: \(reason)"
        case .wrongDigest(let image, let source, let expected, let found):
            "image '\(image)': \(source) is not what it should be: its SHA-256 is \(found), and the "
                + "recipe says \(expected); nothing of it is kept"
        case .badSource(let image, let source, let reason):
            "image '\(image)': \(source) cannot be used: \(reason)"
        case .noSpace(let path):
            "no space left on the disk that holds \(path): free some, or run 'martlet prune'"
        case .failed(let image, let step, let output):
            "image '\(image)': \(step) failed: \(output)"
        case .badKernel(let reason):
            "the kernel package cannot be used: \(reason)"
        case .inUse(let image, let users):
            "the image '\(image)' is used by \(users.joined(separator: ", ")): destroy or change them first"
        case .newerFormat(let path):
            "\(path) was made by a newer martlet: update martlet, or build the image again"
        case .damaged(let path, let reason): "\(path) is damaged: \(reason)"
        case .system(let error): error.description
        }
    }
}
