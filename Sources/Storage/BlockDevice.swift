// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Glibc
package import Linux

/// A block device of the host that a guest gets as one of its disks.
///
/// It may hold what Martlet knows nothing of, so it is written to only when it is provably blank.
package struct BlockDevice: Sendable, Equatable {
    package let path: String

    package init(_ path: String) { self.path = path }

    /// What a device holds that is neither blank nor has a signature.
    package static let unknownData = "data of an unknown kind"

    /// What a device holds.
    package enum Content: Sendable, Equatable {
        /// No signature of anything, and zeros at both ends.
        case blank
        case filesystem(type: String, uuid: String?)
        /// Something that `blkid` knows and that is no file system, or bytes of unknown meaning.
        case other(String)

        /// In words, such as `an xfs file system`.
        package var description: String {
            switch self {
            case .blank: "nothing"
            case .filesystem(let type, _): "a file system of the type \(type)"
            case .other(let what): what
            }
        }
    }

    /// Opens the device for a guest.
    ///
    /// One that is written to is claimed for as long as the descriptor, or a copy of it, is open:
    /// the host cannot mount it meanwhile. One that is only read may be open several times.
    ///
    /// The corresponding C function is `open(O_EXCL)`.
    package func open(readOnly: Bool) throws(StorageError) -> Descriptor {
        try checkKind()
        let claimed: Descriptor
        do throws(SystemError) {
            claimed = try Descriptor.open(path, (readOnly ? O_RDONLY : O_RDWR) | O_EXCL)
        } catch {
            throw unusable(error)
        }
        guard readOnly else { return claimed }
        return try system(path) { () throws(SystemError) in try Descriptor.open(path, O_RDONLY) }
    }

    /// Puts the content of a raw file onto a device that is blank; false when it is not.
    ///
    /// Killed half way, the device is neither blank nor does it look like something whole.
    package func fill(from raw: String) async throws -> Bool {
        // One that is in use is not blank, and to be told so is no failure.
        guard try await content() == .blank else { return false }
        let claimed = try open(readOnly: false)
        guard try await content() == .blank else { return false }
        let (room, needed) = (try size(), try Files.status(raw).size)
        guard room >= needed else {
            throw StorageError.failed(
                what: "\(path) has \(room) bytes",
                output: "what shall be restored has \(needed)")
        }
        let file = claimed.release()
        try await blocking {
            let device = Descriptor(owning: file)
            try Files.copySparse(raw, onto: device)
        }
        return true
    }

    /// Refuses a device that is not there, is none, or that the host or another VM uses.
    package func checkFree(readOnly: Bool) throws(StorageError) {
        _ = try open(readOnly: readOnly)
    }

    private func checkKind() throws(StorageError) {
        var info = stat()
        guard stat(path, &info) == 0 else {
            throw .unusableDevice(
                path: path, reason: errno == ENOENT ? "it does not exist" : SystemError("").reason)
        }
        guard info.st_mode & S_IFMT == S_IFBLK else {
            throw .unusableDevice(path: path, reason: "it is no block device")
        }
    }

    private func unusable(_ error: SystemError) -> StorageError {
        switch error.code {
        case EBUSY:
            let use = users().first ?? "it is mounted, or part of another device, or a VM has it"
            return .unusableDevice(path: path, reason: "\(use). Two writers would destroy it")
        case EROFS, EACCES, EPERM:
            return .unusableDevice(
                path: path,
                reason: "it cannot be opened for writing (\(error.reason)): use sudo, "
                    + "or declare 'readOnly: true'")
        default: return .unusableDevice(path: path, reason: error.reason)
        }
    }

    /// What the host does with the device, or with a part of it, as far as it can be seen.
    private func users() -> [String] {
        var info = stat()
        guard stat(path, &info) == 0 else { return [] }
        let folder = "/sys/dev/block/\(DeviceNumber(info.st_rdev).text)"
        var numbers = [DeviceNumber(info.st_rdev).text]
        for name in (try? Files.list(folder)) ?? [] {
            guard let text = try? Files.readText("\(folder)/\(name)/dev") else { continue }
            numbers.append(String(text.prefix { $0 != "\n" }))
        }
        let holders = ((try? Files.list(folder + "/holders")) ?? []).map {
            "/dev/\($0) is made of it"
        }
        let mounts = (try? Files.readText("/proc/self/mountinfo")) ?? ""
        return mounts.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            // 36 35 98:0 / /mnt rw - ext4 /dev/sdb rw; btrfs has a number of its own there.
            guard words.count > 6, let dash = words.lastIndex(of: "-"), dash + 2 < words.count
            else { return nil }
            let isOurs = numbers.contains(String(words[2])) || words[dash + 2] == path
            return isOurs ? "it is mounted on \(words[4])" : nil
        } + holders
    }

    /// Bytes of the device.
    package func size() throws(StorageError) -> Int64 {
        try system(path) { () throws(SystemError) in
            let device = try Descriptor.open(path, O_RDONLY)
            return Int64(try check("seek \(path)") { lseek(device.raw, 0, SEEK_END) })
        }
    }

    /// Looks for signatures, and at both ends where there are none.
    package func content() async throws -> Content {
        let program = Program(
            try tool("blkid", package: "util-linux"), ["-p", "-o", "export", path])
        let output = try await program.capture()
        switch output.exit {
        case .code(0):
            let found = BlockDevice.content(export: output.text)
            if found != .blank { return found }
        // 2: nothing was found, or it could not be read; the look at both ends tells.
        case .code(2): break
        case .code(8): return .other("signatures of several kinds")
        default:
            throw StorageError.failed(
                what: "\(path) could not be examined", output: output.errorText)
        }
        let isZero = try await blocking { try isZeroAtBothEnds() }
        return isZero ? .blank : .other(BlockDevice.unknownData)
    }

    /// Reads what `blkid -o export` prints; a partition without content has only PART_ENTRY lines.
    static func content(export text: String) -> Content {
        var values: [Substring: Substring] = [:]
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: "=", maxSplits: 1)
            if parts.count == 2 { values[parts[0]] = parts[1] }
        }
        if let type = values["TYPE"] {
            guard values["USAGE"] == nil || values["USAGE"] == "filesystem" else {
                return .other("\(type) (\(values["USAGE"] ?? "other"))")
            }
            return .filesystem(type: String(type), uuid: values["UUID"].map(String.init))
        }
        if let table = values["PTTYPE"] { return .other("a partition table (\(table))") }
        return .blank
    }

    private func isZeroAtBothEnds() throws(StorageError) -> Bool {
        let bytes = try size()
        let length = min(1 << 20, Int(bytes))
        return try system(path) { () throws(SystemError) in
            let device = try Descriptor.open(path, O_RDONLY)
            for offset in [0, bytes - Int64(length)] {
                var buffer = [UInt8](repeating: 1, count: length)
                let count = try check("read \(path)") {
                    pread(device.raw, &buffer, length, off_t(offset))
                }
                guard count == length, buffer.allSatisfy({ $0 == 0 }) else { return false }
            }
            return true
        }
    }

    /// Makes the file system on a device that was found blank.
    package func make(_ filesystem: Filesystem, label: String, uuid: String) async throws {
        let maker = Maker(
            filesystem, label: label, uuid: uuid, bytes: try size(), isZeroed: false)
        let mkfs = try tool(maker.program, package: maker.package)
        try await maker.make(on: path) { arguments in
            try await run(
                Program(mkfs, arguments), on: path, making: "the file system of \(path)")
        }
        try system(path) { () throws(SystemError) in
            try Descriptor.open(path, O_RDONLY).sync()
        }
    }
}

/// A device's number as the kernel writes it.
private struct DeviceNumber {
    let text: String
    init(_ number: dev_t) {
        let major = (number >> 8) & 0xfff | (number >> 32) & 0xffff_f000
        let minor = number & 0xff | (number >> 12) & 0xffff_ff00
        text = "\(major):\(minor)"
    }
}
