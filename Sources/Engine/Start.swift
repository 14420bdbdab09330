// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Planning
import Supervisor

/// Why a VM is not where it was wanted.
package enum LifecycleError: Error, Equatable, CustomStringConvertible {
    case notCreated(String)
    case failed(vm: String, reason: String)
    case privilegedPort(vm: String, port: UInt16)
    case timeout(vm: String, waitingFor: String)
    case notRunning(vm: String, phase: String)
    case missingImage(vm: String, digest: String)
    case damagedImage(vm: String, image: String, what: String)
    case unreachable(vm: String, folder: String, user: UInt32)
    case suspended(String)
    case cannotSuspend(vm: String, reason: String)
    case cannotResume(vm: String, reason: String)
    case noPrivilegeForNetworks(vm: String)
    case cannotConfine(vm: String, reason: String)

    package var description: String {
        switch self {
        case .suspended(let vm):
            "\(vm) is suspended: 'martlet resume \(vm)' goes on where it was, and 'martlet start "
                + "--discard-memory \(vm)' boots it afresh, as after a power cut"
        case .cannotSuspend(let vm, let reason): "\(vm) cannot be suspended: \(reason)"
        case .cannotResume(let vm, let reason):
            "\(vm) cannot go on where it was: \(reason); 'martlet start --discard-memory \(vm)' "
                + "boots it afresh, as after a power cut"
        case .notCreated(let vm): "\(vm) does not exist yet: 'martlet up \(vm)' makes it"
        case .failed(let vm, let reason): "\(vm) did not start: \(reason)"
        case .privilegedPort(let vm, let port):
            "\(vm) forwards port \(port) of the host, and ports below 1024 are closed to the "
                + "unprivileged user that it runs as: use a higher port, or lower "
                + "net.ipv4.ip_unprivileged_port_start"
        case .missingImage(let vm, let digest):
            "the image \(digest.prefix(12)) of \(vm) is gone: 'martlet up \(vm)' builds it again"
        case .damagedImage(let vm, let image, let what):
            "\(vm) is not started: \(what); 'martlet up \(vm)' or 'martlet build \(image)' builds it "
                + "again, as root; an image that came from a file is imported again"
        case .unreachable(let vm, let folder, let user):
            "\(vm) runs as a user of its own (\(user)), who cannot pass the folder \(folder): "
                + "'chmod o+x \(folder)', or keep the fleet elsewhere with MARTLET_ROOT and "
                + "MARTLET_RUN"
        case .noPrivilegeForNetworks(let vm):
            "\(vm) has an interface on a network of the host, and only root can make those: "
                + "use sudo, or the network 'user', which needs no privilege"
        case .cannotConfine(let vm, let reason):
            "\(vm) was not started, for its processes cannot be confined: \(reason)"
        case .notRunning(let vm, let phase): "\(vm) is \(phase), not running"
        case .timeout(let vm, let what): "\(vm) is not \(what) within the time given"
        }
    }
}

extension Engine {
    /// Starts a VM that does not run, and returns when its guest is up, with the seconds that took.
    ///
    /// One that is suspended is refused unless its memory may be lost.
    package func start(_ name: String, discardingMemory: Bool = false) async throws -> Double {
        let seconds = try await changing(name) { files in
            if discardingMemory { try discardMemory(files) }
            // Before an upgrade that waits for this start is begun.
            if observer.savedMemory(files) != nil { throw LifecycleError.suspended(name) }
            _ = try await settleUpgrade(name, files)
            return try await bringUp(name, files).bootSeconds
        }
        await refreshPublishing(starting: name)
        return seconds
    }

    func launch(_ name: String, _ files: VMLayout) async throws -> Double {
        let report = await observer.observe(name)
        if report.vm.phase.isLive { return try await awaitBoot(name) }
        reporter.working(name, "preparing")
        if let vm = try store.current(name)?.vm {
            try await checkForwards(of: vm, besides: nil)
            try await checkShares(of: vm)
        }
        try await prepare(name)
        Checkpoint.pass()
        reporter.working(name, "booting")
        try await startPrepared(name, files)
        Checkpoint.pass()
        return try await awaitBoot(name)
    }

    /// Starts what `prepare` made ready; returns when the hypervisor has taken all devices.
    func startPrepared(_ name: String, _ files: VMLayout) async throws {
        do {
            if let services = try services(for: name) {
                try await startUnit(name, services)
            } else {
                try await startSupervisor(name, files)
            }
        } catch {
            // Nothing of it runs: its ports of the host belong to nobody now.
            try? await detach(name)
            removeLimits(of: name)
            throw error
        }
    }

    /// Starts `martlet supervise NAME` as the VM's own user, in a session of its own: it outlives us.
    private func startSupervisor(_ name: String, _ files: VMLayout) async throws {
        let user = try allocateUser(name)
        let vm = try store.current(name)?.vm ?? VM(name: name)
        let taps = try await openTaps(vm, fleet: store.record(name)?.fleet, user: user)
        defer { for tap in taps { close(tap) } }
        let devices = try openDevices(vm)
        defer { for device in devices { close(device) } }
        let shares = try await startKeeper(vm, files)
        defer { if let shares { close(shares) } }
        var program = supervisorProgram(name)
        // A `user` interface is the hypervisor's own traffic; without one it needs no network.
        program.newNetwork = isRoot && !vm.interfaces.contains { $0.isUser }
        program.user = user
        program.group = user
        // The group of root would open more than the device.
        if user != nil, let kvm = groupOf("/dev/kvm"), kvm != 0 { program.groups = [kvm] }
        do {
            let supervisor = try await startConfined(
                program, vm, files, taps: taps + devices, shares: shares)
            try await startRelay(vm, supervisor: supervisor)
        } catch let error as StartError {
            throw LifecycleError.failed(vm: name, reason: error.description)
        }
    }

    func groupOf(_ path: String) -> UInt32? {
        var info = stat()
        return stat(path, &info) == 0 ? info.st_gid : nil
    }

    /// Waits for the VMs that another run has begun to start, and which therefore need no change.
    package func awaitStarting(_ names: [String]) async -> [Outcome] {
        var outcomes: [Outcome] = []
        for name in names where await observer.observe(name).vm.phase == .starting {
            reporter.working(name, "booting")
            let start = Clock.monotonic()
            let result: Result<String, any Error>
            do {
                result = .success("up after \(tenths(try await awaitBoot(name))) s")
            } catch {
                result = .failure(error)
            }
            let seconds = Double(Clock.monotonic() - start) / 1e9
            let outcome = Outcome(vm: name, action: "start", seconds: seconds, result: result)
            reporter.finished(name, ok: outcome.ok, outcome.detail)
            outcomes.append(outcome)
        }
        return outcomes
    }

    /// Waits until the guest is up, or until its supervisor has given up.
    func awaitBoot(_ name: String) async throws -> Double {
        // Until the supervisor has taken the lock, the VM looks as stopped as before.
        let patience = Clock.monotonic() + 10_000_000_000
        var wasLive = false
        while true {
            let report = await observer.observe(name)
            switch report.vm.phase {
            case .running, .paused:
                if let seconds = report.observation.status?.bootSeconds { return seconds }
                wasLive = true
            case .starting, .stopping: wasLive = true
            case .failed where wasLive || report.observation.exit != nil, .stopped where wasLive:
                throw LifecycleError.failed(
                    vm: name, reason: report.vm.reason ?? "the guest powered itself off")
            default:
                if Clock.monotonic() > patience {
                    throw LifecycleError.failed(
                        vm: name,
                        reason: report.vm.reason ?? "its supervisor did not come up")
                }
            }
            try await Task.sleep(for: .milliseconds(30))
        }
    }

}
