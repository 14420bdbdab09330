// SPDX-License-Identifier: Apache-2.0
import Arguments
import Engine
import Fleets
import Glibc
import Hypervisors
import Linux

/// `doctor`: what this host lacks, and the command that mends it.
enum DoctorVerb {
    static let fix = Key.flag("fix", "Install what is missing (asks for nothing; needs root).")

    static let command = Command(
        "doctor", "Say what this host lacks, and what mends it.",
        parameters: [fix],
        examples: [
            .init("martlet doctor", "Check tools, acceleration, space and permissions."),
            .init("sudo martlet doctor --fix", "Install the missing Debian packages."),
        ],
        exitCodes: [("0", "Nothing that Martlet needs is missing."), ("78", "Something is.")]
    ) { arguments in
        let session = try Session(arguments)
        var findings = await Doctor(session.engine.layout).examine()
        if arguments[fix] {
            try await install(findings.compactMap(\.package), session)
            findings = await Doctor(session.engine.layout).examine()
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

/// Looks at a host without changing it.
struct Doctor {
    enum Level: String { case good, notice, missing }

    struct Finding {
        let subject: String
        let level: Level
        let text: String
        var remedy: String?
        /// The Debian package that would mend it.
        var package: String?

        var json: JSONValue {
            [
                "subject": .string(subject), "level": .string(level.rawValue),
                "text": .string(text), "remedy": .text(remedy),
            ]
        }
    }

    /// Programs that Martlet runs, the package of each, and what for.
    static let tools: [(name: String, package: String, purpose: String)] = [
        (QEMU.program, QEMU.package, "runs the VMs"),
        ("qemu-img", "qemu-utils", "makes and grows disks"),
        ("mkfs.ext4", "e2fsprogs", "makes the file system of data volumes"),
        ("mmdebstrap", "mmdebstrap", "builds images from Debian packages"),
        ("mkfs.erofs", "erofs-utils", "packs images"),
        ("ssh", "openssh-client", "enters guests"),
        ("ssh-keygen", "openssh-client", "makes their keys"),
        ("lz4", "lz4", "unpacks kernels"),
        ("zstd", "zstd", "packs exported images"),
        ("xz", "xz-utils", "unpacks kernel modules"),
    ]

    private let layout: Layout

    init(_ layout: Layout) { self.layout = layout }

    func examine() async -> [Finding] {
        var findings: [Finding] = []
        for tool in Doctor.tools {
            if let path = findProgram(tool.name) {
                findings.append(.init(subject: tool.name, level: .good, text: path))
            } else {
                findings.append(
                    .init(
                        subject: tool.name, level: .missing,
                        text: "not installed; it \(tool.purpose)",
                        remedy: "apt-get install \(tool.package)", package: tool.package))
            }
        }
        findings.append(await hypervisor())
        findings.append(acceleration())
        findings += folders()
        return findings
    }

    private func hypervisor() async -> Finding {
        guard let path = findProgram(QEMU.program),
            let version = try? await QEMU.version(of: path)
        else {
            return .init(subject: "QEMU", level: .missing, text: "its version cannot be read")
        }
        return .init(subject: "QEMU", level: .good, text: "version \(version)")
    }

    private func acceleration() -> Finding {
        let probe = Accelerator.detect()
        guard let reason = probe.reason else {
            return .init(subject: "acceleration", level: .good, text: "KVM")
        }
        return .init(
            subject: "acceleration", level: .notice,
            text: "VMs are emulated, which is many times slower than KVM: \(reason)")
    }

    private func folders() -> [Finding] {
        [("ROOT", layout.root), ("RUN", layout.run)].map { name, path in
            var existing = path
            while !Files.exists(existing), existing != "/" { existing = Files.parent(existing) }
            guard access(existing, W_OK) == 0 else {
                return Finding(
                    subject: name, level: .missing, text: "\(path) cannot be written to",
                    remedy: "run as root, or set MARTLET_\(name) to a folder of yours")
            }
            let free = (try? Files.freeSpace(existing)) ?? 0
            let isTight = name == "ROOT" && free < 4 << 30
            return Finding(
                subject: name, level: isTight ? .notice : .good,
                text: "\(path), \(Units.bytes(free)) free",
                remedy: isTight ? "an image build wants about 2 GiB" : nil)
        }
    }
}
