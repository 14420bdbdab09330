// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Glibc
import Images
import Linux
package import Networking

extension Engine {
    /// Takes over what a fleet says of networks, and makes it so for the VMs that run.
    package func declareNetworks(of fleet: Fleet) async throws {
        guard isRoot else { return }
        let settings = fleet.networkSettings
        let isKnown = try store.networkRecord(fleet.name) != nil
        guard isKnown || settings != NetworkSettings() else { return }
        try await blocking { [self] in
            try changeNetworkRecord(fleet.name) { $0.settings = settings }
        }
        try await applyNetworks(of: fleet.name)
        await announceRoutes(of: fleet.name)
    }

    /// Changes what is recorded of a fleet's networks; blocks while another run does.
    func changeNetworkRecord(
        _ fleet: String, _ change: (inout NetworkRecord) -> Void
    ) throws {
        try Files.makeFolder(layout.networks, mode: 0o700)
        let lock = try FileLock.wait(layout.networkLock(fleet))
        let old = try store.networkRecord(fleet)
        var new = old ?? NetworkRecord(settings: NetworkSettings())
        change(&new)
        if new != old {
            try RecordFile.write(new, to: layout.networkRecord(fleet))
            Checkpoint.pass()
        }
        _ = consume lock
    }

    /// Makes the host's links, rules and servers as the living VMs of a fleet need them: no more,
    /// and nothing at all for a fleet whose VMs all have `user` interfaces only.
    ///
    /// `vm` is one that was not there before: what it needs is checked first.
    package func applyNetworks(of fleet: String, attaching vm: String? = nil) async throws {
        try await withNetworks(of: fleet) { [self] host, wanted in
            // Before the links: as long as one of those is left, there is a reason to come back.
            nameOnHost(wanted)
            guard !wanted.isEmpty || host.hasTraces else { return }
            try host.apply(wanted) { segment in segment.ports.contains { $0.vm == vm } }
        }
    }

    /// Opens the taps of a VM that `prepare` made everything else for, in the order of its interfaces.
    ///
    /// The caller closes them; a tap is gone with its last descriptor.
    func openTaps(_ vm: VM, fleet: String?, user: UInt32?) async throws -> [Int32] {
        guard let fleet, vm.isOnNetwork else { return [] }
        return try await withNetworks(of: fleet) { host, wanted in
            try host.openTaps(of: vm.name, in: wanted, user: user)
        }
    }

    /// The fleets below ROOT that have networks.
    package func networkFleets() throws -> [String] {
        try Files.list(layout.networks).filter { $0.hasSuffix(".json") }.map {
            String($0.dropLast(5))
        }.sorted()
    }

    /// What is there of a fleet's networks.
    package func observeNetworks(of fleet: String) async throws -> ObservedNetworks {
        try await blocking { [self] in
            let (host, wanted) = try network(of: fleet, vms: try attachedVMs(of: fleet))
            return try host.observe(try store.networkSettings(fleet).networks, wanted)
        }
    }

    private func network(
        of fleet: String, vms: [VM]
    ) throws -> (host: HostNetwork, wanted: FleetNetworks) {
        let settings = try store.networkSettings(fleet)
        let wanted = FleetNetworks(
            owner: Owner(fleet: fleet, root: layout.root), networks: settings.networks,
            openings: settings.allow, trusted: settings.trusted, vms: vms,
            users: try vms.filter { $0.interfaces.contains(where: \.isUser) }
                .compactMap { try allocateUser($0.name) })
        let host = HostNetwork(owner: wanted.owner, folder: layout.networkRun(fleet))
        return (host, wanted)
    }

    /// Runs work on a fleet's network while no other run of martlet changes it.
    func withNetworks<R: Sendable>(
        of fleet: String, _ body: @escaping @Sendable (HostNetwork, FleetNetworks) throws -> R
    ) async throws -> R {
        try Files.makeFolder(layout.networks, mode: 0o700)
        return try await blocking { [self] in
            let lock = try FileLock.wait(layout.networkLock(fleet))
            let vms = try attachedVMs(of: fleet, removingEnded: true)
            let (host, wanted) = try network(of: fleet, vms: vms)
            let result = try body(host, wanted)
            _ = consume lock
            return result
        }
    }

    /// The VMs of a fleet whose interfaces are in use, as they were when they were started.
    ///
    /// One that ended by itself has nobody to take its traces away but the next who looks.
    func attachedVMs(of fleet: String, removingEnded: Bool = false) throws -> [VM] {
        try store.names().vms.compactMap { name in
            let files = layout.vm(name)
            guard Files.exists(files.attachment), try store.record(name)?.fleet == fleet else {
                return nil
            }
            let isUsed = try FileLock.isHeld(files.lock) || FileLock.isHeld(files.changeLock)
            guard isUsed else {
                if removingEnded { try Files.remove(files.attachment) }
                return nil
            }
            return try RecordFile.plain(VM.self, from: files.attachment)
        }
    }

    /// Notes that a VM's interfaces are about to be used, and makes its networks.
    func attach(_ vm: VM, fleet: String?, _ files: VMLayout) async throws {
        guard vm.isOnNetwork, let fleet else { return }
        guard isRoot else { throw LifecycleError.noPrivilegeForNetworks(vm: vm.name) }
        try Files.write(files.attachment, encoded(vm), mode: 0o600)
        Checkpoint.pass()
        do {
            try await applyNetworks(of: fleet, attaching: vm.name)
        } catch {
            // It is not attached, and must not stand in the way of the others.
            try Files.remove(files.attachment)
            throw error
        }
    }

    /// Gives the host, and the guest's firewall, what they can take over while the VM runs.
    ///
    /// `changed` are the keys of the fleet file that differ.
    func handOverNetwork(
        _ vm: VM, running: VM, _ files: VMLayout, changed: [String]
    ) async throws {
        guard vm.isOnNetwork, running.isOnNetwork, Files.exists(files.attachment),
            let fleet = try store.record(vm.name)?.fleet
        else { return }
        // Its interfaces stay as they are until it restarts.
        var attached = running
        attached.ports = vm.ports
        attached.limits.network = vm.limits.network
        try Files.write(files.attachment, encoded(attached), mode: 0o600)
        Checkpoint.pass()
        try await applyNetworks(of: fleet)
        if vm.ports != running.ports { try await restartRelay(attached) }
        let opening = ["ports", "firewall", "publish", "allow"]
        let isOpened = changed.contains { field in
            opening.contains { field == $0 || field.hasPrefix($0 + ".") }
        }
        guard isOpened else { return }
        let image = try store.current(vm.name).flatMap { try images.resolve($0.imageDigest) }
        let rules = GuestIdentity.firewall(
            open: vm.openPorts(allow: try store.networkSettings(fleet).allow)
                + Engine.openPorts(of: image, for: vm))
        let program = try await access(vm.name).program(
            user: "root", command: ["nft", "-f", "-"], terminal: false)
        let output = try await program.capture(input: Array(rules.utf8))
        guard output.exit.isSuccess else {
            throw LifecycleError.failed(
                vm: vm.name,
                reason: "its own firewall did not take the ports over: "
                    + String(output.errorText.prefix { !$0.isNewline }))
        }
    }

    /// The ports that a VM's image wants open; a VM with a `firewall` of its own has that alone.
    static func openPorts(of image: ImageManifest?, for vm: VM) -> [ProtocolPort] {
        vm.firewall == Firewall() ? image?.ports ?? [] : []
    }

    /// Notes the addresses that a VM was given, so that it has them again.
    func keepAddresses(_ vm: VM, _ files: VMLayout) throws {
        var kept = (try? RecordFile.plain([String: IPv4].self, from: files.addresses)) ?? [:]
        let before = kept
        for interface in vm.interfaces {
            if let address = interface.address { kept[interface.network] = address }
        }
        guard kept != before else { return }
        try Files.makeFolder(files.identity, mode: 0o700)
        try Files.write(files.addresses, encoded(kept))
        Checkpoint.pass()
    }

    /// Takes away what a VM's interfaces needed of the host.
    func detach(_ name: String) async throws {
        let files = layout.vm(name)
        let fleet = try store.record(name)?.fleet
        if Files.exists(files.attachment) {
            try Files.remove(files.attachment)
            Checkpoint.pass()
        } else {
            // A run that was killed right after that has left the rest to us.
            guard let fleet, try store.current(name)?.vm.isOnNetwork == true,
                Files.exists(layout.networkRun(fleet))
            else { return }
        }
        if let fleet { try await applyNetworks(of: fleet) }
    }
}
