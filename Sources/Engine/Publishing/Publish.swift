// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux
import Planning
package import Publishing

/// Published VMs: one Caddy for all fleets below ROOT, made as the VMs that are there need it.
///
/// Whether a VM answers is Caddy's to find out, so that a VM that stops, dies or comes back changes
/// nothing here; a start only sees to it that Caddy runs, and knows the VM's address of today.
extension Engine {
    package var proxy: CaddyServer {
        CaddyServer(
            lasting: layout.publishing, run: layout.publishingRun,
            user: isRoot ? Derived.proxy : nil, name: Derived.rootID(layout.root))
    }

    /// Takes over what a fleet publishes, gets the certificates that are missing, and makes the
    /// reverse proxy serve it; says of each VM what came of that, and nothing where all is as it was.
    package func publish(_ fleet: Fleet) async -> [Outcome] {
        let start = Clock.monotonic()
        let declared = fleet.vms.filter { $0.enable && !$0.publish.isEmpty }
        do {
            let before = try store.publishingRecord(fleet.name)
            guard before != nil || !declared.isEmpty else { return [] }
            let found = try declarePublishing(of: fleet)
            let names = fleet.vms.filter(\.enable).map(\.name)
            var problems = found
            problems += await obtainCertificates(isForced: true)
            let (change, more) = try await applyPublishing()
            problems += more
            let old = Set(before?.isDown == true ? [] : before?.hosts ?? [])
            return names.compactMap { name in
                outcome(
                    name, problems.filter { $0.vm == name }.map(\.error), change, old, start)
            }
        } catch {
            return declared.filter { (try? store.current($0.name)) != nil }.map {
                outcome($0.name, since: start, .failure(error))
            }
        }
    }

    private func outcome(
        _ vm: String, _ problems: [PublishError], _ change: CaddyServer.Change, _ old: Set<String>,
        _ start: UInt64
    ) -> Outcome? {
        if let first = problems.first {
            return outcome(
                vm, since: start, .failure(problems.count == 1 ? first : Several(problems)))
        }
        guard change == .started || change == .loaded,
            let fleet = try? store.fleet(of: vm), let applied = (try? store.current(vm))??.vm,
            let settings = (try? store.publishingSettings(fleet)) ?? nil
        else { return nil }
        let new = applied.publish.filter {
            change == .started || !old.contains($0.host.lowercased())
        }
        guard !new.isEmpty else { return nil }
        let urls = new.map { $0.url(settings.ports) }.joined(separator: ", ")
        return outcome(vm, since: start, .success("published as \(urls)"))
    }

    private func outcome(
        _ vm: String, since start: UInt64, _ result: Result<String, any Error>
    ) -> Outcome {
        let outcome = Outcome(
            vm: vm, action: "publish", seconds: Double(Clock.monotonic() - start) / 1e9,
            result: result)
        reporter.finished(vm, ok: outcome.ok, outcome.detail)
        return outcome
    }

    /// Makes the reverse proxy as the records say, when there are any; warns of what fails.
    ///
    /// `starting` is a VM that a person started: its fleet is not down any more.
    func refreshPublishing(starting name: String? = nil) async {
        guard Files.exists(layout.publishing) else { return }
        do {
            if let name, let fleet = try store.fleet(of: name) {
                try changePublishingRecord(fleet) { $0.isDown = false }
            }
            for problem in try await applyPublishing().problems {
                reporter.warning(problem.error.description)
            }
        } catch {
            reporter.warning("published names: \(sentence(error))")
        }
    }

    /// Makes the reverse proxy serve what a VM publishes as it is applied now, after a run that may have
    /// changed that, and also when that run failed.
    func publishing<T>(_ name: String, after run: () async throws -> T) async throws -> T {
        do {
            let result = try await run()
            await republish(name)
            return result
        } catch {
            // Who interrupts wants an end; the clock sees to what is left.
            if !isInterruption(error) { await republish(name) }
            throw error
        }
    }

    private func republish(_ name: String) async {
        do {
            if let fleet = try store.fleet(of: name), let vm = try store.current(name)?.vm {
                if let record = try store.publishingRecord(fleet) {
                    for problem in try claimNames(record, of: fleet) where problem.vm == name {
                        reporter.warning(problem.error.description)
                    }
                } else if !vm.publish.isEmpty {
                    reporter.warning("'martlet up' publishes the names of \(name) again")
                }
            }
        } catch {
            reporter.warning("published names: \(sentence(error))")
        }
        await refreshPublishing()
    }

    /// What the clock does: certificates that end soon are renewed, those that others have renewed
    /// are loaded, and a reverse proxy that was killed is started again.
    func renewPublishing() async -> [Outcome] {
        guard Files.exists(layout.publishing) else { return [] }
        let start = Clock.monotonic()
        let problems = await obtainCertificates(isForced: false)
        do {
            // What is wrong with one name is not said each minute: `up` and `status` say it.
            try await applyPublishing()
        } catch {
            reporter.warning("published names: \(sentence(error))")
        }
        return problems.map { outcome($0.vm, since: start, .failure($0.error)) }
    }

    /// Takes the sites of a fleet away until the next `up` or `start`.
    package func withdrawPublishing(of fleet: String) async {
        guard Files.exists(layout.publishingRecord(fleet)) else { return }
        do {
            try changePublishingRecord(fleet) { $0.isDown = true }
        } catch {
            reporter.warning("published names: \(sentence(error))")
        }
        await refreshPublishing()
    }

    /// Makes the running Caddy serve what is published now.
    @discardableResult
    func applyPublishing() async throws -> (change: CaddyServer.Change, problems: [SiteProblem]) {
        try await blocking { [self] in
            try Files.makeFolder(layout.publishing)
            let lock = try FileLock.wait(layout.publishingLock)
            let published = try gatherSites(installing: true)
            Checkpoint.pass()
            let change = try proxy.apply(
                Caddy(published.sites, published.settings, proxy.folders))
            Checkpoint.pass()
            if change != .none { try removeStaleCertificates(besides: published.sites) }
            _ = consume lock
            return (change, published.problems)
        }
    }

    // MARK: - Records

    private func changePublishingRecord(
        _ fleet: String, _ change: (inout PublishingRecord) -> Void
    ) throws {
        guard let old = try store.publishingRecord(fleet) else { return }
        var new = old
        change(&new)
        guard new != old else { return }
        try RecordFile.write(new, to: layout.publishingRecord(fleet))
        Checkpoint.pass()
    }

    /// The names that a VM of a fleet has as it is applied; none when it is not there.
    private func namesPublished(by vm: String, in fleet: String) throws -> [String] {
        guard try store.fleet(of: vm) == fleet else { return [] }
        return (try store.current(vm)?.vm.publish ?? []).map { $0.host.lowercased() }
    }

    /// Writes down what a fleet publishes.
    private func declarePublishing(of fleet: Fleet) throws -> [SiteProblem] {
        // By itself: the mode is that of all parents that are made, and Caddy has to pass this one.
        try Files.makeFolder(layout.publishing)
        try Files.makeFolder(layout.publishingFleets, mode: 0o700)
        let vms = fleet.vms.filter(\.enable).map(\.name).sorted()
        return try claimNames(
            PublishingRecord(settings: fleet.publishing, vms: vms, hosts: []), of: fleet.name)
    }

    /// Writes a fleet's record down with the names that its VMs have as they are applied, but for those
    /// that another fleet has.
    private func claimNames(
        _ record: PublishingRecord, of fleet: String
    ) throws -> [SiteProblem] {
        let taken = try namesOfOthers(than: fleet, record.settings)
        var hosts: [String] = []
        var problems: [SiteProblem] = []
        for name in record.vms {
            for host in try namesPublished(by: name, in: fleet) {
                if let other = taken[host] {
                    problems.append(.init(name, .hostTaken(host: host, fleet: other)))
                } else {
                    hosts.append(host)
                }
            }
        }
        if hosts.isEmpty {
            try Files.remove(layout.publishingRecord(fleet))
            return problems
        }
        var record = record
        record.hosts = hosts.sorted()
        if try store.publishingRecord(fleet) != record {
            try RecordFile.write(record, to: layout.publishingRecord(fleet))
            Checkpoint.pass()
        }
        return problems
    }

    /// The names that other fleets have, and which has it; all of them must listen on the same ports.
    private func namesOfOthers(
        than fleet: String, _ settings: Publishing
    ) throws -> [String: String] {
        var taken: [String: String] = [:]
        for other in try store.publishingFleets() where other != fleet {
            guard let record = try store.publishingRecord(other) else { continue }
            // Names of VMs that are not there any more are free, whatever was written down.
            let hosts = try record.vms.flatMap { try namesPublished(by: $0, in: other) }
                .filter { record.hosts.contains($0) }
            if hosts.isEmpty { continue }
            guard record.settings.listen == settings.listen else {
                throw PublishError.otherListen(fleet: other, listen: record.settings.listen)
            }
            for host in hosts { taken[host] = other }
        }
        return taken
    }
}

/// What is wrong with one name, of the VM that has it.
struct SiteProblem: Sendable {
    let vm: String
    let error: PublishError

    init(_ vm: String, _ error: PublishError) {
        self.vm = vm
        self.error = error
    }
}

private struct Several: Error, CustomStringConvertible {
    let all: [PublishError]
    init(_ all: [PublishError]) { self.all = all }
    var description: String { all.map(\.description).joined(separator: "; ") }
}
