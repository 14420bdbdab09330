// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux
package import Planning

extension Engine {
    /// Removes the disks and makes them again; starts the VM if it ran.
    ///
    /// A mutable VM, which keeps its image otherwise, takes the newest one that is there: nothing
    /// that was written to the old one is left.
    package func recreate(_ name: String, in fleet: Fleet?) async throws -> String {
        try await changing(name) { files in
            let wasLive = await observer.observe(name).vm.phase.isLive
            _ = try await halt(name, files)
            // Data of before must not come back to disks that were emptied on purpose.
            try abandonUpgrade(name)
            reporter.working(name, "making fresh disks")
            try discardMemory(files)
            // Snapshots are of these disks, and go with them.
            try await removeAllSnapshots(files)
            Checkpoint.pass()
            // In one step: half of the disks of before, and half of new ones, fit nothing.
            if Files.exists(files.disks) { try Files.rename(files.disks, files.disks + ".new.old") }
            Checkpoint.pass()
            try Files.remove(files.volumeRecord)
            try Files.remove(files.disks + ".new.old")
            Checkpoint.pass()
            try takeNewestImage(name, in: fleet)
            guard wasLive else {
                try await makeLasting(name)
                return "has fresh disks"
            }
            return "has fresh disks, up after \(tenths(try await launch(name, files))) s"
        }
    }

    private func takeNewestImage(_ name: String, in fleet: Fleet?) throws {
        guard let current = try store.current(name), current.vm.mode == .mutable,
            let digest = newestDigest(of: fleet?.vm(name) ?? current.vm, in: fleet),
            digest != current.imageDigest
        else { return }
        _ = try store.add(current.vm, imageDigest: digest)
        Checkpoint.pass()
    }

    /// Removes everything but the identity.
    package func destroy(_ name: String) async throws {
        try await changing(name) { files in
            _ = try await halt(name, files)
            try discardMemory(files)
            // The records go first: what a killed run leaves is a VM that is not there, and
            // disks that the next destroy or purge removes.
            for path in [
                files.current, files.generations, files.record, files.upgradeRecord,
                files.volumeRecord, files.sharesLog,
            ] {
                try Files.remove(path)
                Checkpoint.pass()
            }
            try await removeAllSnapshots(files)
            Checkpoint.pass()
            for path in [files.disks, files.logs, files.lock, files.imageMemory, files.saved]
                + files.suspended
            {
                try Files.remove(path)
                Checkpoint.pass()
            }
            try await removeUnit(name)
        }
        await refreshPublishing()
    }

    /// Removes everything, the identity too.
    package func purge(_ name: String) async throws {
        try await destroy(name)
        try Files.remove(layout.override(name))
        try await removeAccount(name)
        try Files.remove(layout.vm(name).path)
    }

    /// What a VM has that is lost with its disks, in words, and what is left alone.
    package func losses(_ vm: ObservedVM) throws -> (lost: [String], kept: [String]) {
        let files = layout.vm(vm.name)
        let declared = vm.applied?.vm
        let size = declared.map { " (\($0.disk))" } ?? ""
        var lost = ["the data volume of \(vm.name)\(size), with /var, /home and /root"]
        var kept: [String] = []
        var named: Set<String> = [files.dataVolume]
        for volume in declared?.volumes ?? [] {
            if let device = volume.device {
                kept.append("the device \(device) with the volume \(volume.name) of \(vm.name)")
                continue
            }
            let size = volume.size.map { " (\($0))" } ?? ""
            lost.append("the volume \(volume.name) of \(vm.name)\(size)")
            named.insert(files.volume(volume))
        }
        // Those that are no longer declared, too: their files were kept.
        for name in try Files.list(files.disks) where name.hasPrefix("volume-") {
            let path = "\(files.disks)/\(name)"
            guard !named.contains(path), !name.contains(".new") else { continue }
            lost.append("\(path), a volume that \(vm.name) no longer declares")
        }
        return (lost, kept)
    }
}
