// SPDX-License-Identifier: Apache-2.0
package import Fleets

/// What was observed of all VMs below one ROOT: never what was last asked for.
package struct State: Sendable, Equatable {
    package var vms: [String: ObservedVM]
    /// What the fleet's networks are, as they were applied last.
    package var networks: NetworkSettings
    /// What the fleet says of publishing, as it was applied last; nil for one that published nothing.
    package var publishing: Publishing?
    /// Whether networks of the host can be made at all.
    package var hasPrivilege: Bool

    package init(
        vms: [ObservedVM] = [], networks: NetworkSettings = NetworkSettings(),
        publishing: Publishing? = nil, hasPrivilege: Bool = true
    ) {
        self.vms = [:]
        self.networks = networks
        self.publishing = publishing
        self.hasPrivilege = hasPrivilege
        for vm in vms { self.vms[vm.name] = vm }
    }
}

/// One VM as it was found.
package struct ObservedVM: Sendable, Equatable {
    package enum Phase: String, Sendable, Codable, CaseIterable {
        case absent, stopped, starting, running, stopping, paused, suspended, failed

        /// Whether a hypervisor process holds the VM's disks.
        package var isLive: Bool {
            switch self {
            case .starting, .running, .stopping, .paused: true
            case .absent, .stopped, .suspended, .failed: false
            }
        }
    }

    /// A configuration as it was applied, with the image that it names.
    package struct Generation: Sendable, Equatable {
        package let number: Int
        package let vm: VM
        package let imageDigest: String

        package init(number: Int, vm: VM, imageDigest: String) {
            self.number = number
            self.vm = vm
            self.imageDigest = imageDigest
        }
    }

    package let name: String
    /// The fleet that made it; nil when its record says none.
    package var fleet: String?
    package var phase: Phase
    /// Why it failed, or what cannot be read, in a sentence.
    package var reason: String?
    /// What the next start will use.
    package var applied: Generation?
    /// What the living process was started with.
    package var running: Generation?
    /// Why nothing may be changed: its records come from a newer martlet, or cannot be reached.
    package var problem: String?
    /// A record that is there and cannot be understood; `up` moves it aside and writes it again.
    package var damaged: String?
    /// The digest of the image that `rollback` holds it on.
    package var pinned: String?
    /// Images that did not come up on it, by digest, with the reason.
    package var failedImages: [String: String] = [:]
    /// What is known of an upgrade that has no verdict yet.
    package var upgrade: Upgrade?
    /// Secrets of which it runs with another value than there is now.
    package var staleSecrets: [String] = []

    /// An upgrade without a verdict.
    package enum Upgrade: Sendable, Equatable {
        /// Somebody is at it now.
        case underWay
        /// Whoever was at it has gone.
        case interrupted
        /// The new generation was never started: its first start decides whether it stays.
        case untried
    }

    package init(
        name: String, fleet: String? = nil, phase: Phase, reason: String? = nil,
        applied: Generation? = nil, running: Generation? = nil, problem: String? = nil,
        damaged: String? = nil
    ) {
        self.name = name
        self.fleet = fleet
        self.phase = phase
        self.reason = reason
        self.applied = applied
        self.running = running
        self.problem = problem
        self.damaged = damaged
    }
}
