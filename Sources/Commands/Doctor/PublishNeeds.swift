// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Publishing

/// What published VMs of the fleet file, and of the fleets that are applied, need of this host.
struct PublishNeeds {
    private let publishes: Bool
    private let asksByDNS: Bool

    /// `isPublishing` and `renewals` are of the fleets that are applied.
    init(_ fleet: Fleet?, isPublishing: Bool = false, renewals: [CertificateRenewal] = []) {
        let all = (fleet?.vms ?? []).filter(\.enable).flatMap(\.publish)
        publishes = isPublishing || !all.isEmpty
        asksByDNS =
            renewals.contains(where: \.needsClock)
            || all.contains { if case .dns = $0.tls { true } else { false } }
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
        return tools.map { Doctor.tool($0, at: find($0.name)) }
    }
}
