// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Networking

/// What of its host Martlet shares with others, and where that is.
package struct SharedHost: Sendable {
    package var hostsFile: String
    /// The socket of Tailscale's daemon.
    package var tailscaled: String

    /// MARTLET_TAILSCALED is for tests: a program that answers as tailscaled would, or does not.
    package init(
        hostsFile: String = "/etc/hosts",
        tailscaled: String = environment("MARTLET_TAILSCALED")
            ?? "/var/run/tailscale/tailscaled.sock"
    ) {
        self.hostsFile = hostsFile
        self.tailscaled = tailscaled
    }
}

/// A route that a fleet asks Tailscale to announce.
package struct AnnouncedRoute: Sendable, Equatable {
    package let route: String
    /// Whether Tailscale lists it now; nil when it did not answer.
    package let isAnnounced: Bool?

    package init(route: String, isAnnounced: Bool?) {
        self.route = route
        self.isAnnounced = isAnnounced
    }
}

// MARK: - Names on the host

extension Engine {
    private func hostsFile() throws(SystemError) -> HostsFile {
        try Files.makeFolder(layout.run)
        return HostsFile(shared.hostsFile, lock: layout.hostsLock)
    }

    /// Whether names of VMs can resolve on this host: its hosts file has our block.
    package var hasNamesOnHost: Bool {
        get throws(HostsFileError) {
            try HostsFile(shared.hostsFile, lock: layout.hostsLock).isSetUp
        }
    }

    /// Makes the names of VMs resolve on this host, from now on: only who asks for it may do that.
    ///
    /// Those that run have their names at once.
    package func setUpNamesOnHost() async throws {
        try await blocking { [self] in try hostsFile().setUp() }
        for fleet in try networkFleets() {
            try await withNetworks(of: fleet) { [self] _, wanted in nameOnHost(wanted) }
        }
    }

    /// Keeps a fleet's part of the hosts file; without our block in it there is none.
    ///
    /// Whoever calls this holds the fleet's lock. A hosts file that somebody damaged stops no VM.
    func nameOnHost(_ wanted: FleetNetworks) {
        do {
            try hostsFile().update(owner: wanted.owner.section, entries: wanted.hostEntries)
        } catch {
            reporter.warning("the names of VMs on this host are not as they should be: \(error)")
        }
    }
}

// MARK: - Routes

extension Engine {
    /// Makes Tailscale announce the subnets of a fleet that asks for it, and those no longer that
    /// were announced for it before.
    ///
    /// Tailscale's own state stops no VM: what fails is a warning.
    func announceRoutes(of fleet: String) async {
        do {
            try await blocking { [self] in
                guard let record = try store.networkRecord(fleet),
                    record.settings.advertise != .none || !record.advertised.isEmpty
                else { return }
                try Files.makeFolder(layout.run)
                // The list is one for all fleets, and is read before it is written.
                let lock = try FileLock.wait(layout.announcementLock)
                try announce(fleet)
                _ = consume lock
            }
        } catch {
            reporter.warning("the routes of '\(fleet)' are not announced as declared: \(error)")
        }
    }

    /// The record names a route before Tailscale does, and forgets it after: a run that is killed
    /// in between has announced nothing that the next one takes for somebody else's.
    private func announce(_ fleet: String) throws {
        guard let record = try store.networkRecord(fleet) else { return }
        let before = record.advertised
        let tailscale = Tailscale(socket: shared.tailscaled)
        let foreign = Set(try tailscale.announced()).subtracting(before)
        let wanted = record.settings.announcedRoutes
        let ours = wanted.filter { !foreign.contains($0) }
        let all = before + ours.filter { !before.contains($0) }
        try changeNetworkRecord(fleet) { $0.advertised = all }
        try tailscale.advertise(ours: wanted, previously: before)
        Checkpoint.pass()
        try changeNetworkRecord(fleet) { $0.advertised = ours }
    }

    /// The routes that a fleet asks for, and whether they are announced now.
    package func observeRoutes(of fleet: String) async throws -> [AnnouncedRoute] {
        let wanted = try store.networkSettings(fleet).announcedRoutes
        guard !wanted.isEmpty else { return [] }
        let path = shared.tailscaled
        let now = try? await blocking { try Tailscale(socket: path, timeout: 2).announced() }
        return wanted.map { route in
            AnnouncedRoute(route: route, isAnnounced: now.map { $0.contains(route) })
        }
    }
}

extension NetworkSettings {
    /// What Tailscale is to announce: the subnets behind our own gateways.
    var announcedRoutes: [String] {
        guard advertise == .tailscale else { return [] }
        return networks.filter { $0.kind == .nat }.flatMap { network in
            [network.subnet?.description, network.ipv6 ? network.subnet6?.description : nil]
                .compactMap { $0 }
        }
    }
}

extension Layout {
    /// Held while the hosts file is changed; no VM can have a name with a dot.
    var hostsLock: String { run + "/hosts.lock" }
    /// Held while Tailscale's list of routes is changed.
    var announcementLock: String { run + "/tailscale.lock" }
}
