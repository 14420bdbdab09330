// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Supervisor

extension Engine {
    /// What a prepared VM's own processes see of this host; nil when `hardening.confine` is false.
    func processView(_ vm: VM, _ files: VMLayout) throws -> ProcessView? {
        if case .off = vm.hardening.confine { return nil }
        let spec = try SuperviseSpec.read(files.launch)
        return ProcessView(of: vm, spec, files, try viewHost(spec))
    }

    /// What counts of this host for a view.
    private func viewHost(_ spec: SuperviseSpec) throws -> ProcessView.Host {
        func alsoReal(_ path: String) -> [String] {
            let real = (try? Files.realPath(path)) ?? path
            return real == path ? [path] : [path, real]
        }
        let hypervisor = alsoReal(spec.hypervisor).map(Files.parent)
        // A program in PREFIX/bin has its data and libraries beside that.
        let beside = hypervisor.filter { Files.name($0) == "bin" }.map(Files.parent)
            .flatMap { ["\($0)/lib", "\($0)/share/qemu"] }.filter { Files.exists($0) }
        var libraries: [String] = []
        for path in hypervisor + beside + ownLibraries() where !libraries.contains(path) {
            libraries.append(path)
        }
        return ProcessView.Host(
            own: alsoReal(layout.root) + alsoReal(layout.run), program: try Self.executable(),
            libraries: libraries,
            resolver: Sandbox.resolver().map(\.path))
    }

    /// Where martlet's executable is.
    static func executable() throws(SystemError) -> String {
        let path = try Files.readLink("/proc/self/exe")
        // Replaced or moved while we run: what is under the name now is another version.
        guard Files.exists(path) else { throw SystemError("start \(path) again", ENOENT) }
        return path
    }

    /// The folders of the libraries that this very process was loaded with.
    private func ownLibraries() -> [String] {
        let maps = (try? Files.readText("/proc/self/maps")) ?? ""
        let folders = maps.split(separator: "\n").compactMap { line -> String? in
            guard let start = line.firstIndex(of: "/"), line.contains(".so") else { return nil }
            return Files.parent(String(line[start...]))
        }
        return Set(folders).sorted()
    }

    /// The command line of a supervisor, without its descriptors.
    func supervisorProgram(_ name: String) -> Program {
        var program = Program("/proc/self/exe", ["supervise", name])
        program.name = "martlet"
        program.environment = [
            "MARTLET_ROOT=\(layout.root)", "MARTLET_RUN=\(layout.run)",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        ]
        program.folder = "/"
        return program
    }

    /// Starts a supervisor, confined as its view says.
    ///
    /// Where the kernel lets nobody without privilege have a root of his own, Landlock closes the
    /// host's files, and where that is missing, too, the filter of system calls is what is left:
    /// `status --security` says so.
    func startConfined(
        _ program: Program, _ vm: VM, _ files: VMLayout, taps: [Int32], shares: Int32?
    ) async throws -> Descriptor {
        func start(_ program: Program) async throws -> Descriptor {
            try await Supervisor.start(
                program, log: files.supervisorLog, taps: taps, shares: shares)
        }
        guard let view = try processView(vm, files) else { return try await start(program) }
        var program = try putWalls(around: program, view, vm, files)
        let groups = joinLimits(of: vm, view.limits)
        defer { for group in groups { close(group) } }
        program.sandbox?.controlGroups = groups
        while true {
            do {
                return try await start(program)
            } catch StartError.system(let error) {
                program = try fewerWalls(program, after: error, vm)
            }
        }
    }

    /// A program with all walls of a view around it.
    func putWalls(
        around program: Program, _ view: ProcessView, _ vm: VM, _ files: VMLayout
    ) throws -> Program {
        var program = program
        program.path = try Self.executable()
        var confined: Confined
        do {
            confined = try Confined(view, stage: files.run)
        } catch {
            throw LifecycleError.cannotConfine(vm: vm.name, reason: error.description)
        }
        warnOfSettings(confined.notHeld, vm)
        confined.sandbox.ownUser = !isRoot
        confined.sandbox.deviceOwner = program.user
        program.groups = []
        program.newNetwork = confined.newNetwork
        program.sandbox = confined.sandbox
        return program
    }

    /// The program with what is left when this kernel forbids a wall to somebody without privilege;
    /// an error where nothing may take its place.
    func fewerWalls(
        _ program: Program, after error: SystemError, _ vm: VM
    ) throws -> Program {
        guard let step = error.step, !step.isExecution else { throw StartError.system(error) }
        guard !isRoot, let less = program.sandbox?.withLess(than: step, error) else {
            throw LifecycleError.cannotConfine(
                vm: vm.name, reason: "cannot \(step.text): \(error.reason)")
        }
        var program = program
        program.sandbox = less
        program.newNetwork = false
        return program
    }

    private func warnOfSettings(_ settings: [ProcessView.Setting], _ vm: VM) {
        guard !settings.isEmpty else { return }
        let names = settings.map { "\($0.name)=\($0.value)" }.joined(separator: ", ")
        reporter.warning("\(vm.name): \(ProcessView.Setting.holder) holds \(names)")
    }
}

extension ProcessView.Setting {
    /// Who holds what the launcher cannot.
    static let holder = "only a unit of the host's systemd"
}
