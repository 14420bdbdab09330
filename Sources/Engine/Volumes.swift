// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Planning
import Storage

/// What Martlet made of a VM's volumes: `volumes.json`.
///
/// A file does not say which file system is in it without being opened, and a device that was
/// being formatted looks as if it held somebody's data.
struct VolumeRecord: Codable, Equatable {
    static let version = 1
    var version = VolumeRecord.version
    /// The file system of each volume that is a file, as it was made; only while the file exists.
    var filesystems: [String: Filesystem] = [:]
    /// The devices that were found blank and are being formatted, by volume.
    var formatting: [String: String] = [:]
}

extension VMLayout {
    var volumeRecord: String { path + "/volumes.json" }
}

extension Engine {
    /// Makes the data volume and all further volumes as declared, and grows those that are too small.
    func prepareDisks(
        _ generation: GenerationRecord, _ files: VMLayout, user: UInt32?
    ) async throws {
        let vm = generation.vm
        try await checkVolumes(of: vm, files, running: nil)
        try makeFolder(files.disks, ownedBy: user)
        let data = Disk(path: files.dataVolume, format: .qcow2, user: user)
        try await makeDisk(
            data, .ext4, bytes: Int64(vm.disk.bytes), label: "data", user: user)
        for volume in vm.volumes {
            Checkpoint.pass()
            if let device = volume.device {
                try await prepare(BlockDevice(device), for: volume, files)
            } else if let size = volume.size {
                try await prepare(volume, bytes: Int64(size.bytes), files, user: user)
            }
        }
    }

    private func makeDisk(
        _ disk: Disk, _ filesystem: Filesystem, bytes: Int64, label: String, user: UInt32?
    ) async throws {
        try await disk.create(filesystem, bytes: bytes, label: label, uuid: randomUUID())
        // A copy may still be root's, and it is grown as its user.
        if let user { try Files.setOwner(disk.path, user: user, group: user) }
        try await disk.grow(to: bytes)
    }

    private func prepare(
        _ volume: Volume, bytes: Int64, _ files: VMLayout, user: UInt32?
    ) async throws {
        let format: Storage.DiskFormat = volume.format == .raw ? .raw : .qcow2
        let disk = Disk(path: files.volume(volume), format: format, user: user)
        if !disk.exists {
            reporter.working(files.name, "making the volume \(volume.name)")
            var record = try volumeRecord(files)
            record.filesystems[volume.name] = volume.filesystem
            try RecordFile.write(record, to: files.volumeRecord)
            Checkpoint.pass()
        }
        try await makeDisk(
            disk, volume.filesystem, bytes: bytes, label: volume.name, user: user)
    }

    /// Formats a device that is blank; what is on any other stays.
    private func prepare(
        _ device: BlockDevice, for volume: Volume, _ files: VMLayout
    ) async throws {
        var record = try volumeRecord(files)
        guard try await isToFormat(device, for: volume, record) else {
            if record.formatting.removeValue(forKey: volume.name) != nil {
                try RecordFile.write(record, to: files.volumeRecord)
            }
            return
        }
        reporter.working(files.name, "formatting \(device.path)")
        record.formatting[volume.name] = device.path
        try RecordFile.write(record, to: files.volumeRecord)
        Checkpoint.pass()
        try await device.make(volume.filesystem, label: volume.name, uuid: randomUUID())
        Checkpoint.pass()
        record.formatting[volume.name] = nil
        try RecordFile.write(record, to: files.volumeRecord)
    }

    /// The same for what a step of a plan is going to change.
    func checkVolumes(_ step: Plan.Step, of fleet: Fleet) async throws {
        guard !step.actions.contains(.stop), let vm = fleet.vm(step.vm), !vm.volumes.isEmpty
        else { return }
        let observed = await observer.observe(step.vm).vm
        try await checkVolumes(
            of: vm, layout.vm(step.vm), running: observed.phase.isLive ? observed.running?.vm : nil)
    }

    /// Refuses volumes that cannot be used as declared, before anything is changed.
    ///
    /// What a VM that runs has open already is left alone: nobody else can have taken it.
    func checkVolumes(of vm: VM, _ files: VMLayout, running: VM?) async throws {
        guard !vm.volumes.isEmpty else { return }
        let record = try volumeRecord(files)
        for volume in vm.volumes {
            guard let path = volume.device else {
                try checkFile(of: volume, files, record)
                continue
            }
            if running?.volumes.contains(where: { $0.device == path }) == true { continue }
            if try await isToFormat(BlockDevice(path), for: volume, record) {
                try checkTools(for: volume.filesystem)
            }
        }
    }

    private func checkFile(
        of volume: Volume, _ files: VMLayout, _ record: VolumeRecord
    ) throws {
        var other = volume
        other.format = volume.format == .raw ? .qcow2 : .raw
        let path = files.volume(volume)
        let exists = { (path: String) in (try? Files.status(path)) != nil }
        if exists(files.volume(other)), !exists(path) {
            throw StorageError.foreignContent(
                path: files.volume(other), found: "the volume as \(other.format.rawValue)",
                declared: volume.format.rawValue)
        }
        guard exists(path) else { return try checkTools(for: volume.filesystem) }
        guard let made = record.filesystems[volume.name] else { return }
        guard made == volume.filesystem else {
            throw StorageError.foreignContent(
                path: path, found: "a file system of the type \(made.rawValue)",
                declared: volume.filesystem.rawValue)
        }
    }

    /// Whether a device has to be formatted first; one that holds anything else is refused.
    private func isToFormat(
        _ device: BlockDevice, for volume: Volume, _ record: VolumeRecord
    ) async throws -> Bool {
        try device.checkFree(readOnly: volume.readOnly)
        // What is only attached may hold anything: the guest knows what it is.
        guard volume.mount != nil else { return false }
        let declared = volume.filesystem.rawValue
        let content = try await device.content()
        let begun = record.formatting[volume.name] == device.path
        switch content {
        case .blank where !volume.readOnly: return true
        // A kill in the middle of mkfs leaves bytes of ours that mean nothing yet.
        case .other(BlockDevice.unknownData) where begun && !volume.readOnly: return true
        case .filesystem(declared, _): return false
        default:
            throw StorageError.foreignContent(
                path: device.path, found: content.description, declared: declared)
        }
    }

    private func volumeRecord(_ files: VMLayout) throws(StoreError) -> VolumeRecord {
        try RecordFile.read(
            VolumeRecord.self, from: files.volumeRecord, newest: VolumeRecord.version)
            ?? VolumeRecord()
    }

    /// Opens the devices that a VM gets, in the order of its volumes.
    ///
    /// Its own user needs no right to them: they are passed on, and stay claimed while it runs.
    func openDevices(_ vm: VM) throws -> [Int32] {
        var opened: [Int32] = []
        do {
            for volume in vm.volumes {
                guard let device = volume.device else { continue }
                opened.append(try BlockDevice(device).open(readOnly: volume.readOnly).release())
            }
        } catch {
            for number in opened { close(number) }
            throw error
        }
        return opened
    }
}
