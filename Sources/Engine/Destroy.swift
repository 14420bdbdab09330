// SPDX-License-Identifier: Apache-2.0
import Linux
import Planning

extension Engine {
    /// Removes the disks and makes them again; starts the VM if it ran.
    package func recreate(_ name: String) async throws -> String {
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
            try Files.remove(files.disks)
            Checkpoint.pass()
            guard wasLive else {
                try await makeLasting(name)
                return "has fresh disks"
            }
            return "has fresh disks, up after \(tenths(try await launch(name, files))) s"
        }
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
            ] {
                try Files.remove(path)
                Checkpoint.pass()
            }
            try await removeAllSnapshots(files)
            Checkpoint.pass()
            for path in [files.disks, files.logs, files.lock, files.imageMemory] + files.suspended {
                try Files.remove(path)
                Checkpoint.pass()
            }
        }
    }

    /// Removes everything, the identity too.
    package func purge(_ name: String) async throws {
        try await destroy(name)
        try Files.remove(layout.override(name))
        try Files.remove(layout.vm(name).path)
    }
}
