// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Testing

@testable import Supervisor

/// A guest that says whatever it can on every way, to fill the host's disk or memory.
@Suite(.timeLimit(.minutes(10))) struct HostileOutputTests {
    @Test func whatAGuestSaysIsBoundedOnDiskAndInMemory() async throws {
        let rig = try Rig("boot=0.1 agent hostile=0.5")
        rig.spec.health = [.init(.exec(command: "true"))]
        try await rig.startAndBoot()
        let supervisor = try #require(rig.record?.supervisorPid)
        try await rig.until("it has said it all") {
            // It may just be changing to another file.
            (try? Files.readText(rig.spec.paths.consoleLog))?.contains("said it all") == true
        }
        // It still does what it is there for.
        #expect(try await rig.control.status().failedUnits.count <= 64)
        let bounds: [(String, Int64)] = [
            (rig.spec.paths.consoleLog, 1 << 20), (rig.spec.paths.consoleLog + ".1", 1 << 20),
            (rig.spec.paths.eventLog, 256 << 10), (rig.spec.paths.eventLog + ".1", 256 << 10),
            // A line may still stand above the limit.
            (rig.folder + "/supervisor.log", Supervisor.logLimit + 8192),
        ]
        for (path, most) in bounds where Files.exists(path) {
            #expect(try Files.status(path).size <= most, "\(path)")
        }
        // 2.8 MB were said on QEMU's standard error alone, and the last of it is there.
        #expect(rig.log.contains("bogus descriptor 2999"))
        #expect(rig.log.hasPrefix("(what came before was dropped)\n"))
        // All of the folder, whatever else may lie there.
        let all = try Files.list(rig.folder).reduce(Int64(0)) {
            $0 + ((try? Files.status("\(rig.folder)/\($1)").size) ?? 0)
        }
        #expect(all < 4 << 20)
        #expect(try peakMemory(of: supervisor) < 200 << 20)
        _ = try await rig.control.kill()
        try await rig.untilGone()
    }

    @Test func aGuestThatRestartsForEverLeavesBoundedEvents() throws {
        let rig = try Rig("")
        let log = try BoundedLog(rig.spec.paths.eventLog, limit: EventLog.limit)
        let event = VMEvent(
            vm: "web", at: 0, kind: .restarting, detail: String(repeating: "x", count: 4096))
        for _ in 0..<500 { log.append([UInt8](event.wire.text().utf8) + [10]) }
        for path in [rig.spec.paths.eventLog, rig.spec.paths.eventLog + ".1"] {
            #expect(try Files.status(path).size <= Int64(EventLog.limit))
        }
        var reader = EventLog(vm: "web", path: rig.spec.paths.eventLog)
        #expect(!reader.next().isEmpty)
    }

    /// The most that a process has had, in bytes.
    private func peakMemory(of pid: Int32) throws -> Int {
        let status = try Files.readText("/proc/\(pid)/status")
        let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") })
        return try #require(Int(line.filter(\.isNumber))) << 10
    }
}
