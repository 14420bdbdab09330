// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Planning
import Supervisor

extension Engine {
    /// Looks at the processes of a running VM; notRunning for one that does not run.
    package func security(of name: String) async throws -> SecurityReport {
        let report = await observer.observe(name)
        guard report.vm.phase.isLive, let run = report.run else {
            throw LifecycleError.notRunning(vm: name, phase: report.vm.phase.rawValue)
        }
        let files = layout.vm(name)
        let vm = report.vm.running.flatMap { try? store.generation(name, $0.number) }??.vm
        let control = ControlGroups.find()
        let ours = ProcessFacts.namespaces(of: "self")
        var rows: [SecurityReport.Row] = []
        for (process, pid) in [("supervisor", run.supervisorPid), ("hypervisor", run.pid ?? 0)] {
            guard pid > 0, let facts = verified(pid, files, control) else {
                rows.append(
                    .init(
                        process: process, pid: pid, item: "process", holds: nil,
                        detail: "none that holds the VM's lock can be looked at"))
                continue
            }
            let judge = SecurityJudge(
                process: process, facts: facts, ours: ours, sharedUser: isRoot ? nil : geteuid())
            rows += judge.rows
            if let vm {
                let limits = ProcessView.Limits(of: vm, files)
                rows += judge.limits(limits, control, devices: Self.disks(of: vm, limits))
                rows += settings(of: vm, files, judge)
            }
        }
        for (process, facts) in shareProcesses(name, control) {
            rows +=
                SecurityJudge(
                    process: process, facts: facts, ours: ours,
                    sharedUser: isRoot ? nil : geteuid()
                ).rows
        }
        return SecurityReport(vm: name, rows: rows)
    }

    /// What the kernel says of a process that the VM's records name, once it is certain that it is
    /// the VM's: the records are its own user's, who may write any number there.
    private func verified(
        _ pid: Int32, _ files: VMLayout, _ control: ControlGroups
    ) -> ProcessFacts? {
        // While this is held the number belongs to no other process.
        guard let handle = try? ProcessHandle.open(pid) else { return nil }
        defer { withExtendedLifetime(handle.raw) {} }
        guard let facts = ProcessFacts.read(pid, control),
            facts.user == (try? allocateUser(files.name)) ?? geteuid()
        else { return nil }
        var lock = stat()
        guard stat(files.lock, &lock) == 0 else { return nil }
        for number in (try? Files.list("/proc/\(pid)/fd")) ?? [] {
            var info = stat()
            if stat("/proc/\(pid)/fd/\(number)", &info) == 0, info.st_ino == lock.st_ino,
                info.st_dev == lock.st_dev
            {
                return facts
            }
        }
        return nil
    }

    /// The settings that a VM asks for and that only a service manager holds.
    private func settings(
        of vm: VM, _ files: VMLayout, _ judge: SecurityJudge
    ) -> [SecurityReport.Row] {
        guard case .custom = vm.hardening.confine,
            // Of units those of the host's systemd alone hold them.
            !isRoot || judge.facts.groups?.contains(".service\n") != true,
            let view = try? processView(vm, files),
            let confined = try? Confined(view, stage: files.run)
        else { return [] }
        return confined.notHeld.map {
            judge.row($0.name, false, "\($0.value): \(ProcessView.Setting.holder) holds it")
        }
    }

    /// The keeper of a VM's shares and all that it started.
    private func shareProcesses(
        _ name: String, _ control: ControlGroups
    ) -> [(String, ProcessFacts)] {
        let isKeeper = isKeeper(of: name)
        let own = (try? allocateUser(name)) ?? geteuid()
        let all = ((try? Files.list("/proc")) ?? []).compactMap { Int32($0) }
        var found: [(String, ProcessFacts)] = []
        for pid in all {
            let line = (try? Files.read("/proc/\(pid)/cmdline", limit: 1 << 20)) ?? []
            let given = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
            guard isKeeper(given),
                let facts = ProcessFacts.read(pid, control),
                [geteuid(), own].contains(facts.user)
            else { continue }
            found.append(("shares", facts))
        }
        var parents = Set(found.map(\.1.pid))
        guard !parents.isEmpty else { return [] }
        // Children have higher numbers than their parents, until those begin anew.
        for pid in all + all where !found.contains(where: { $0.1.pid == pid }) {
            guard let facts = ProcessFacts.read(pid, control), let parent = facts.parent,
                parents.contains(parent)
            else { continue }
            parents.insert(pid)
            found.append(("share", facts))
        }
        return found
    }
}
