// SPDX-License-Identifier: Apache-2.0
package import Linux

/// What went wrong with a disk, in words for the person who asked.
package enum StorageError: Error, Equatable, CustomStringConvertible {
    case missingTool(name: String, package: String)
    case failed(what: String, output: String)
    case shrink(path: String, from: Int64, to: Int64)
    case noSpace(path: String)
    /// A block device that is not there, is none, or that the host uses itself.
    case unusableDevice(path: String, reason: String)
    /// Something else than what is declared: it is never written over.
    case foreignContent(path: String, found: String, declared: String)
    /// A backup that is not, or no longer, what was written.
    case damaged(path: String, reason: String)
    /// An encrypted backup, and no key for it or another one.
    case undecryptable(path: String, reason: String)
    /// No such backup, or one without the backup that it rests on.
    case missingBackup(String)
    case cancelled
    case system(SystemError)

    package var description: String {
        switch self {
        case .missingTool(let name, let package):
            "'\(name)' is not installed: it comes with the Debian package \(package)"
        case .failed(let what, let output): "\(what): \(output)"
        case .shrink(let path, let from, let to):
            "\(path) has \(from) bytes and cannot shrink to \(to): its file system would be cut off"
        case .noSpace(let path): "no space left on the disk that holds \(path)"
        case .unusableDevice(let path, let reason): "the device \(path) cannot be used: \(reason)"
        case .foreignContent(let path, let found, let declared):
            "\(path) holds \(found), and \(declared) is declared: nothing is written over. Declare "
                + "what it holds, or name another volume"
        case .damaged(let path, let reason): "the backup \(path) is damaged: \(reason)"
        case .undecryptable(let path, let reason):
            "the backup \(path) cannot be decrypted: \(reason); the key is what 'backups.identity' "
                + "or --identity names"
        case .missingBackup(let text): text
        case .cancelled: "interrupted"
        case .system(let error): error.description
        }
    }
}

/// Turns what a system call said about a path into words for people.
func system<R: ~Copyable>(
    _ path: String, _ body: () throws(SystemError) -> R
) throws(StorageError) -> R {
    do {
        return try body()
    } catch {
        throw error.isNoSpace ? .noSpace(path: path) : .system(error)
    }
}

/// Where a program is.
func tool(_ name: String, package: String) throws(StorageError) -> String {
    guard let path = findProgram(name) else { throw .missingTool(name: name, package: package) }
    return path
}

/// Runs a tool to its end; `path` is the disk that it works on.
@discardableResult
func run(_ program: Program, on path: String, making what: String) async throws -> Output {
    let output = try await program.capture()
    guard !output.exit.isSuccess else { return output }
    if output.errorText.contains("No space left") { throw StorageError.noSpace(path: path) }
    throw StorageError.failed(
        what: "\(what) could not be made",
        output: output.errorText.isEmpty ? "\(output.exit)" : output.errorText)
}
