// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Glibc
import Hypervisors
package import Linux

/// A supervisor that could not start its VM.
package enum StartError: Error, Equatable, CustomStringConvertible {
    /// The supervisor's own sentence.
    case failed(String)
    case system(SystemError)

    package var description: String {
        switch self {
        case .failed(let reason): reason
        case .system(let error): error.description
        }
    }
}

extension Supervisor {
    /// Bytes that the file of a supervisor's messages may have.
    package static let logLimit: Int64 = 256 << 10

    /// Starts a supervisor that outlives us, and returns once its hypervisor has taken all devices.
    ///
    /// `program` is this binary with the arguments of `supervise`, and the VM's user where there
    /// is one. Its messages go to `log`, of which `logLimit` bytes are kept. `taps`
    /// are the descriptors of its interfaces, in the order of their slots, and after them those of
    /// its block devices; they are passed on, and stay the caller's to close, as does `shares`, the
    /// channel to the keeper of its shares. Returns the supervisor's pidfd.
    package static func start(
        _ program: Program, log path: String, taps: [Int32] = [], shares: Int32? = nil
    ) async throws -> Descriptor {
        var program = program
        let log = try Descriptor.open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW, mode: 0o640)
        let (reader, writer) = try Pipe().split()
        let report = Descriptor(owning: reader)
        program.newSession = true
        program.descriptors = [1: log.raw, 2: log.raw, StartReport.target: writer]
        let numbers = taps.indices.map { StartReport.target + 1 + Int32($0) }
        for (number, tap) in zip(numbers, taps) { program.descriptors[number] = tap }
        let sharesNumber = StartReport.target + 1 + Int32(taps.count)
        if let shares { program.descriptors[sharesNumber] = shares }
        program.environment =
            (program.environment ?? Program.ownEnvironment())
            + (shares == nil ? [] : ["\(Inheritance.sharesVariable)=\(sharesNumber)"])
            + ["\(StartReport.variable)=\(StartReport.target)"]
            + [Inheritance.machineVariable + "=" + numbers.map(String.init).joined(separator: ",")]
        let child: Child
        do {
            child = try program.spawn()
        } catch {
            close(writer)
            throw StartError.system(error)
        }
        close(writer)
        let text = try await blocking { [report = report.release()] in
            try Descriptor(owning: report).readAll(limit: 65536)
        }
        let outcome = try? JSONDecoder().decode(StartReport.Outcome.self, from: Data(text))
        if outcome?.started == true {
            // It is the child of init from the moment we leave; until then nobody waits for it.
            return Descriptor(owning: child.pidfd)
        }
        let exit = try await child.wait()
        throw StartError.failed(
            outcome?.reason ?? "the supervisor ended with \(exit) before it could start the VM; "
                + "its log is \(path)")
    }
}

/// The pipe through which a supervisor tells whoever started it how that went, once.
final class StartReport {
    struct Outcome: Codable {
        let started: Bool
        let reason: String?
    }

    static let variable = "MARTLET_START_REPORT"
    static let target: Int32 = 3
    private var descriptor: Int32?

    init() {
        guard let number = environment(StartReport.variable).flatMap({ Int32($0) }), number > 2,
            fcntl(number, F_SETFD, FD_CLOEXEC) == 0
        else { return }
        descriptor = number
    }

    func started() { send(Outcome(started: true, reason: nil)) }
    func failed(_ reason: String) { send(Outcome(started: false, reason: reason)) }

    private func send(_ outcome: Outcome) {
        guard let descriptor else { return }
        self.descriptor = nil
        // Whoever started us may have been interrupted; the VM runs all the same.
        try? write(descriptor, encoded(outcome))
        close(descriptor)
    }
}
