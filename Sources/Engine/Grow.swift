// SPDX-License-Identifier: Apache-2.0
import Fleets
import Hypervisors
import Linux
import Storage
import Supervisor

extension Engine {
    /// Grows the disks of a running VM that are declared larger than those it was started with, and
    /// the file systems in them.
    ///
    /// All of it can be done again: a run that was killed half way is made good by the next one, or
    /// by the guest's next start.
    func growLive(_ vm: VM, running: VM, _ files: VMLayout) async throws {
        let before = files.disks(of: running)
        for disk in files.disks(of: vm) {
            guard let bytes = disk.bytes, !disk.readOnly,
                let old = before.first(where: { $0.name == disk.name }), let had = old.bytes,
                bytes > had
            else { continue }
            reporter.working(vm.name, "growing \(disk.name)")
            let client = ControlClient(files.controlSocket)
            try await removeInconsistentBitmaps(of: disk, client)
            let command = QMP.Command.resizeBlock(node: disk.node, bytes: bytes)
            _ = try await client.hypervisor(command.name, command.arguments)
            Checkpoint.pass()
            let mount =
                disk.name == "data"
                ? "/var" : vm.volumes.first { $0.name == disk.name }.flatMap(\.mount)
            try await growFilesystem(of: vm.name, disk, bytes: bytes, mount: mount, client)
            Checkpoint.pass()
        }
    }

    /// Removes the dirty bitmaps that a hypervisor left open when it died.
    ///
    /// QEMU resizes no disk that has one. The next backup is full with or without them.
    private func removeInconsistentBitmaps(
        of disk: VMDisk, _ client: ControlClient
    ) async throws {
        let list = QMP.Command.blockNodes
        let nodes = QMP.Node.read(try await client.hypervisor(list.name, list.arguments))
        let actions = nodes.filter { $0.name == disk.node }.flatMap(\.bitmaps)
            .filter(\.isInconsistent).map {
                QMP.BitmapAction.remove(node: disk.node, name: $0.name)
            }
        guard !actions.isEmpty else { return }
        let remove = QMP.Command.bitmaps(actions)
        _ = try await client.hypervisor(remove.name, remove.arguments)
    }

    /// Lets the guest grow a file system, and looks whether it did.
    private func growFilesystem(
        of vm: String, _ disk: VMDisk, bytes: Int64, mount: String?, _ client: ControlClient
    ) async throws {
        // The guest hears of the new size some time after QEMU has set it.
        let end = Clock.monotonic() + 30_000_000_000
        while true {
            let result: (code: Int32, standardOutput: [UInt8], standardError: [UInt8])
            do {
                result = try await client.exec(
                    GuestGrowth.command(serial: disk.name, bytes: bytes, mount: mount),
                    timeout: 120)
            } catch ControlError.refused(let reason) {
                throw GrowthError(
                    vm: vm, disk: disk.name, reason: "its agent does not do it (\(reason))")
            }
            if result.code == GuestGrowth.notYet, Clock.monotonic() < end {
                try await Task.sleep(for: .milliseconds(100))
                continue
            }
            let text = String(decoding: result.standardOutput, as: UTF8.self)
            guard result.code == 0, GuestGrowth.isGrown(text, bytes: bytes, mount: mount) else {
                let words = String(decoding: result.standardError, as: UTF8.self)
                throw GrowthError(
                    vm: vm, disk: disk.name,
                    reason: result.code == 0
                        ? "its file system is still smaller"
                        : "the guest ended with \(result.code): \(words)")
            }
            return
        }
    }
}

/// A disk that has grown, but not the file system in it.
package struct GrowthError: Error, Equatable, CustomStringConvertible {
    let vm: String
    let disk: String
    let reason: String

    package var description: String {
        "the disk '\(disk)' of \(vm) has grown, and its file system has not: \(reason). The guest "
            + "grows it at its next start: 'martlet restart \(vm)'"
    }
}

/// What the guest is asked to do to grow a file system; pure.
enum GuestGrowth {
    /// The guest does not see the disk's new size yet.
    static let notYet: Int32 = 75

    /// Grows the file system at `mount`, and prints its blocks and their size; without one, only
    /// looks whether the disk has its new size.
    static func command(serial: String, bytes: Int64, mount: String?) -> [String] {
        var script = """
            disk=$(readlink -f /dev/disk/by-id/virtio-\(serial)) || exit
            [ "$(cat "/sys/class/block/${disk##*/}/size")" -ge \(bytes / 512) ] || exit \(notYet)

            """
        if mount != nil {
            script += "/usr/lib/systemd/systemd-growfs \"$1\" >&2 && exec stat -f -c '%b %S' \"$1\""
        }
        return ["/bin/sh", "-c", script, "grow"] + (mount.map { [$0] } ?? [])
    }

    /// Whether what the guest printed is the size of a file system that fills the disk.
    ///
    /// A file system keeps some of its disk for itself, ext4 with small ones most.
    static func isGrown(_ text: String, bytes: Int64, mount: String?) -> Bool {
        guard mount != nil else { return true }
        let numbers = text.split(whereSeparator: \.isWhitespace).compactMap { Int64($0) }
        guard numbers.count == 2 else { return false }
        let (total, overflow) = numbers[0].multipliedReportingOverflow(by: numbers[1])
        return !overflow && total >= bytes - bytes / 8 - 64 << 20
    }
}
