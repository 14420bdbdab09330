// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Networking
import Planning
import Supervisor

// MARK: - Ports that somebody else has

extension Engine {
    /// Refuses a step whose forwards cannot be, before any of it is done.
    func checkForwards(_ step: Plan.Step, of fleet: Fleet) async throws {
        let changing: Set<Action> = [.create, .start, .update, .restart, .rebuild]
        guard !changing.isDisjoint(with: step.actions), let vm = fleet.vm(step.vm) else { return }
        let report = await observer.observe(vm.name)
        let running = report.vm.phase.isLive ? report.vm.running?.vm ?? vm : nil
        try await checkForwards(of: vm, besides: running)
    }

    /// Refuses forwards from ports that another program, or another VM, has; `running` has its own.
    func checkForwards(of vm: VM, besides running: VM?) async throws {
        let own = Set((running?.ports ?? []).map(PortUse.init))
        let new = vm.ports.filter { !own.contains(PortUse($0)) }
        guard !new.isEmpty else { return }
        let others = try forwardsOfOthers(than: vm.name)
        try await blocking {
            for forward in new {
                if let other = others[PortUse(forward)] {
                    throw NetworkError.portTaken(
                        vm: vm.name, port: "\(forward.host)/\(forward.transport.rawValue)",
                        by: "the VM \(other)")
                }
                for address in forward.listened { try check(forward, at: address, vm.name) }
            }
        }
    }

    /// The kernel would let two VMs forward the same port, and one of them would never be reached.
    private func forwardsOfOthers(than name: String) throws -> [PortUse: String] {
        var found: [PortUse: String] = [:]
        for other in try store.names().vms where other != name {
            let files = layout.vm(other)
            guard Files.exists(files.attachment), try FileLock.isHeld(files.lock),
                let vm = try RecordFile.plain(VM.self, from: files.attachment)
            else { continue }
            for forward in vm.ports { found[PortUse(forward)] = other }
        }
        return found
    }
}

private func check(_ forward: PortForward, at address: SocketAddress, _ vm: String) throws {
    let port = "\(forward.host)/\(forward.transport.rawValue)"
    do throws(SystemError) {
        let kind: InetSocket.Kind = forward.transport == .tcp ? .stream : .datagram
        guard try Ports.isFree(address, kind) else {
            throw SystemError("bind", EADDRINUSE)
        }
    } catch {
        switch error.code {
        case EADDRINUSE:
            throw NetworkError.portTaken(vm: vm, port: port, by: "another program")
        case EADDRNOTAVAIL:
            throw NetworkError.noAddress(vm: vm, port: port, address: forward.address.description)
        // No IPv6 here, or no privilege: whoever opens the port will say so.
        default: break
        }
    }
}

/// A port of the host as it is taken.
private struct PortUse: Hashable {
    let address: IPAddress
    let port: UInt16
    let transport: TransportProtocol

    init(_ forward: PortForward) {
        address = forward.address.isAny ? .any : forward.address
        port = forward.host
        transport = forward.transport
    }
}

extension PortForward {
    /// The addresses of the host that it takes the port of.
    fileprivate var listened: [SocketAddress] {
        if address.isAny {
            return [.v4(0, port: host), .v6(high: 0, low: 0, port: host)]
        }
        switch address {
        case .v4(let address): return [.v4(address.value, port: host)]
        case .v6(let address): return [.v6(high: address.high, low: address.low, port: host)]
        }
    }
}

// MARK: - What the kernel cannot forward

/// A port of the host's loopback that a process has to forward.
struct RelayedPort: Hashable {
    let listen: SocketAddress
    let transport: TransportProtocol
    let address: IPv4
    let port: UInt16
}

/// The ports of a VM that need a relay; pure.
func relayedPorts(of vm: VM, _ settings: NetworkSettings) -> [RelayedPort] {
    guard let main = vm.mainInterface else { return [] }
    let interface = vm.interfaces[main]
    let isBridged = settings.network(interface.network)?.kind == .bridge
    return vm.ports.flatMap { forward -> [RelayedPort] in
        func relay(_ listen: SocketAddress, _ address: IPv4, _ port: UInt16) -> RelayedPort {
            RelayedPort(
                listen: listen, transport: forward.transport, address: address, port: port)
        }
        let (v4, v6) = (
            SocketAddress.loopback4(forward.host), SocketAddress.loopback6(forward.host)
        )
        let loopback = IPv4(0x7F00_0001)
        switch forward.address {
        case let address where address.isAny:
            guard isBridged, let guest = interface.address else {
                return [relay(v6, loopback, forward.host)]
            }
            return [relay(v4, guest, forward.guest), relay(v6, guest, forward.guest)]
        case .v4(loopback):
            guard isBridged, let guest = interface.address else { return [] }
            return [relay(v4, guest, forward.guest)]
        case .v6(IPv6(high: 0, low: 1)):
            return interface.address.map { [relay(v6, $0, forward.guest)] } ?? []
        default: return []
        }
    }
}

extension Engine {
    /// Starts the process that forwards what the kernel cannot, if the VM needs one; it ends with
    /// the supervisor.
    func startRelay(_ vm: VM, supervisor: borrowing Descriptor) async throws {
        let fleet = try store.record(vm.name)?.fleet
        let settings = try fleet.map { try store.networkSettings($0) } ?? NetworkSettings()
        let ports = relayedPorts(of: vm, settings)
        guard !ports.isEmpty else { return }
        var program = Program("/proc/self/exe")
        program.name = "martlet"
        program.environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        program.folder = "/"
        program.newSession = true
        // Not the VM's own: the rules for that one close the host's loopback.
        program.user = isRoot ? Derived.helper : nil
        program.group = program.user
        program.descriptors = [3: supervisor.raw]
        program.arguments = Engine.relayWords(vm.name, layout.root)
        var sockets: [Int32] = []
        defer { for socket in sockets { close(socket) } }
        for port in ports {
            let socket: Descriptor
            do throws(SystemError) {
                socket = try Relay.listen(port.transport, at: port.listen)
            } catch {
                // A host without IPv6 has no `::1` to forward from.
                if [EAFNOSUPPORT, EADDRNOTAVAIL].contains(error.code) { continue }
                reporter.warning(
                    "port \(port.listen.port) of the host's own loopback is not forwarded to "
                        + "\(vm.name): \(error.reason)")
                continue
            }
            let number = Int32(4 + sockets.count)
            program.descriptors[number] = socket.raw
            sockets.append(socket.release())
            program.arguments.append(
                Relay.Route(
                    socket: number, transport: port.transport, to: port.address, port.port
                ).word)
        }
        guard !sockets.isEmpty else { return }
        program = program.inScope("martlet-relay-\(vm.name)", of: "Ports of the microVM \(vm.name)")
        // It is the child of init from the moment we leave.
        close(try program.spawn().pidfd)
    }

    /// Ends a VM's relay, which its command line names, and starts one for the ports of now.
    func restartRelay(_ vm: VM) async throws {
        let words = Engine.relayWords(vm.name, layout.root)
        for process in RunningProcess.all(where: { $0.dropFirst().starts(with: words) }) {
            process.signal(SIGTERM)
            _ = process.ended(within: 3000)
        }
        guard let pid = await observer.observe(vm.name).observation.status?.supervisorPid else {
            return
        }
        try await startRelay(vm, supervisor: try ProcessHandle.open(pid))
    }

    /// What tells a VM's relay from all other processes.
    private static func relayWords(_ vm: String, _ root: String) -> [String] {
        ["__relay", "--", vm, Derived.rootID(root)]
    }
}
