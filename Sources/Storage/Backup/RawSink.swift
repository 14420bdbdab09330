// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// Puts a disk together in a sparse raw file, from a full backup and those that follow it.
package final class RawSink: DiskSink {
    private let file: Descriptor
    private let path: String

    /// Makes the file; an existing one is an error.
    package init(_ path: String) throws(StorageError) {
        self.path = path
        file = try storage(path) { () throws(SystemError) in
            try Descriptor.open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW)
        }
    }

    package func begin(_ disk: BackupHeader.Disk) throws {
        try storage(path) { () throws(SystemError) in
            if disk.kind == .full { try check("ftruncate \(path)") { ftruncate(file.raw, 0) } }
            try check("ftruncate \(path)") { ftruncate(file.raw, off_t(disk.bytes)) }
        }
    }

    package func data(_ offset: Int64, _ bytes: UnsafeRawBufferPointer) throws {
        try storage(path) { () throws(SystemError) in
            var done = 0
            while done < bytes.count {
                done += try check("write \(path)") {
                    pwrite(
                        file.raw, bytes.baseAddress?.advanced(by: done), bytes.count - done,
                        off_t(offset) + off_t(done))
                }
            }
        }
    }

    package func zeros(_ extent: Extent) throws {
        try storage(path) { () throws(SystemError) in
            if (try? Files.punchHole(file, offset: extent.offset, length: extent.length)) != nil {
                return
            }
            let zeros = [UInt8](repeating: 0, count: 1 << 20)
            var offset = extent.offset
            while offset < extent.end {
                let count = Int(min(extent.end - offset, Int64(zeros.count)))
                offset += Int64(
                    try check("write \(path)") { pwrite(file.raw, zeros, count, off_t(offset)) })
            }
        }
    }

    /// Makes it durable.
    package func finish() throws(StorageError) {
        try storage(path) { () throws(SystemError) in try file.sync() }
    }
}
