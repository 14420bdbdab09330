// SPDX-License-Identifier: Apache-2.0

/// Why published VMs are not reached under their names.
package enum PublishError: Error, Equatable, CustomStringConvertible {
    case missingTool(name: String, package: String, purpose: String)
    case portTaken(port: UInt16, by: String)
    case noPrivilege(port: UInt16)
    case noAddress(text: String)
    case refused(reason: String)
    case notStarted(reason: String)
    /// Two fleets want something different of what there is once.
    case otherListen(fleet: String, listen: [String])
    case hostTaken(host: String, fleet: String)
    case certificate(host: String, reason: String)
    case unreachable(vm: String, host: String, reason: String)

    package var description: String {
        switch self {
        case .missingTool(let name, let package, let purpose):
            "\(name) is not installed; it \(purpose): 'apt-get install \(package)'"
        case .portTaken(let port, let owner):
            "the reverse proxy cannot listen on port \(port), which \(owner) has: end that, or choose "
                + "other ports under `publishing.listen`"
        case .noPrivilege(let port):
            "the reverse proxy cannot listen on port \(port) without root: use ports from 1024 under "
                + "`publishing.listen`"
        case .noAddress(let text):
            "the reverse proxy cannot listen on \(text): this host does not have the address"
        case .refused(let reason): "Caddy refused its configuration: \(reason)"
        case .notStarted(let reason): "Caddy did not start: \(reason)"
        case .otherListen(let fleet, let listen):
            "one reverse proxy serves all fleets, and that of '\(fleet)' listens on "
                + listen.joined(separator: ", ")
                + ": give both fleets the same `publishing.listen`"
        case .hostTaken(let host, let fleet):
            "the host name \(host) is published by the fleet '\(fleet)': publish it once"
        case .certificate(let host, let reason): "the certificate of \(host): \(reason)"
        case .unreachable(let vm, let host, let reason):
            "\(host) does not lead to \(vm): \(reason)"
        }
    }
}
