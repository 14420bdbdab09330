// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Linux

/// `networks`: what carries the VMs' traffic, and what was dropped of it.
enum NetworksVerb {
    static let command = Command(
        "networks", "Show networks, interfaces, forwards, and what was dropped.",
        discussion: """
            Observed, not remembered: links, rules and servers as they are on this host now. With \
            a fleet file, its networks; without one, those of all fleets below ROOT. A network \
            that no running VM needs is not there.
            """,
        examples: [
            .init("sudo martlet networks", "All of it; packets dropped are for root's eyes only."),
            .init("martlet networks --json", "The same for a script."),
        ]
    ) { arguments in
        let session = try Session(arguments)
        let fleets = try session.fleetIfAny().map { [$0.name] } ?? session.engine.networkFleets()
        var views: [NetworkView] = []
        let engine = session.engine
        for fleet in fleets {
            views.append(
                NetworkView(
                    fleet: fleet, settings: try engine.store.networkSettings(fleet),
                    observed: try await engine.observeNetworks(of: fleet),
                    hasNames: try? engine.hasNamesOnHost,
                    routes: try await engine.observeRoutes(of: fleet)))
        }
        if session.printer.isJSON {
            session.printer.document(.array(views.map(\.json)))
        } else {
            for view in views { view.show(session.printer) }
        }
    }
}
