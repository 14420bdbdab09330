// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Glibc
import Linux

/// `doctor`: what this host lacks, and the command that mends it.
enum DoctorVerb {
    static let fix = Key.flag(
        "fix",
        "Install what is missing, set names of VMs up (asks for nothing; needs root)."
    )

    static let command = Command(
        "doctor", "Say what this host lacks, and what mends it.",
        discussion: """
            What networks need matters where the fleet file, or a fleet below ROOT, has some. Then \
            --fix also adds a block to /etc/hosts, in which martlet keeps the names of the VMs that \
            run; nothing else ever adds it.
            """,
        parameters: [fix],
        examples: [
            .init(
                "martlet doctor",
                "Check tools, acceleration, space, permissions, units and networks."),
            .init(
                "sudo martlet doctor --fix",
                "Install the missing Debian packages, and set names up."),
        ],
        exitCodes: [("0", "Nothing that Martlet needs is missing."), ("78", "Something is.")]
    ) { arguments in
        let session = try Session(arguments)
        let doctor = Doctor(session)
        var findings = await doctor.examine()
        if arguments[fix] {
            if doctor.needs.isAny { try await setUpNames(session) }
            try await install(findings.compactMap(\.package), session)
            findings = await doctor.examine()
        }
        if session.printer.isJSON {
            session.printer.document(.array(findings.map(\.json)))
        } else {
            show(findings, session.printer)
        }
        return findings.contains { $0.level == .missing } ? ExitCode.hostNotReady.rawValue : 0
    }

    private static func show(_ findings: [Doctor.Finding], _ printer: Printer) {
        for finding in findings {
            let mark =
                switch finding.level {
                case .good: printer.terminal.paint("ok     ", .good)
                case .notice: printer.terminal.paint("notice ", .warning)
                case .missing: printer.terminal.paint("missing", .error)
                }
            printer.line("\(mark)  \(finding.subject): \(finding.text)")
            if let remedy = finding.remedy { printer.line("         \(remedy)") }
        }
    }

    /// A hosts file that somebody damaged is left to him: the findings say where.
    private static func setUpNames(_ session: Session) async throws {
        guard (try? session.engine.hasNamesOnHost) == false else { return }
        guard geteuid() == 0 else {
            throw Failure(.noPrivilege, "writing to /etc/hosts needs root", hint: "Use sudo.")
        }
        try await session.engine.setUpNamesOnHost()
    }

    private static func install(_ packages: [String], _ session: Session) async throws {
        guard !packages.isEmpty else { return }
        guard geteuid() == 0 else {
            throw Failure(.noPrivilege, "installing packages needs root", hint: "Use sudo.")
        }
        guard let apt = findProgram("apt-get") else {
            throw Failure(.unavailable, "there is no apt-get: this is no Debian")
        }
        for arguments in [
            ["update", "-qq"], ["install", "-y", "--no-install-recommends"] + packages,
        ] {
            var program = Program(apt, arguments)
            program.environment = Program.ownEnvironment() + ["DEBIAN_FRONTEND=noninteractive"]
            program.descriptors = [1: 2, 2: 2]
            guard try await program.spawn().wait().isSuccess else {
                throw Failure(.failed, "apt-get \(arguments[0]) failed; its words are above")
            }
        }
    }
}
