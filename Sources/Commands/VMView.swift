// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Hypervisors
import Linux
import Planning
import Supervisor

/// One VM as `list` and `status` show it: observed, with what its declaration adds.
struct VMView: Sendable {
    enum ImageState: String { case current, outdated, pending }

    let name: String
    let fleet: String?
    let phase: ObservedVM.Phase
    let health: Health
    let reason: String?
    /// The end of the log of one that failed.
    let lastLines: [String]
    /// What runs, else what the next start will use, else what is declared.
    let vm: VM?
    let imageDigest: String?
    /// Nil for a VM that has no image yet.
    let imageState: ImageState?
    let generation: Int?
    /// Why it keeps its image although there is another one.
    let imageHold: String?
    /// Its image waits for the first start.
    let isUntried: Bool
    let status: VMStatus?
    let pid: Int32?
    let startedAt: Int64?
    let accelerator: String?
    let addresses: [String]

    var isLive: Bool { phase.isLive }
    var image: String { vm?.image.title ?? "-" }
    var hypervisor: String { "qemu" }
    /// What a table says of the image when it is not the current one.
    var imageNote: String {
        imageState.map { $0 == .current ? "" : " (\($0))" } ?? ""
    }

    init(_ report: VMReport, declared: VM?, newest: String?, addresses: [String]) {
        let observed = report.vm
        name = observed.name
        fleet = observed.fleet
        phase = observed.phase
        health = report.observation.health
        reason = observed.reason
        let exit = report.observation.exit
        // Written by the supervisor, of which nothing is believed but that it is text.
        lastLines = (exit?.ending.isFailure == true ? exit?.lastLines ?? [] : [])
            .suffix(LastLines.most).map { String($0.prefix(400)) }
        let used = observed.running ?? observed.applied
        vm = used?.vm ?? declared
        imageDigest = used?.imageDigest
        generation = used?.number
        imageHold = newest.flatMap { newest in
            (declared ?? used?.vm).flatMap {
                observed.hold($0, against: .built(digest: newest))?.sentence(observed.name)
            }
        }
        isUntried = observed.upgrade == .untried
        status = report.observation.status
        pid = status?.pid
        startedAt = status?.startedAt ?? (phase.isLive ? report.run?.startedAt : nil)
        accelerator = (status?.accelerator ?? report.run?.accelerator)?.rawValue
        self.addresses = addresses
        imageState =
            if used == nil {
                nil
            } else if let running = observed.running, let applied = observed.applied,
                running.imageDigest != applied.imageDigest
            {
                .pending
            } else if let newest, let used, newest != used.imageDigest {
                .outdated
            } else {
                .current
            }
    }

    /// The object of `list --json`: every key is always there.
    var json: JSONValue {
        [
            "name": .string(name), "state": .string(phase.rawValue),
            "health": .string(health.rawValue), "image": .string(image),
            "imageDigest": .text(imageDigest), "imageState": .text(imageState?.rawValue),
            "hypervisor": .string(hypervisor), "accelerator": .text(accelerator),
            "machine": .string(vm?.machine == .microvm ? "microvm" : "q35"),
            "vcpu": vm.map { JSONValue($0.vcpu) } ?? .null,
            "memoryBytes": vm.map { JSONValue($0.memory.max.bytes) } ?? .null,
            "pid": pid.map { JSONValue($0) } ?? .null,
            "startedAt": .text(startedAt.map(Clock.iso8601)),
            "bootSeconds": status?.bootSeconds.map { .number(($0 * 1000).rounded() / 1000) }
                ?? .null,
            "addresses": .array(addresses.map(JSONValue.string)),
            "ports": .array(
                (vm?.ports ?? []).map { port in
                    [
                        "host": .string("\(port.address):\(port.host)"),
                        "guest": .string("\(port.guest)/\(port.transport.rawValue)"),
                    ]
                }),
            "restarts": JSONValue(status?.restarts ?? 0),
            "generation": generation.map { JSONValue($0) } ?? .null,
            "reason": .text(reason), "lastLines": .array(lastLines.map(JSONValue.string)),
        ]
    }
}

extension JSONValue {
    /// A string, or null.
    static func text(_ text: String?) -> JSONValue { text.map(JSONValue.string) ?? .null }
}

extension ImageReference {
    /// How lists name it.
    var title: String {
        switch self {
        case .named(let name): name
        case .inline(let recipe): recipe.from.map { "\($0)+" } ?? "inline"
        }
    }
}

extension Session {
    /// The named VMs, or all of the fleet with those that are declared and absent.
    func views(_ names: [String]) async throws -> [VMView] {
        let fleet = try fleetIfAny()
        let declared = Dictionary(
            (fleet?.vms ?? []).map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        var reports: [VMReport]
        if names.isEmpty || names.allSatisfy({ declared[$0] != nil }) {
            reports = try await engine.observer.observeAll().reports
                .filter {
                    // Also what belongs to no other fleet: throw-away VMs, and damaged ones.
                    fleet == nil || $0.vm.fleet == fleet?.name || declared[$0.vm.name] != nil
                        || $0.vm.fleet == nil && $0.vm.phase != .absent
                }
            for name in declared.keys where !reports.contains(where: { $0.vm.name == name }) {
                reports.append(await engine.observer.observe(name))
            }
            if !names.isEmpty { reports = reports.filter { names.contains($0.vm.name) } }
            reports.sort { $0.vm.name < $1.vm.name }
        } else {
            reports = try await targets(names)
        }
        return await withTaskGroup(of: VMView.self) { group in
            for report in reports {
                group.addTask { await view(report, declared: declared[report.vm.name], fleet) }
            }
            return await group.reduce(into: []) { $0.append($1) }.sorted { $0.name < $1.name }
        }
    }

    private func view(_ report: VMReport, declared: VM?, _ fleet: Fleet?) async -> VMView {
        var addresses: [String] = []
        if report.observation.status?.agent == true, report.vm.phase == .running {
            let client = ControlClient(engine.layout.vm(report.vm.name).controlSocket)
            // A guest that is too busy to answer has addresses all the same; we just do not know them.
            addresses = (try? await client.addresses(timeout: 2)) ?? []
        }
        let vm = declared ?? report.vm.applied?.vm
        let newest = vm.flatMap { engine.newestDigest(of: $0, in: fleet) }
        return VMView(report, declared: declared, newest: newest, addresses: addresses)
    }
}
