// SPDX-License-Identifier: Apache-2.0
import Glibc
import Hypervisors
import Linux
import Storage

extension Engine {
    /// Backs up disks that nothing uses; the change lock keeps it so.
    func backUpStopped(_ job: BackupJob, why: String?) async throws -> BackupRecord {
        var disks: [BackupDisk] = []
        for disk in job.disks {
            let stopped = stoppedDisk(disk, user: job.user)
            guard Files.exists(disk.path) else {
                throw BackupError.failed("\(disk.path) is missing, so nothing can be backed up")
            }
            let info = try await stopped.info()
            let plan = job.plan(disk, info.bitmaps, bytes: info.size)
            if !plan.isEmpty { try await carryOut(plan, info.bitmaps, stopped) }
            disks.append(BackupDisk(disk: disk, bytes: info.size, plan: plan))
            Checkpoint.pass()
        }
        let servers = try disks.enumerated().map { index, disk in
            try stoppedDisk(disk.disk, user: job.user).serve(
                on: "\(job.files.path)/nbd-\(index).new", export: disk.disk.name,
                bitmap: disk.plan.base)
        }
        let sources = zip(disks, servers).map { disk, server in
            DiskSource(
                name: disk.disk.name, socket: server.socket, export: disk.disk.name,
                bitmap: disk.plan.base)
        }
        let record = try await archive(
            job, disks, sources, at: Clock.now(), why == nil ? .stopped : .crash, why: why
        ) {
            for server in servers { try await blocking { server.stop() } }
        }
        Checkpoint.pass()
        for disk in disks where disk.hasBitmap {
            try await stoppedDisk(disk.disk, user: job.user).addBitmap(job.bitmap)
            Checkpoint.pass()
        }
        try commit(job, record, disks)
        Checkpoint.pass()
        for disk in disks {
            guard let base = disk.plan.base else { continue }
            // The next backup removes it as well.
            try? await stoppedDisk(disk.disk, user: job.user).removeBitmap(base)
            Checkpoint.pass()
        }
        return record
    }

    /// Ends what serves the disks of a backup that was killed.
    ///
    /// Where nobody came to read, it would wait for ever and keep the disk to itself. Its socket tells
    /// that there may be one.
    func endUnfinishedServers(_ files: VMLayout) throws {
        let sockets = try Files.list(files.path)
            .filter { $0.hasPrefix("nbd-") && $0.hasSuffix(".new") }
        if sockets.isEmpty { return }
        let servers = RunningProcess.all { words in
            words.first.map { Files.name($0) } == "qemu-nbd"
                && words.last?.hasPrefix(files.disks + "/") == true
        }
        for server in servers {
            server.signal(SIGKILL)
            _ = server.ended(within: 5000)
        }
    }

    func stoppedDisk(_ disk: VMDisk, user: UInt32?) -> StoppedDisk {
        // A device belongs to the host, and its content names no files.
        StoppedDisk(
            path: disk.path, isQCOW2: disk.format == .qcow2,
            user: disk.format == .device ? nil : user)
    }

    private func carryOut(
        _ plan: BitmapPlan, _ found: [DirtyBitmap], _ disk: StoppedDisk
    ) async throws {
        if let base = plan.base, plan.enable {
            try await disk.mergeBitmaps(plan.merge, into: base)
            Checkpoint.pass()
        }
        for name in plan.remove { try await disk.removeBitmap(name) }
    }
}
