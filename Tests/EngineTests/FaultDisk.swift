// SPDX-License-Identifier: Apache-2.0
import Engine
import Glibc
import Linux
import Synchronization
import Testing

/// A file system of its own for a ROOT, on a loop device, whose power can be cut.
///
/// `cut` is the ioctl with which file systems test themselves: from that moment on nothing reaches the
/// device, the journal included, and what is mounted again is what had been made to last. What was
/// written and not flushed is gone, as far as the kernel had not written it out by itself.
struct FaultDisk: Sendable {
    enum Kind: String { case ext4, xfs }

    let folder: String
    let image: String

    /// Makes it and mounts it below a folder that is there.
    init(_ kind: Kind, in parent: String) async throws {
        folder = parent + "/fs"
        image = parent + "/fs.img"
        try Files.makeFolder(folder)
        try Files.makeSparse(image, bytes: 640 << 20)
        switch kind {
        // No second guess of the kernel's about what was to be flushed.
        case .ext4: try await Self.run("mkfs.ext4", "-q", "-F", "-m", "0", image)
        case .xfs: try await Self.run("mkfs.xfs", "-q", "-f", image)
        }
        try await mount()
    }

    /// What there are tools for on this host; XFS shares blocks, so snapshots are made otherwise.
    static var kinds: [Kind] { findProgram("mkfs.xfs") == nil ? [.ext4] : [.ext4, .xfs] }

    static func run(_ words: String...) async throws {
        let path = try #require(findProgram(words[0]), "\(words[0]) is missing")
        let output = try await Program(path, Array(words.dropFirst())).capture()
        try #require(output.exit.isSuccess, "\(words): \(output.errorText)")
    }

    func mount() async throws {
        // The loop device goes when the file system does.
        try await Self.run("mount", "-o", "loop", image, folder)
        try Files.setMode(folder, 0o755)
    }

    /// From here on nothing that is written lasts.
    func cut() throws {
        let file = try Descriptor.open(folder, O_RDONLY)
        // EXT4_GOING_FLAGS_NOLOGFLUSH, and XFS's of the same number.
        var flags: UInt32 = 2
        let shutdown: UInt = 0x8004_587D
        try check("shutdown of \(folder)") { ioctl(file.raw, shutdown, &flags) }
    }

    func unmount() async throws {
        for _ in 0..<200 where Self.isMounted(folder) {
            if umount2(folder, 0) == 0 { break }
            try await Task.sleep(for: .milliseconds(20))
        }
        // Somebody is still in there: this takes it away from all but them.
        umount2(folder, Int32(MNT_DETACH))
        // A mount namespace that a process of another test has made meanwhile holds it as well; as long
        // as that lasts, whoever mounts the image gets the file system that has been shut down.
        for _ in 0..<3000 where try isInUse() { try await Task.sleep(for: .milliseconds(20)) }
    }

    private func isInUse() throws -> Bool {
        try Files.list("/sys/block").contains { name in
            let backing = try? Files.readText("/sys/block/\(name)/loop/backing_file")
            return backing == image + "\n"
        }
    }

    private static func isMounted(_ folder: String) -> Bool {
        ((try? Files.readText("/proc/self/mounts")) ?? "").contains(" \(folder) ")
    }

    private var filler: String { folder + "/filler" }

    /// Leaves so many bytes free, until it is emptied.
    func fill(leaving bytes: Int64) async throws {
        let size = try Files.freeSpace(folder) - bytes
        // What the file system itself needs for that is not known beforehand.
        for slack: Int64 in [0, 1 << 20, 8 << 20, 32 << 20] where size > slack {
            let arguments = ["-l", "\(size - slack)", filler]
            let output = try await Program("/usr/bin/fallocate", arguments).capture()
            if output.exit.isSuccess { break }
        }
    }

    func empty() throws { try Files.remove(filler) }
}

/// Makes a fault happen beside what a test does.
final class FaultStriker: Sendable {
    let layout: Layout
    let disk: FaultDisk
    /// Whether the program has ended; then nothing stops it any more.
    let isOver = Mutex(false)
    /// Outside the disk: it says which process has stopped.
    private var trapped: String { Files.parent(disk.folder) + "/trapped" }

    init(layout: Layout, disk: FaultDisk) {
        self.layout = layout
        self.disk = disk
    }

    /// The program, such that it stops where the fault is to happen.
    func program(_ program: Program, _ fault: Fault) -> Program {
        guard let call = fault.call else { return program }
        var program = program
        program.environment? += [
            "LD_PRELOAD=\(World.programs)/libCallTrap.so", "CALLTRAP=\(call):\(trapped)",
        ]
        return program
    }

    /// Waits for the fault's moment; false when that never came.
    func strike(_ fault: Fault) async throws -> Bool {
        if fault.isNone { return false }
        switch fault.moment {
        case .milliseconds(let number): try await Task.sleep(for: .milliseconds(number))
        case .call:
            guard let pid = try await stopped() else { return false }
            defer { kill(pid, SIGCONT) }
            try Files.remove(trapped)
            try await happen(fault)
            return true
        }
        try await happen(fault)
        return true
    }

    /// Waits until the program has stopped at its call; nil when it came to its end before.
    private func stopped() async throws -> Int32? {
        while true {
            let isLast = isOver.withLock { $0 }
            if let pid = (try? Files.readText(trapped)).flatMap({ Int32($0) }),
                let state = try? Files.readText("/proc/\(pid)/stat"),
                state.contains(") T ") || isLast
            {
                return pid
            }
            if isLast { return nil }
            try await Task.sleep(for: .milliseconds(1))
        }
    }

    private func happen(_ fault: Fault) async throws {
        if case .full(let bytes) = fault.kind { return try await disk.fill(leaving: bytes) }
        if fault.isPower {
            try disk.cut()
            try await endAll()
            try await disk.mount()
            // It lies in memory.
            return try Files.remove(layout.run)
        }
        for pid in World.processes(of: layout) {
            let line = (try? Files.readText("/proc/\(pid)/cmdline")) ?? ""
            let isSupervisor = line.contains("\0supervise\0")
            let isHypervisor = line.contains("\0-blockdev\0")
            let isDaemon = line.contains("/virtiofsd\0")
            let isMeant =
                switch fault.kind {
                case .supervisor: isSupervisor
                case .hypervisor: isHypervisor
                case .daemon: isDaemon
                default: !isHypervisor && !isSupervisor && !isDaemon && line.contains("martlet\0")
                }
            if isMeant { kill(pid, SIGKILL) }
        }
    }

    /// Ends every process of this ROOT, and takes its file system away.
    func endAll() async throws {
        for _ in 0..<500 {
            let left = World.processes(of: layout)
            if left.isEmpty { break }
            for pid in left { kill(pid, SIGKILL) }
            try await Task.sleep(for: .milliseconds(20))
        }
        try await disk.unmount()
    }
}
