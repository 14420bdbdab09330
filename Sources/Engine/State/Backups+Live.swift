// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Hypervisors
import Linux
import Storage
import Supervisor

extension ControlClient {
    /// Asks the hypervisor for one thing.
    @discardableResult
    fileprivate func ask(_ command: QMP.Command) async throws -> JSONValue {
        try await hypervisor(command.name, command.arguments)
    }
}

extension VMLayout {
    /// Takes what a guest overwrites while its disk is backed up; `.new` makes it garbage for
    /// whoever comes after a kill, and the name tells him that the hypervisor may have it open.
    fileprivate func store(_ disk: VMDisk) -> String { "\(disks)/\(storePrefix)\(disk.name).new" }
    fileprivate var storePrefix: String { "before-" }
}

/// The disks of a running guest at one moment.
private struct Picture: Sendable {
    /// Seconds since 1970.
    let moment: Int64
    /// What was in use then, in the order of the disks.
    let allocations: [ExtentMap]
}

extension Engine {
    /// Backs up the disks of a running guest as they are at one moment.
    func backUpLive(_ job: BackupJob, _ client: ControlClient) async throws -> BackupRecord {
        do {
            return try await readLive(job, client)
        } catch {
            let failure = error
            // Also when it was interrupted: the guest must not go on paying for it.
            await Task {
                do {
                    try await endPicture(client, job.files)
                    _ = try await settleBitmaps(job, client)
                } catch {
                    reporter.warning(
                        "what the backup of \(job.files.name) left in its hypervisor is removed "
                            + "by the next one: \(sentence(error))")
                }
            }.value
            throw failure
        }
    }

    private func readLive(_ job: BackupJob, _ client: ControlClient) async throws -> BackupRecord {
        try await endPicture(client, job.files)
        let disks = try await settleBitmaps(job, client)
        let socket = try NBDSocket("\(job.files.sockets)/nbd.sock")
        try await openPictures(disks, job, on: socket.path, client)
        let (picture, stillness) = try await freezePicture(
            disks, job, on: socket.path, client)
        guard stillness.wasHeld else {
            throw BackupError.failed(
                "\(job.files.name) could not be held still long enough: "
                    + (stillness.reason ?? "its supervisor let it go"))
        }
        Checkpoint.pass()
        let moment = picture.moment
        let sources = zip(disks, picture.allocations).map { disk, allocation in
            DiskSource(
                name: disk.disk.name, socket: socket.path,
                export: BackupNodes.picture(disk.disk.name), bitmap: disk.plan.base,
                allocation: allocation)
        }
        let record = try await archive(
            job, disks, sources, at: moment, stillness.isFrozen ? .frozen : .crash,
            why: stillness.isFrozen ? nil : stillness.reason
        ) {
            try await endPicture(client, job.files)
            socket.close()
        }
        Checkpoint.pass()
        try commit(job, record, disks)
        Checkpoint.pass()
        let old = disks.compactMap { disk in
            disk.plan.base.map { QMP.BitmapAction.remove(node: disk.disk.node, name: $0) }
        }
        // The next backup removes them as well.
        if !old.isEmpty { _ = try? await client.ask(.bitmaps(old)) }
        return record
    }

    /// Sorts out what earlier backups left of bitmaps, and says how each disk will be read.
    private func settleBitmaps(
        _ job: BackupJob, _ client: ControlClient
    ) async throws -> [BackupDisk] {
        let nodes = QMP.Node.read(try await client.ask(.blockNodes))
        var actions: [QMP.BitmapAction] = []
        let disks = try job.disks.map { disk in
            guard let node = nodes.first(where: { $0.name == disk.node }) else {
                throw BackupError.failed(
                    "the hypervisor of \(job.files.name) has no disk '\(disk.name)': it was "
                        + "declared after the start; 'martlet restart \(job.files.name)'")
            }
            let found = node.bitmaps.map {
                DirtyBitmap(
                    name: $0.name, isRecording: $0.isRecording, isInconsistent: $0.isInconsistent)
            }
            let plan = job.plan(disk, found, bytes: node.bytes)
            if let base = plan.base, plan.enable {
                actions.append(.enable(node: disk.node, name: base))
                if !plan.merge.isEmpty {
                    actions.append(.merge(node: disk.node, others: plan.merge, into: base))
                }
            }
            actions += plan.remove.map { .remove(node: disk.node, name: $0) }
            return BackupDisk(disk: disk, bytes: node.bytes, plan: plan)
        }
        if !actions.isEmpty { try await client.ask(.bitmaps(actions)) }
        return disks
    }

    /// Makes all that can be made before the moment comes.
    private func openPictures(
        _ disks: [BackupDisk], _ job: BackupJob, on socket: String, _ client: ControlClient
    ) async throws {
        try await client.ask(.startNBD(socket: socket))
        for disk in disks where !disk.disk.readOnly {
            let path = job.files.store(disk.disk)
            try Files.remove(path)
            try Files.makeSparse(path, bytes: disk.bytes)
            if let user = job.user { try Files.setOwner(path, user: user, group: user) }
            Checkpoint.pass()
            try await client.ask(.openStore(of: disk.disk.name, path: path))
            try await client.ask(.openFilter(of: disk.disk.name, node: disk.disk.node))
            Checkpoint.pass()
        }
    }

    /// The moment: from here on what the guest overwrites is kept.
    ///
    /// New bitmaps begin before it and old ones end after it: a change between counts for both
    /// backups, and none is missed. All disks, and what of them is in use, are of one moment only
    /// when nothing is written meanwhile, so the CPUs are paused. What is in use must be asked for now:
    /// of what the guest discards later, QEMU 7.2 says that it was zero all the time.
    private func freezePicture(
        _ disks: [BackupDisk], _ job: BackupJob, on socket: String, _ client: ControlClient
    ) async throws -> (Picture, Stillness) {
        let written = disks.filter { !$0.disk.readOnly }
        return try await client.holding(pause: true, limit: 120) {
            let moment = Clock.now()
            let new = disks.filter(\.hasBitmap).map {
                QMP.BitmapAction.add(node: $0.disk.node, name: job.bitmap)
            }
            if !new.isEmpty { try await client.ask(.bitmaps(new)) }
            for disk in written {
                try await client.ask(
                    .setDrive(of: disk.disk.name, to: BackupNodes.filter(disk.disk.name)))
            }
            let old = disks.compactMap { disk in
                disk.plan.base.map { QMP.BitmapAction.disable(node: disk.disk.node, name: $0) }
            }
            if !old.isEmpty { try await client.ask(.bitmaps(old)) }
            try await serve(disks, client)
            let names = disks.map { BackupNodes.picture($0.disk.name) }
            let allocations = try await blocking {
                try names.map {
                    try NBDClient(socket: socket, export: $0, bitmap: nil).allocation()
                }
            }
            return Picture(moment: moment, allocations: allocations)
        }
    }

    private func serve(_ disks: [BackupDisk], _ client: ControlClient) async throws {
        for disk in disks {
            let name = disk.disk.name
            if !disk.disk.readOnly { try await client.ask(.openPicture(of: name)) }
            let node = disk.disk.readOnly ? disk.disk.node : BackupNodes.picture(name)
            try await client.ask(
                .export(
                    BackupNodes.picture(name), node: node,
                    bitmap: disk.plan.base.map { (disk.disk.node, $0) }))
        }
    }

    /// Lets the guest write to its disks as before; also what a killed run left.
    func endPicture(_ client: ControlClient, _ files: VMLayout) async throws {
        func names() async throws -> [String] {
            QMP.Node.read(try await client.ask(.blockNodes)).map(\.name)
        }
        func exports() async throws -> [String] {
            try await client.ask(.exports).elements.compactMap { $0["id"]?.string }
                .filter { $0.hasPrefix(BackupNodes.picture("")) }
        }
        let patience = Clock.monotonic() + 20_000_000_000
        while true {
            let left = try await exports()
            // It ends some time after it was asked to.
            for id in left { _ = try? await client.ask(.endExport(id)) }
            if left.isEmpty { break }
            guard Clock.monotonic() < patience else {
                throw BackupError.failed("the hypervisor of \(files.name) still serves its disks")
            }
            try await blocking { _ = usleep(10_000) }
        }
        // None runs when nothing was served.
        _ = try? await client.ask(.stopNBD)
        for node in try await names() where node.hasPrefix(BackupNodes.picture("")) {
            try await client.ask(.closeNode(node))
        }
        for node in try await names() where node.hasPrefix(BackupNodes.filter("")) {
            let disk = String(node.dropFirst(BackupNodes.filter("").count))
            // A killed run may not have come to use it, and QEMU ends when a drive is set to itself.
            if try await client.ask(.drive(of: disk)).string == node {
                try await client.ask(.setDrive(of: disk, to: "disk-\(disk)"))
            }
            try await client.ask(.closeNode(node))
        }
        for node in try await names() where node.hasPrefix(BackupNodes.store("")) {
            try await client.ask(.closeNode(node))
        }
        for name in try Files.list(files.disks) where name.hasPrefix(files.storePrefix) {
            try Files.remove("\(files.disks)/\(name)")
        }
    }

    /// Ends what a killed run was reading, where the files tell that there may be something.
    func endUnfinishedPicture(_ files: VMLayout) async {
        let names = (try? Files.list(files.disks)) ?? []
        guard names.contains(where: { $0.hasPrefix(files.storePrefix) }),
            let held = try? FileLock.isHeld(files.lock), held
        else { return }
        // One that does not answer cannot be asked; the next backup tries again.
        try? await endPicture(ControlClient(files.controlSocket), files)
    }
}

/// The path of a socket for another program, which may take no more than 107 bytes.
private final class NBDSocket {
    let path: String
    private let folder: String?

    init(_ wanted: String) throws {
        if wanted.utf8.count < 108 {
            (path, folder) = (wanted, nil)
            return
        }
        var template = Array("/tmp/martlet-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template).map({ String(cString: $0) }) else {
            throw SystemError("mkdtemp")
        }
        // The VM's user must pass; the link leads to a folder that is his.
        try Files.setMode(made, 0o711)
        try Files.link(Files.parent(wanted), at: "\(made)/s")
        folder = made
        path = "\(made)/s/\(Files.name(wanted))"
    }

    deinit { close() }

    func close() { if let folder { try? Files.remove(folder) } }
}
