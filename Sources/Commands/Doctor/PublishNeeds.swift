// SPDX-License-Identifier: Apache-2.0
import Fleets
import Publishing

/// What published VMs of the fleet file need of this host.
struct PublishNeeds {
    private let publishes: Bool
    private let asksByDNS: Bool

    init(_ fleet: Fleet?) {
        let all = (fleet?.vms ?? []).filter(\.enable).flatMap(\.publish)
        publishes = !all.isEmpty
        asksByDNS = all.contains { if case .dns = $0.tls { true } else { false } }
    }

    /// Nothing where no VM is published; `find` looks for a program.
    func findings(_ find: (String) -> String?) -> [Doctor.Finding] {
        var tools: [(name: String, package: String, purpose: String)] = []
        if publishes {
            tools.append(
                (CaddyServer.program, CaddyServer.package, "serves the names under `publish`"))
        }
        if asksByDNS {
            tools.append((Lego.program, Lego.program, "asks for certificates by DNS"))
        }
        return tools.map { tool in
            if let path = find(tool.name) {
                return Doctor.Finding(subject: tool.name, level: .good, text: path)
            }
            return Doctor.Finding(
                subject: tool.name, level: .missing, text: "not installed; it \(tool.purpose)",
                remedy: "apt-get install \(tool.package)", package: tool.package)
        }
    }
}
