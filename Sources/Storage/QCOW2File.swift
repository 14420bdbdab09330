// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// A qcow2 file that no hypervisor writes to, or that is only read: its snapshots and bitmaps.
///
/// `qemu-img` does the work, as the VM's own user: what it reads was written by that user's
/// hypervisor and may name other files, which root must not open for it.
package struct QCOW2File: Sendable {
    package let path: String
    /// The user and group that `qemu-img` runs as; nil for our own.
    let user: UInt32?

    package init(_ path: String, user: UInt32?) {
        self.path = path
        self.user = user
    }

    /// Reads the file's own description; also while a hypervisor has it open.
    package func info() async throws -> DiskInfo {
        try await QEMUImage.info(path, .qcow2, user: user, isInUse: true)
    }

    /// Keeps the present content under a name; the caller has made sure that it is free.
    package func takeSnapshot(_ name: String) async throws {
        // qemu-img would make a second one of the same name, and later mean the first.
        try await run(["snapshot", "-q", "-c", name, path], "could not keep its content")
    }

    /// Brings back the content, and the size, that was kept under a name; doing it again is no harm.
    ///
    /// Dirty bitmaps must be gone before: they would tell of another content.
    package func apply(_ name: String) async throws {
        try await run(["snapshot", "-q", "-a", name, path], "could not go back to '\(name)'")
    }

    package func removeSnapshot(_ name: String) async throws {
        try await run(["snapshot", "-q", "-d", name, path], "could not drop '\(name)'")
    }

    /// Removes the dirty bitmaps whose names begin so, and returns how many there were.
    @discardableResult
    package func removeBitmaps(_ prefix: String) async throws -> Int {
        try await removeBitmaps(info().bitmaps.filter { $0.name.hasPrefix(prefix) })
    }

    /// Removes the dirty bitmaps that are of no use any more, in the way as they are.
    func removeInconsistentBitmaps() async throws {
        try await removeBitmaps(info().bitmaps.filter(\.isInconsistent))
    }

    @discardableResult
    private func removeBitmaps(_ bitmaps: [DirtyBitmap]) async throws -> Int {
        for bitmap in bitmaps {
            try await run(
                ["bitmap", "--remove", "-f", "qcow2", path, bitmap.name],
                "could not drop a bitmap")
        }
        return bitmaps.count
    }

    /// Writes the content, or that of a snapshot inside, into a new qcow2 file that stands alone.
    ///
    /// With `snapshot` the file may be in use meanwhile: the blocks of a snapshot do not change
    /// while it exists, and whoever could remove it waits for the caller's change lock.
    package func copy(snapshot: String?, to target: String) async throws {
        let source =
            snapshot.map { ["-U", "-l", "snapshot.name=\($0)"] } ?? []
        let arguments =
            QEMUImage.convert + ["-f", "qcow2", "-O", "qcow2", "-o", "cluster_size=16k"]
            + source + [path, target]
        try await run(arguments, "could not be copied")
    }

    /// Writes the content of another file into this one, whose snapshots stay.
    package func overwrite(with source: String, format: DiskFormat) async throws {
        try await run(
            QEMUImage.convert + ["-n", "-f", format.rawValue, "-O", "qcow2", source, path],
            "could not be written")
    }

    /// Makes an empty file of this size for a hypervisor to write to.
    package func createEmpty(bytes: Int64) async throws {
        try await run(
            ["create", "-q", "-f", "qcow2", "-o", "cluster_size=16k", path, String(bytes)],
            "could not be made")
    }

    private func run(_ arguments: [String], _ problem: String) async throws {
        try await QEMUImage.run(arguments, on: path, user: user, problem)
    }
}
