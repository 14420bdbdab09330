// SPDX-License-Identifier: Apache-2.0
import Arguments
import Fleets
import Glibc
import Imports
import Linux
import Planning

/// `import libvirt` and `import microvm-nix`: VMs of other tools as entries of a fleet file.
enum ImportVerbs {
    private static let domain = Key<String>.argument(
        "NAME",
        "The domain; or a file with its XML (a path, or NAME.xml), or - for standard input.",
        candidates: .files)
    private static let runner = Key<String>.argument(
        "RUNNER", "The runner's folder (result, /var/lib/microvms/NAME), or its microvm-run.",
        candidates: .files)
    private static let target = Key<String?>.option(
        "to", value: "FILE", "Write a new fleet file instead of printing it.", candidates: .files)

    static let command = Command(
        "import", "Write fleet entries of VMs that another tool runs.",
        subcommands: [libvirt, microvm])

    private static let common = """
        Prints the entry, and the networks and secrets it names, as a fleet file that is valid. \
        What could not be carried over is said on standard error and in comments at the top, each \
        with the reason and what to do instead. Nothing of the other tool is changed, and no data \
        is copied: the comments say how to.
        """

    static let libvirt = Command(
        "libvirt", "Write the fleet entry of a libvirt domain.",
        discussion: common + """
             Asks virsh, which goes to the host that LIBVIRT_DEFAULT_URI names.
            """,
        parameters: [domain, target],
        examples: [
            .init("martlet import libvirt web", "Look at what would become of it."),
            .init("martlet import libvirt web --to web.yaml", "A file for `imports:`."),
            .init("martlet import libvirt ./web.xml", "From a file, without libvirt."),
        ]
    ) { arguments in
        let name = arguments[domain]
        let imported: Imported
        if name == "-" {
            imported = try LibvirtDomain.read(try Host.readInput(), host: Host.view)
        } else if name.contains("/") || name.hasSuffix(".xml") {
            imported = try LibvirtDomain.read(try Host.read(name), host: Host.view)
        } else {
            let virsh = try Virsh()
            let xml = try await virsh.domain(name)
            var host = Host.view
            let networks = try await virsh.networks(LibvirtDomain.networks(xml))
            host.network = { networks[$0] }
            imported = try LibvirtDomain.read(
                xml, autostart: try await virsh.startsWithHost(name), host: host)
        }
        try show(imported, arguments)
    }

    static let microvm = Command(
        "microvm-nix", "Write the fleet entry of a microvm.nix runner.",
        discussion: common + " The runner's script is read word by word and never run.",
        parameters: [runner, target],
        examples: [
            .init("martlet import microvm-nix /var/lib/microvms/web", "A VM of this host."),
            .init("martlet import microvm-nix ./result --to web.yaml", "What nix has built."),
        ]
    ) { arguments in
        let place = try Host.runner(arguments[runner])
        try show(try MicrovmRunner.read(place, host: Host.view), arguments)
    }

    private static func show(_ imported: Imported, _ arguments: Arguments) throws {
        let printer = Printer(arguments)
        var imported = imported
        let fleet = imported.read().fleet
        let missing = fleet.flatMap { fleet in
            fleet.vm(imported.name).map { unavailable($0, in: fleet) }
        }
        for missing in missing ?? [] {
            imported.notes.append(
                ImportNote(
                    "`\(missing.field)`", missing.reason,
                    "take it out until it is, or `up` refuses the VM"))
        }
        if let path = arguments[target] {
            try InitVerb.write(imported.yaml, to: path, elsewhere: "Name another file: --to FILE")
        }
        if printer.isJSON {
            let file = arguments[target].map { [JSONValue.Member("file", .string($0))] } ?? []
            return printer.document(.object(imported.json.members + file))
        }
        if let path = arguments[target] { printer.line(path) } else { printer.write(imported.yaml) }
        for note in imported.notes {
            printer.note("\(printer.errors.paint("note:", .strong)) \(visible(note.text))")
        }
    }
}

/// What an import looks at on this host; it only reads.
private enum Host {
    static var view: HostView {
        HostView(
            file: { path in try? readFile(path) },
            disk: { path in try? disk(path) })
    }

    /// A file that somebody named: a pipe or a device behind it does not hold us.
    private static func readFile(_ path: String) throws -> [UInt8] {
        try Files.readUntrusted(try Files.realPath(path), limit: 8 << 20)
    }

    static func readInput() throws -> [UInt8] {
        try Descriptor(owning: dup(0)).readAll(limit: 8 << 20)
    }

    /// The document that somebody asks for: also what another program writes into a pipe.
    static func read(_ path: String) throws -> [UInt8] {
        guard Files.exists(path) else { throw Failure(.notFound, "there is no file \(path)") }
        do {
            return try Files.read(path, limit: 8 << 20)
        } catch {
            guard error.code == EFBIG || error.code == EISDIR else { throw error }
            throw Failure(.invalidFleet, "\(path) is no document to import: \(error)")
        }
    }

    private static func disk(_ path: String) throws -> HostView.Disk? {
        let path = try Files.realPath(path)
        var status = stat()
        try check("stat \(path)") { lstat(path, &status) }
        if status.st_mode & S_IFMT == S_IFBLK { return HostView.Disk(bytes: 0, isDevice: true) }
        guard status.st_mode & S_IFMT == S_IFREG else { return nil }
        let start = try Files.readPrefix(path, 32)
        let isQCOW2 = start.count == 32 && start.starts(with: [0x51, 0x46, 0x49, 0xFB])
        // The size that the guest sees stands in the header, in network order.
        let bytes =
            isQCOW2
            ? start[24..<32].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            : UInt64(max(0, status.st_size))
        return HostView.Disk(bytes: bytes, isQCOW2: isQCOW2)
    }

    /// The runner that a path stands for: a VM's folder, a package, or the script itself.
    static func runner(_ given: String) throws -> MicrovmRunner.Place {
        var path = given.hasPrefix("/") ? given : "\(Files.workingFolder())/\(given)"
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        guard Files.exists(path) else { throw Failure(.notFound, "there is no runner \(given)") }
        var package: String?
        var script = path
        if Files.isFolder(path) {
            if Files.exists("\(path)/current") { path += "/current" }
            package = path
            script = "\(path)/bin/microvm-run"
            guard Files.exists(script) else {
                throw Failure(
                    .notFound, "\(given) holds no bin/microvm-run, as a runner does",
                    hint: "Name what nix has built, such as ./result, or /var/lib/microvms/NAME.")
            }
        } else if path.hasSuffix("/bin/microvm-run") {
            package = String(path.dropLast("/bin/microvm-run".utf8.count))
        }
        // On a host of microvm.nix the VM runs in the folder that holds these links.
        let isLink = ["current", "booted", "old"].contains(package.map(Files.name) ?? "")
        return MicrovmRunner.Place(
            path: given, script: try read(script), package: package,
            base: isLink ? package.map(Files.parent) : nil)
    }
}

/// The client of libvirt.
private struct Virsh {
    private let path: String

    init() throws {
        guard let path = findProgram("virsh") else {
            throw Failure(
                .unavailable, "virsh is not installed, and libvirt is asked through it",
                hint: "\(Failure.install("libvirt-clients")). Or give its XML: virsh dumpxml "
                    + "--inactive NAME > NAME.xml, and: martlet import libvirt ./NAME.xml")
        }
        self.path = path
    }

    private func run(_ words: String...) async throws -> Output {
        var program = Program(path, words)
        let kept = Program.ownEnvironment().filter {
            !$0.hasPrefix("LC_ALL=") && !$0.hasPrefix("LANGUAGE=")
        }
        // What it says is looked at.
        program.environment = kept + ["LC_ALL=C"]
        return try await program.capture()
    }

    func domain(_ name: String) async throws -> [UInt8] {
        guard !name.hasPrefix("-") else {
            throw Failure(.usage, "'\(name)' is no name of a domain")
        }
        let output = try await run("dumpxml", "--inactive", name)
        if output.exit.isSuccess { return output.standardOutput }
        let problem = output.errorText.split(separator: "\n").joined(separator: " ")
        let isUnknown =
            problem.contains("failed to get domain") || problem.contains("Domain not found")
        let isAway = problem.contains("failed to connect") || problem.contains("cannot connect")
        throw Failure(
            isUnknown ? .notFound : isAway ? .unavailable : .failed,
            isUnknown ? "libvirt has no domain '\(name)'" : "virsh: \(problem)",
            hint: isUnknown
                ? "'virsh list --all' lists those of one connection; LIBVIRT_DEFAULT_URI names "
                    + "another, such as qemu:///system." : nil)
    }

    /// Whether libvirt starts it with the host; nil when it does not say.
    func startsWithHost(_ name: String) async throws -> Bool? {
        let output = try await run("dominfo", name)
        let line = output.text.split(separator: "\n").first { $0.hasPrefix("Autostart:") }
        return line.map { $0.contains("enable") }
    }

    /// The XML of each network that can be had.
    func networks(_ names: [String]) async throws -> [String: [UInt8]] {
        var all: [String: [UInt8]] = [:]
        for name in names.prefix(64) where !name.hasPrefix("-") && all[name] == nil {
            let output = try await run("net-dumpxml", name)
            if output.exit.isSuccess { all[name] = output.standardOutput }
        }
        return all
    }
}
