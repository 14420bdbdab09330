// SPDX-License-Identifier: Apache-2.0
package import Linux

/// What is wrong with the files below ROOT.
package enum StoreError: Error, Equatable, CustomStringConvertible {
    case noHome
    case relative(String, String)
    case foreignRoot(String, owner: UInt32)
    case newer(path: String, version: Int)
    case unreadable(path: String, reason: String)
    case locked(vm: String)
    case owned(vm: String, by: String)
    case missingTool(name: String, package: String)
    case failed(what: String, reason: String)
    case system(SystemError)

    package var description: String {
        switch self {
        case .noHome:
            "neither MARTLET_ROOT nor HOME is set, so there is no place to keep the fleet's state"
        case .relative(let name, let path):
            "\(name) must be an absolute path, and is '\(path)'"
        case .foreignRoot(let path, let owner):
            "\(path) belongs to another user (\(owner)), whose VMs this one cannot see: "
                + "run it as that user or with sudo, or name another ROOT with MARTLET_ROOT"
        case .newer(let path, let version):
            "\(path) was written by a newer martlet (version \(version) of the record): "
                + "install that one, or move the folder away"
        case .unreadable(let path, let reason): "\(path) cannot be read: \(reason)"
        case .locked(let vm): "\(vm) is being changed by another run of martlet; try again"
        case .owned(let vm, let fleet):
            "\(vm) belongs to the fleet '\(fleet)' under the same ROOT: give this VM another name"
        case .missingTool(let name, let package):
            "'\(name)' is not installed: it comes with the Debian package \(package)"
        case .failed(let what, let reason): "\(what): \(reason)"
        case .system(let error):
            error.isNoSpace
                ? "no space left on the disk (\(error.what))" : error.description
        }
    }
}

/// Lets a leaf that throws `SystemError` stand in code that throws `StoreError`.
func stored<R>(_ body: () throws(SystemError) -> R) throws(StoreError) -> R {
    do {
        return try body()
    } catch {
        throw .system(error)
    }
}
