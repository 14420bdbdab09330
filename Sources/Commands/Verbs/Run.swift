// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Glibc
import Linux

/// `run`: a throw-away VM of an image.
enum RunVerb {
    static let image = Key<String>.argument("IMAGE", "The image.", candidates: .images)
    static let words = Key.rest("CMD", "A command instead of a shell.")
    static let remove = Key.flag("rm", "Remove the VM with all it holds when the command ends.")
    static let memory = Key<ByteSize?>.option("memory", value: "SIZE", "Its memory.")
    static let vcpu = Key<Int?>.option("vcpu", value: "N", "Its virtual CPUs.")

    static let command = Command(
        "run", "Start a throw-away VM of an image.",
        discussion: """
            Runs a command in it as root, or a shell on a terminal. Without --rm the VM goes on \
            and is listed under the name that is printed.
            """,
        parameters: [image, words, remove, memory, vcpu],
        examples: [
            .init("martlet run --rm core -- uname -r", "Try something in a fresh VM."),
            .init("martlet run --rm docker", "A shell in a VM that is gone afterwards."),
        ],
        exitCodes: [("0-255", "The command's own exit code; 128 plus the signal that ended it.")]
    ) { arguments in
        let session = try Session(arguments)
        let command = arguments[words]
        let isInteractive = isatty(0) == 1 && isatty(1) == 1
        if arguments[remove], command.isEmpty, !isInteractive {
            throw Failure(
                .usage, "without a terminal, 'run --rm' needs a command",
                hint: "martlet run --rm \(arguments[image]) -- CMD")
        }
        let name = try await session.printer.withProgress { progress in
            let engine = session.engine.reporting(to: progress.reporter)
            let fleet = try session.fleetIfAny()
            let digest = try await engine.ensureImage(named: arguments[image], in: fleet)
            return try await engine.runThrowaway(
                image: arguments[image], digest: digest, memory: arguments[memory],
                vcpu: arguments[vcpu])
        }
        if command.isEmpty, !isInteractive {
            session.printer.line(name)
            return 0
        }
        if !arguments[remove] { session.printer.note("running as \(name)") }
        return try await enter(name, command, arguments, session.engine)
    }

    private static func enter(
        _ name: String, _ command: [String], _ arguments: Arguments, _ engine: Engine
    ) async throws -> Int32 {
        let result: Result<Int32, any Error>
        do {
            var program = try await engine.access(name).program(
                user: "root", command: command, terminal: isatty(0) == 1)
            program.descriptors = [0: 0, 1: 1, 2: 2]
            result = .success(try await program.spawn().wait().shellCode)
        } catch {
            result = .failure(error)
        }
        if arguments[remove] {
            // Also after an interrupt: what was promised to go, goes.
            try await Task {
                _ = try await engine.kill(name); try await engine.purge(name)
            }.value
        }
        return try result.get()
    }
}
