// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// Connections that the kernel tracks: it lets them go on whatever the rules say by now.
enum Flows {
    /// Ends the connections of those whose rules were narrowed.
    static func cut(_ difference: Elements.Difference, _ networks: FleetNetworks) throws {
        let addresses = Flows.addresses(difference, networks)
        guard !addresses.isEmpty else { return }
        guard let conntrack = findProgram("conntrack") else {
            throw NetworkError.missingTool(name: "conntrack", package: "conntrack")
        }
        for address in addresses.sorted() {
            let family = address.contains(":") ? "ipv6" : "ipv4"
            // As whoever began it, as whom it was meant for, and as whom a forward led it to.
            for role in ["--orig-src", "--orig-dst", "--reply-src"] {
                let program = Program(conntrack, ["-D", "-f", family, role, address])
                let exit = try program.spawn().waitBlocking()
                // 1 is also: there was none.
                guard case .code(let code) = exit, code <= 1 else {
                    throw NetworkError.failed(
                        what: "old connections of \(address) go on",
                        reason: "conntrack ended with \(exit)")
                }
            }
        }
    }

    /// Whose connections could go on that would not be allowed any more; pure.
    static func addresses(
        _ difference: Elements.Difference, _ networks: FleetNetworks
    ) -> Set<String> {
        var found: Set<String> = []
        for (key, elements) in difference.removed {
            for element in elements {
                let fields = element.key.components(" . ")
                switch key.name {
                case "egress-all", "egress-internet", "egress-ports", "egress-nets", "egress-at",
                    "open-pairs":
                    for segment in networks.segments where "\"\(segment.link)\"" == fields[0] {
                        found.formUnion(segment.ports.flatMap { segment.addresses(of: $0) })
                    }
                case "allow4", "allow6": found.insert(fields[0])
                case "own4", "own6":
                    if fields.count > 1, !fields[1].hasPrefix("fe80") { found.insert(fields[1]) }
                case "forwards4", "forwards6", "forwards4-at", "forwards6-at":
                    if let target = element.value?.components(" . ").first { found.insert(target) }
                case "trusted":
                    for segment in networks.segments {
                        found.formUnion(segment.ports.flatMap { segment.addresses(of: $0) })
                    }
                default: break
                }
            }
        }
        return found
    }
}

extension String {
    fileprivate func components(_ separator: String) -> [String] {
        split(separator: separator).map(String.init)
    }
}
