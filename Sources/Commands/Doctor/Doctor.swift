// SPDX-License-Identifier: Apache-2.0
import Engine
import Fleets
import Glibc
import Hypervisors
import Linux

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

    /// Something that not everybody may look at.
    enum Seen<Value> {
        case seen(Value)
        case unknown(String)

        static func look(_ body: () async throws -> Value) async -> Seen {
            do {
                return .seen(try await body())
            } catch let error as SystemError where error.isPermission {
                return .unknown("only root can look")
            } catch {
                return .unknown("\(error)")
            }
        }
    }

    /// Programs that Martlet runs, the package of each, and what for.
    static let tools: [(name: String, package: String, purpose: String)] = [
        (QEMU.program, QEMU.package, "runs the VMs"),
        ("qemu-img", "qemu-utils", "makes and grows disks"),
        ("mkfs.ext4", "e2fsprogs", "makes the file system of data volumes"),
        ("mmdebstrap", "mmdebstrap", "builds images from Debian packages"),
        ("curl", "curl", "fetches the sources of images"),
        ("mkfs.erofs", "erofs-utils", "packs images"),
        ("ssh", "openssh-client", "enters guests"),
        ("ssh-keygen", "openssh-client", "makes their keys"),
        ("lz4", "lz4", "unpacks kernels"),
        ("zstd", "zstd", "packs exported images"),
        ("xz", "xz-utils", "unpacks kernel modules"),
    ]

    let needs: NetworkNeeds
    private let published: PublishNeeds
    private let images: ImageNeeds
    private let renewals: [CertificateRenewal]
    private let engine: Engine
    private var layout: Layout { engine.layout }
    /// Why the fleet file says nothing.
    private let mistake: Finding?

    /// A fleet file with mistakes keeps nobody from being told what the host lacks.
    init(_ session: Session) {
        engine = session.engine
        var fleet: Fleet?
        var mistake: Finding?
        do {
            fleet = try session.fleetIfAny()
        } catch {
            mistake = Finding(
                subject: "fleet file", level: .notice,
                text: "not considered: \((error as? Failure)?.message ?? "\(error)")",
                remedy: "martlet validate")
        }
        self.mistake = mistake
        let recorded = ((try? engine.networkFleets()) ?? []).compactMap { name in
            (try? session.engine.store.networkSettings(name)).map { (name: name, settings: $0) }
        }
        needs = NetworkNeeds(fleet, recorded: recorded)
        renewals = (try? session.engine.renewals()) ?? []
        published = PublishNeeds(
            fleet, isPublishing: session.engine.isPublishing, renewals: renewals)
        images = ImageNeeds(fleet)
    }

    func examine() async -> [Finding] {
        var findings = [mistake].compactMap { $0 }
        findings += Doctor.tools.map { Doctor.tool($0, at: findProgram($0.name)) }
        let networks = NetworkChecks(needs: needs, facts: await NetworkFacts(engine, needs))
        findings += NetworkChecks.tools.map { networks.tool($0, path: findProgram($0.name)) }
        findings += images.findings { findProgram($0) } + published.findings { findProgram($0) }
        findings.append(await hypervisor())
        findings.append(acceleration())
        findings += folders()
        findings += UnitChecks(facts: await UnitFacts(engine)).findings
        findings += schedules()
        return findings + networks.findings
    }

    /// What is said of a program that is needed.
    static func tool(
        _ tool: (name: String, package: String, purpose: String), at path: String?
    ) -> Finding {
        if let path { return Finding(subject: tool.name, level: .good, text: path) }
        return Finding(
            subject: tool.name, level: .missing, text: "not installed; it \(tool.purpose)",
            remedy: "apt-get install \(tool.package)", package: tool.package)
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

    /// Who declares schedules wants them to be run: what was seen to run them counts, and not what
    /// was set up to.
    private func schedules() -> [Finding] {
        let planned =
            ((try? engine.plannedWork()) ?? []).count + renewals.filter(\.needsClock).count
        guard planned > 0 else { return [] }
        let now = Clock.now()
        let last = engine.lastScheduleRun()
        if let last, now - last < 600 {
            return [
                .init(
                    subject: "schedules", level: .good,
                    text: "run, last \(Units.ago(last, now: now))")
            ]
        }
        let seen = last.map { "nobody has run them since \(Clock.iso8601($0))" }
        return [
            .init(
                subject: "schedules", level: .missing,
                text: "\(planned) are declared, and "
                    + (seen ?? "nobody has run them since this host started"),
                remedy: Files.exists("/run/systemd/system")
                    ? "systemctl enable --now martlet-schedule.timer"
                    : "martlet schedule run --loop")
        ]
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
