// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Glibc
import Hypervisors
import Linux
import Testing

@testable import Supervisor

/// A real supervisor process in a folder of its own, over a hypervisor that behaves as told.
final class Rig {
    let folder: String
    var spec: SuperviseSpec
    /// The tool lies beside the test bundle.
    static let tool: String = {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        let bytes = buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }
        return Files.parent(String(decoding: bytes, as: UTF8.self)) + "/SuperviseTool"
    }()

    init(_ behaviour: String, name: String = "web") throws {
        var template = [CChar]("/tmp/martlet-rig.XXXXXX".utf8CString)
        let made = try #require(mkdtemp(&template))
        folder = String(cString: made)
        spec = SuperviseSpec(
            name: name, generation: 3, imageDigest: "sha256:1", launch: QEMULaunch.small,
            hypervisor: Rig.tool, paths: QEMULaunch.paths(folder))
        spec.environment = ["FAKE_VMM=\(behaviour)", "FAKE_COUNT=\(folder)/count"]
        // Only those who test the deadline may miss it: a busy machine can stand still for half a minute.
        spec.boot.deadline = 300
        spec.restart.delay = 0.05
        spec.stopGrace = 10
    }

    deinit {
        // Whatever a failed test left behind goes; the hypervisor goes with its supervisor.
        if let pid = record?.supervisorPid, (try? FileLock.isHeld(spec.paths.lock)) == true {
            Glibc.kill(pid, SIGKILL)
        }
        try? Files.remove(folder)
    }

    var control: ControlClient { ControlClient(spec.paths.control) }
    var record: RunRecord? { decode(spec.paths.runRecord) }
    var exit: ExitRecord? { decode(spec.paths.exitRecord) }
    var held: Bool { (try? FileLock.isHeld(spec.paths.lock)) ?? false }
    var log: String { (try? Files.readText(folder + "/supervisor.log")) ?? "" }

    private func decode<T: Decodable>(_ path: String) -> T? {
        (try? Files.read(path)).flatMap { try? JSONDecoder().decode(T.self, from: Data($0)) }
    }

    func start() async throws {
        try spec.write(folder + "/launch.json")
        _ = try await Supervisor.start(
            Program(Rig.tool, ["supervise", folder + "/launch.json"]),
            log: folder + "/supervisor.log")
    }

    func startAndBoot() async throws {
        try await start()
        try await until("it runs") { await self.state == .running }
    }

    var state: VMState? { get async { try? await control.status().state } }

    /// Looks again and again until it is so; ten seconds are long for what takes milliseconds.
    func until(_ what: String, _ isSo: () async throws -> Bool) async throws {
        for _ in 0..<1000 {
            if try await isSo() { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        Issue.record("in vain: \(what); the supervisor's log: \(log)")
    }

    func untilGone() async throws { try await until("the lock is free") { !held } }

    func observe() async -> Observation {
        Observation.observe(
            lockHeld: held, runRecord: record, exitRecord: exit, bootID: Clock.bootID(),
            controlStatus: try? await control.status())
    }
}
