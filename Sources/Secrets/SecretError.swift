// SPDX-License-Identifier: Apache-2.0
package import Linux

/// Why a secret cannot be read or kept; the text never holds any of it.
package enum SecretError: Error, Equatable, CustomStringConvertible {
    case missingTool(name: String, package: String)
    /// No such file, and what it was wanted for.
    case missing(path: String, what: String)
    /// A file that is there and must not, or cannot, be read as it is.
    case unusable(path: String, reason: String)
    /// Encrypted, but not for the key that we have.
    case undecryptable(path: String, reason: String)
    /// No longer, or never, what the program wrote that encrypts such files.
    case damaged(path: String, reason: String)
    /// Written in a way that we do not read.
    case unsupported(path: String, reason: String)
    /// No value at that place of a sops file; the hint names the nearest.
    case noSuchKey(path: String, key: String, hint: String)
    case empty(String)
    case tooLarge(String, limit: Int)
    case invalidName(String)
    case noSpace(path: String)
    case cancelled
    case system(SystemError)

    package var description: String {
        switch self {
        case .missingTool(let name, let package):
            "'\(name)' is not installed: it comes with the Debian package \(package)"
        case .missing(let path, let what): "there is no \(path): \(what)"
        case .unusable(let path, let reason): "\(path) cannot be used: \(reason)"
        case .undecryptable(let path, let reason): "\(path) cannot be decrypted: \(reason)"
        case .damaged(let path, let reason): "\(path) is damaged: \(reason)"
        case .unsupported(let path, let reason): "\(path) cannot be read: \(reason)"
        case .noSuchKey(let path, let key, let hint): "\(path) has no value '\(key)'\(hint)"
        case .empty(let name):
            "\(name) is empty, and an empty secret protects nothing: give it a value"
        case .tooLarge(let name, let limit):
            "\(name) has more than \(limit / 1024) KiB, which is as much as a secret may have: hand "
                + "larger things to a VM as a share"
        case .invalidName(let name):
            "'\(name)' is no name of a secret: use 1 to 64 letters, digits, '-', '_' and '.', and begin "
                + "with none of the last"
        case .noSpace(let path): "no space left on the disk that holds \(path)"
        case .cancelled: "interrupted"
        case .system(let error): error.description
        }
    }
}

/// Gives an error of the system its place.
func secret<R: ~Copyable>(
    _ path: String, _ body: () throws(SystemError) -> R
) throws(SecretError) -> R {
    do throws(SystemError) {
        return try body()
    } catch {
        throw error.isNoSpace ? .noSpace(path: path) : .system(error)
    }
}
