// SPDX-License-Identifier: Apache-2.0

/// A share that cannot be.
package enum ShareError: Error, Equatable, CustomStringConvertible {
    case noDaemon(vm: String, package: String)
    case needsRoot(vm: String, daemon: String)
    case ownersNeedRoot(vm: String, tag: String)
    case cannotMap(vm: String, tag: String, daemon: String)
    case missing(vm: String, source: String)
    case notAFolder(vm: String, source: String)
    case noOwner(vm: String, owner: String)
    case forbidden(vm: String, source: String, path: String, reason: String)
    case failed(vm: String, reason: String)

    package var description: String {
        switch self {
        case .noDaemon(let vm, let package):
            "\(vm) has shares, and virtiofsd, which serves them, is not installed: "
                + "install the package \(package)"
        case .needsRoot(let vm, let daemon):
            "\(vm) has shares, and \(daemon) serves them only as root: use sudo, or the virtiofsd "
                + "of Debian 13"
        case .ownersNeedRoot(let vm, let tag):
            "the share '\(tag)' of \(vm) keeps the owners of files, and only root can give files "
                + "to others: add 'ids: squash', and all of them are your own"
        case .cannotMap(let vm, let tag, let daemon):
            "the share '\(tag)' of \(vm) asks for other owners on the host ('ids'), and \(daemon) "
                + "cannot do that: use 'ids: host', or the virtiofsd of Debian 13"
        case .missing(let vm, let source):
            "\(vm) shares \(source), which is not there: make it, or add 'create: {}' to the share"
        case .notAFolder(let vm, let source):
            "\(vm) shares \(source), which is no directory: a share is a whole directory"
        case .noOwner(let vm, let owner):
            "\(vm) wants a directory made for the user '\(owner)', whom this host does not have"
        case .forbidden(let vm, let source, let path, let reason):
            "\(vm) cannot share \(source)"
                + (source == path ? "" : ", which leads to \(path)") + ": \(reason)"
        case .failed(let vm, let reason): "the shares of \(vm) cannot be served: \(reason)"
        }
    }
}
