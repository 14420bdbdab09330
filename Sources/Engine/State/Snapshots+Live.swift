// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors
import Linux
import Storage
import Supervisor

extension ControlClient {
    /// Sends one QMP command and returns what it returned.
    func hypervisor(_ command: QMP.Command, timeout: Double = 30) async throws -> JSONValue {
        try await hypervisor(command.name, command.arguments, timeout: timeout)
    }

    /// Seconds for a snapshot inside a qcow2 file to be made or dropped: it writes a count for every
    /// cluster of the disk, and whoever gave up before would take it for one that was never made.
    static var longWork: Double { 600 }
}

extension Engine {
    /// Makes the parts of a snapshot while the guest runs, all at one moment.
    ///
    /// Inside qcow2 files and for whole copies the hypervisor's transaction is that moment. Files
    /// that share blocks are made by us, so the guest is paused as well, which makes the hypervisor
    /// write out what it has in memory.
    func takeLive(
        _ record: inout SnapshotRecord, _ client: ControlClient, _ files: VMLayout
    ) async throws {
        let wanted = record
        let disks = files.disks(of: record.generation.vm)
        let outside = record.disks.filter { $0.mechanism == .reflink || $0.mechanism == .zfs }
        let copies = try await openCopies(of: record, disks, client, files)
        let actions =
            record.disks.filter { $0.mechanism == .internal }
            .map { QMP.BlockAction.snapshot(node: "disk-\($0.name)", tag: wanted.tag) }
            + copies.map(\.action)
        reporter.working(files.name, "keeping the content of its disks")
        Checkpoint.pass()
        let stillness = try await client.holding(pause: !outside.isEmpty, limit: 60) {
            if !actions.isEmpty {
                _ = try await client.hypervisor(
                    .transaction(actions), timeout: ControlClient.longWork)
            }
            for part in outside where part.mechanism == .reflink {
                guard let disk = disks.first(where: { $0.name == part.name }) else { continue }
                let target = "\(files.snapshotFiles(wanted.name))/\(part.place)"
                try await share(disk.path, as: target)
            }
            try await takeZVolumes(wanted, disks)
        }.stillness
        // A transaction is one moment by itself; files that we read one after the other are not.
        guard stillness.wasHeld || outside.isEmpty else {
            throw SnapshotError.notHeld(
                vm: files.name, reason: stillness.reason ?? "it was let go too early")
        }
        Checkpoint.pass()
        try await finish(copies, client, files)
        for copy in copies { try take(copy, to: files.snapshotFiles(wanted.name), files) }
        record.consistency = stillness.isFrozen ? .frozen : .crash
        record.why = stillness.isFrozen ? nil : stillness.reason
    }

    private func openCopies(
        of record: SnapshotRecord, _ disks: [VMDisk], _ client: ControlClient, _ files: VMLayout
    ) async throws -> [DiskCopy] {
        let copied = record.disks.filter { $0.mechanism == .copy }
        return try await openCopies(
            of: disks.filter { disk in copied.contains { $0.name == disk.name } }, client, files)
    }

    func takeZVolumes(_ record: SnapshotRecord, _ disks: [VMDisk]) async throws {
        let names = record.disks.filter { $0.mechanism == .zfs }.map(\.name)
        let volumes = disks.filter { names.contains($0.name) }
            .compactMap { ZVolume(device: $0.path) }
        if volumes.isEmpty { return }
        try await command(ZVolume.take(volumes, record.tag))
    }

    /// Runs a host's own tool.
    func command(_ words: [String]) async throws {
        guard let path = findProgram(words[0]) else {
            throw StoreError.missingTool(
                name: words[0], package: words[0] == "zfs" ? "zfsutils-linux" : "qemu-utils")
        }
        let output = try await Program(path, Array(words.dropFirst())).capture()
        guard output.exit.isSuccess else {
            throw StoreError.failed(
                what: words.joined(separator: " "),
                reason: output.errorText.isEmpty ? "\(output.exit)" : output.errorText)
        }
    }
}
