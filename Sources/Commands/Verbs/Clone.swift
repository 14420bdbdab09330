// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Planning

/// `clone`: another VM with the same data and an identity of its own.
enum CloneVerb {
    static let source = Key<String>.argument(
        "SRC", "The VM to copy, running or not.", candidates: .vms)
    static let destination = Key<String>.argument("DST", "The name of the new VM.")

    static let command = Command(
        "clone", "Make a new VM with copies of another one's disks.",
        discussion: """
            The new VM has the source's configuration and data, and its own machine id, SSH host \
            key, UUID, MAC and host name. What two VMs cannot both have is left out and named: \
            ports of the host, published names, addresses, shares, devices, schedules. It is \
            recorded as an override, so 'martlet up' keeps it, and it does not start by itself.
            """,
        parameters: [source, destination],
        examples: [
            .init("martlet clone web web-test", "Then 'martlet start web-test' starts it.")
        ]
    ) { arguments in
        let session = try Session(arguments)
        let target = try await session.target(arguments[source]).vm.name
        try await make(arguments[destination], of: target, at: nil, session)
    }

    /// Makes a VM from another one, as it is or as it was at a snapshot.
    static func make(
        _ name: String, of source: String, at snapshot: String?, _ session: Session
    ) async throws {
        // A VM has to be declared somewhere: without a fleet file, 'up' would not know it.
        if try session.fleet().vm(name) != nil {
            throw Failure(.failed, "the fleet declares a VM '\(name)' already")
        }
        let added = try await session.engine.newVM(from: source, at: snapshot, named: name)
        let new = added.read(in: try session.fleet(adding: added))
        try await session.act(snapshot == nil ? "clone" : "restore", on: [name]) { engine, name in
            let cloned = try await engine.clone(source, at: snapshot, as: new)
            let fleet = try session.fleet()
            if let vm = fleet.vm(name) { try await engine.adopt(vm, of: fleet) }
            return cloned.detail(name: name, source: source, snapshot: snapshot)
        }
    }
}

extension Cloned {
    func detail(name: String, source: String, snapshot: String?) -> String {
        var parts = [
            snapshot.map { "made from the snapshot '\($0)' of \(source)" }
                ?? "cloned from \(source)"
        ]
        if consistency == .crash {
            parts.append(
                "its data is as after a power cut: \(why ?? "nothing is known of its state")")
        }
        if !dropped.isEmpty { parts.append("without \(dropped.joined(separator: ", "))") }
        parts.append("'martlet start \(name)' starts it")
        return parts.joined(separator: "; ")
    }
}
