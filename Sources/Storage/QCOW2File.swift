// SPDX-License-Identifier: Apache-2.0
package import Fleets
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

    /// What a file says of itself.
    package struct Info: Sendable, Equatable {
        /// Bytes that the guest sees.
        package let size: Int64
        /// Names of the snapshots inside, oldest first.
        package let snapshots: [String]
        /// Names of the dirty bitmaps, those that cannot be used any more among them.
        package let bitmaps: [String]
        /// Those of them that a hypervisor had open when it died: what it had noted is lost.
        package let inconsistent: [String]

        package init?(json: JSONValue) {
            guard let size = json["virtual-size"]?.integer else { return nil }
            self.size = size
            snapshots = json["snapshots"]?.elements.compactMap { $0["name"]?.string } ?? []
            let found = json["format-specific"]?["data"]?["bitmaps"]?.elements ?? []
            bitmaps = found.compactMap { $0["name"]?.string }
            inconsistent = found.compactMap { bitmap in
                let flags = bitmap["flags"]?.elements.compactMap(\.string) ?? []
                return flags.contains("in-use") ? bitmap["name"]?.string : nil
            }
        }
    }

    /// Reads the file's own description; also while a hypervisor has it open.
    package func info() async throws -> Info {
        let output = try await run(
            ["info", "-U", "--output=json", "-f", "qcow2", path], "could not be read")
        guard let json = try? JSONValue(parsing: output.standardOutput), let info = Info(json: json)
        else { throw StorageError.failed(what: path, output: "qemu-img described it in vain") }
        return info
    }

    /// Keeps the present content under a name; the caller has made sure that it is free.
    package func takeSnapshot(_ name: String) async throws {
        // qemu-img would make a second one of the same name, and later mean the first.
        _ = try await run(["snapshot", "-q", "-c", name, path], "could not keep its content")
    }

    /// Brings back the content, and the size, that was kept under a name; doing it again is no harm.
    ///
    /// Dirty bitmaps must be gone before: they would tell of another content.
    package func apply(_ name: String) async throws {
        _ = try await run(["snapshot", "-q", "-a", name, path], "could not go back to '\(name)'")
    }

    package func removeSnapshot(_ name: String) async throws {
        _ = try await run(["snapshot", "-q", "-d", name, path], "could not drop '\(name)'")
    }

    /// Removes the dirty bitmaps whose names begin so, and returns how many there were.
    @discardableResult
    package func removeBitmaps(_ prefix: String) async throws -> Int {
        try await removeBitmaps(info().bitmaps.filter { $0.hasPrefix(prefix) })
    }

    /// Removes the dirty bitmaps that are of no use any more, in the way as they are.
    func removeInconsistentBitmaps() async throws {
        try await removeBitmaps(info().inconsistent)
    }

    @discardableResult
    private func removeBitmaps(_ names: [String]) async throws -> Int {
        for name in names {
            _ = try await run(
                ["bitmap", "--remove", "-f", "qcow2", path, name], "could not drop a bitmap")
        }
        return names.count
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
        _ = try await run(arguments, "could not be copied")
    }

    /// Writes the content of another file into this one, whose snapshots stay.
    package func overwrite(with source: String, format: DiskFormat) async throws {
        _ = try await run(
            QEMUImage.convert + ["-n", "-f", format.rawValue, "-O", "qcow2", source, path],
            "could not be written")
    }

    /// Makes an empty file of this size for a hypervisor to write to.
    package func createEmpty(bytes: Int64) async throws {
        _ = try await run(
            ["create", "-q", "-f", "qcow2", "-o", "cluster_size=16k", path, String(bytes)],
            "could not be made")
    }

    private func run(_ arguments: [String], _ problem: String) async throws -> Output {
        try await QEMUImage.run(arguments, user: user, what: "\(path) \(problem)")
    }
}

/// The program `qemu-img`.
enum QEMUImage {
    /// Copies a disk and makes the copy last: by default qemu-img flushes nothing, and what has
    /// been restored would be gone with the host's power.
    static let convert = ["convert", "-q", "-t", "writeback"]

    /// Runs it, waiting a while for another run of it to let go of the file: one that a killed
    /// martlet left behind.
    static func run(
        _ arguments: [String], user: UInt32?, what: String
    ) async throws -> Output {
        guard let path = findProgram("qemu-img") else {
            throw StorageError.missingTool(name: "qemu-img", package: "qemu-utils")
        }
        var program = Program(path, arguments)
        program.user = user
        program.group = user
        let patience = Clock.monotonic() + 10_000_000_000
        while true {
            let output = try await program.capture()
            if output.exit.isSuccess { return output }
            let text = output.errorText
            if text.contains("Failed to get"), Clock.monotonic() < patience {
                try await Task.sleep(for: .milliseconds(100))
                continue
            }
            if text.contains("No space left") { throw StorageError.noSpace(path: what) }
            let words = text.split(separator: "\n").joined(separator: "; ")
            throw StorageError.failed(
                what: what, output: words.isEmpty ? "\(output.exit)" : words)
        }
    }
}
