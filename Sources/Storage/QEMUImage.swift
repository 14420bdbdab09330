// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux

/// A dirty bitmap of a disk.
package struct DirtyBitmap: Sendable, Equatable {
    package let name: String
    /// Whether it takes note of what is written now.
    package let isRecording: Bool
    /// A hypervisor had it open when it died, and what that had noted is lost: it tells nothing.
    package let isInconsistent: Bool

    package init(name: String, isRecording: Bool, isInconsistent: Bool) {
        self.name = name
        self.isRecording = isRecording
        self.isInconsistent = isInconsistent
    }
}

/// What the file of a disk says of itself.
package struct DiskInfo: Sendable, Equatable {
    /// Bytes that the guest sees.
    package let size: Int64
    /// Names of the snapshots inside, oldest first.
    package let snapshots: [String]
    package let bitmaps: [DirtyBitmap]

    package init?(json: JSONValue) {
        guard let size = json["virtual-size"]?.integer else { return nil }
        self.size = size
        snapshots = json["snapshots"]?.elements.compactMap { $0["name"]?.string } ?? []
        let found = json["format-specific"]?["data"]?["bitmaps"]?.elements ?? []
        bitmaps = found.compactMap { bitmap in
            guard let name = bitmap["name"]?.string else { return nil }
            let flags = bitmap["flags"]?.elements.compactMap(\.string) ?? []
            return DirtyBitmap(
                name: name, isRecording: flags.contains("auto"),
                isInconsistent: flags.contains("in-use"))
        }
    }
}

/// The program `qemu-img`, which runs as the user whom a disk belongs to.
///
/// What a disk says of itself, such as a file that it stands upon, was written by that user's
/// hypervisor: it opens nothing that its owner could not open himself.
enum QEMUImage {
    /// Copies a disk and makes the copy last: by default qemu-img flushes nothing, and what has
    /// been restored would be gone with the host's power.
    static let convert = ["convert", "-q", "-t", "writeback"]

    /// Reads what a file says of itself; `isInUse`: somebody may write to it meanwhile.
    static func info(
        _ path: String, _ format: DiskFormat, user: UInt32?, isInUse: Bool
    ) async throws -> DiskInfo {
        let words =
            ["info", "--output=json"] + (isInUse ? ["-U"] : []) + ["-f", format.rawValue, path]
        let output = try await run(words, on: path, user: user, "could not be read")
        guard let json = try? JSONValue(parsing: output.standardOutput),
            let info = DiskInfo(json: json)
        else { throw StorageError.failed(what: path, output: "qemu-img described it in vain") }
        return info
    }

    /// Runs it, waiting a while for another run of it to let go of the file, which a killed martlet
    /// left behind.
    ///
    /// `problem` follows the path where it fails.
    @discardableResult
    static func run(
        _ arguments: [String], on path: String, user: UInt32?, _ problem: String
    ) async throws -> Output {
        var program = Program(try tool("qemu-img", package: "qemu-utils"), arguments)
        program.user = user
        program.group = user
        program.folder = "/"
        let patience = Clock.monotonic() + 10_000_000_000
        while true {
            let output = try await program.capture()
            if output.exit.isSuccess { return output }
            let text = output.errorText
            if text.contains("Failed to get"), Clock.monotonic() < patience {
                try await Task.sleep(for: .milliseconds(100))
                continue
            }
            if text.contains("No space left") { throw StorageError.noSpace(path: path) }
            let words = text.split(separator: "\n").joined(separator: "; ")
            throw StorageError.failed(
                what: "\(path) \(problem)", output: words.isEmpty ? "\(output.exit)" : words)
        }
    }
}
