// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors
import Linux
import Storage
import Supervisor

/// One disk of a running guest that its hypervisor copies to a file, as it was at one moment.
///
/// What the guest overwrites meanwhile is copied first, so it can go on writing.
struct DiskCopy: Sendable, Equatable {
    let disk: VMDisk
    /// The copy's node and job; no other node or job of a hypervisor of ours begins with `copy-`.
    let node: String
    /// In the VM's own folder of disks, where its hypervisor may write; `.new` makes it garbage
    /// for whoever comes after a kill.
    let path: String

    static let prefix = "copy-"

    var action: QMP.BlockAction { .copy(node: disk.node, to: node, job: node) }
}

extension Engine {
    /// Makes the files that are to be copied to, and lets the hypervisor open them.
    func openCopies(
        of disks: [VMDisk], _ client: ControlClient, _ files: VMLayout
    ) async throws -> [DiskCopy] {
        let user = try allocateUser(files.name)
        let run = randomHex(8)
        var copies: [DiskCopy] = []
        for (index, disk) in disks.enumerated() {
            let copy = DiskCopy(
                disk: disk, node: "\(DiskCopy.prefix)\(run)-\(index)",
                path: files.copyTarget(disk))
            try Files.remove(copy.path)
            let bytes = try await size(of: disk, user: user)
            if disk.format == .qcow2 {
                try await QCOW2File(copy.path, user: user).createEmpty(bytes: bytes)
            } else {
                try Files.makeSparse(copy.path, bytes: bytes)
                if let user { try Files.setOwner(copy.path, user: user, group: user) }
            }
            _ = try await client.hypervisor(
                .openTarget(node: copy.node, path: copy.path, format: disk.format.rawValue))
            copies.append(copy)
        }
        return copies
    }

    private func size(of disk: VMDisk, user: UInt32?) async throws -> Int64 {
        disk.format == .qcow2
            ? try await QCOW2File(disk.path, user: user).info().size
            : try Files.status(disk.path).size
    }

    /// Waits until all jobs are over, and closes their files.
    func finish(_ copies: [DiskCopy], _ client: ControlClient, _ files: VMLayout) async throws {
        var waiting = Set(copies.map(\.node))
        var shown = -1
        while !waiting.isEmpty {
            let jobs = QMP.Job.read(try await client.hypervisor(.jobs))
                .filter { waiting.contains($0.id) }
            guard jobs.count == waiting.count else {
                throw SnapshotError.failed("the hypervisor of \(files.name) lost a copy")
            }
            for job in jobs where job.isOver {
                _ = try await client.hypervisor(.dismissJob(job.id))
                waiting.remove(job.id)
                if let error = job.error {
                    throw SnapshotError.failed("a disk of \(files.name) was not copied: \(error)")
                }
            }
            let total = jobs.reduce(0) { $0 + $1.total }
            let percent = total > 0 ? Int(jobs.reduce(0) { $0 + $1.done } * 100 / total) : 0
            if percent / 5 != shown, !waiting.isEmpty {
                shown = percent / 5
                reporter.working(files.name, "copying its disks: \(percent) %")
            }
            if !waiting.isEmpty { try await Task.sleep(for: .milliseconds(50)) }
        }
        for copy in copies { _ = try await client.hypervisor(.closeTarget(node: copy.node)) }
    }

    /// Moves a finished copy out of the reach of the VM's user.
    ///
    /// A rename moves a link as it is and never what it points to; what is no plain file of that
    /// user's was not written by the hypervisor, and is refused.
    @discardableResult
    func take(
        _ copy: DiskCopy, to folder: String, _ files: VMLayout
    ) throws -> String {
        let target = "\(folder)/\(copy.disk.name).\(copy.disk.format.rawValue)"
        try Files.makeFolder(folder, mode: 0o700)
        try moveOut(copy.path, to: target)
        return target
    }

    func moveOut(_ path: String, to target: String) throws {
        try Files.rename(path, target)
        guard try Files.isOnlyName(target) else {
            try Files.remove(target)
            throw SnapshotError.failed("\(path) was not what the hypervisor had written")
        }
        if isRoot { try Files.setOwner(target, user: 0, group: 0) }
        try Files.sync(target)
    }

    /// Ends the copies of a run that was killed.
    func abandonCopies(_ client: ControlClient) async throws {
        func ours(_ name: String?) -> Bool { name?.hasPrefix(DiskCopy.prefix) == true }
        for _ in 0..<200 {
            let jobs = QMP.Job.read(try await client.hypervisor(.jobs)).filter { ours($0.id) }
            if jobs.isEmpty { break }
            for job in jobs {
                // It may have ended between the two: then the next look finds it over.
                _ = try? await client.hypervisor(
                    job.isOver ? .dismissJob(job.id) : .cancelJob(job.id))
            }
            try await Task.sleep(for: .milliseconds(20))
        }
        let nodes = try await client.hypervisor(.nodes).elements.compactMap {
            $0["node-name"]?.string
        }
        for node in nodes where ours(node) {
            _ = try await client.hypervisor(.closeTarget(node: node))
        }
    }
}

extension Engine {
    /// Ends the copies of a killed run, where the files tell that there may be some.
    func abandonUnfinishedCopies(_ files: VMLayout) async {
        let names = ((try? Files.list(files.disks)) ?? [])
            .filter { $0.hasPrefix(DiskCopy.prefix) && $0.hasSuffix(".new") }
        if names.isEmpty { return }
        // One that does not answer cannot be asked; it goes on writing to a file without a name.
        if (try? FileLock.isHeld(files.lock)) == true {
            // Also when this run is being interrupted.
            let isDone = await Task {
                (try? await abandonCopies(ControlClient(files.controlSocket))) != nil
            }.value
            // The files tell the next change that there is something to end.
            guard isDone else { return }
        }
        for name in names { try? Files.remove("\(files.disks)/\(name)") }
    }
}
