// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Hypervisors
import Images
import Linux
import Secrets
import Supervisor

extension Engine {
    /// Makes everything that a VM's supervisor needs; doing it again changes nothing.
    ///
    /// It is the privileged half of a start: folders of the VM's user, the data volume, the
    /// identity and the credentials, and at last the word on what to do, `launch.json`.
    package func prepare(_ name: String) async throws {
        try await prepare(name, resuming: false)
    }

    /// `resuming` keeps the word that the VM is suspended: its supervisor removes it in time.
    func prepare(_ name: String, resuming: Bool) async throws {
        let files = layout.vm(name)
        // Half of a restore must never be booted.
        try await finishRestore(files)
        if !resuming, observer.savedMemory(files) != nil { throw LifecycleError.suspended(name) }
        let user = try allocateUser(name)
        let (generation, identity) = try await makeLasting(name)
        if let image = try images.resolve(generation.imageDigest) {
            try await checkImage(image, of: name)
        }
        let fleet = try store.record(name)?.fleet
        try checkPorts(generation.vm)
        try checkReach(name, [layout.run], by: user)
        try prepareFolders(files, user: user)
        if resuming { try moveEarlierMemory(files) }
        if !resuming {
            // What an earlier run left must not be taken for the end of this one.
            try Files.remove(files.exitRecord)
            try Files.remove(files.runRecord)
        }
        try await prepareShares(generation.vm, files, user: user)
        var (spec, given) = try await superviseSpec(generation, identity, files)
        spec.resume = resuming ? files.memory : nil
        // What an earlier run was given says nothing of this one.
        try Files.remove(files.givenSecrets)
        if !given.isEmpty { try Files.write(files.givenSecrets, encoded(given), mode: 0o600) }
        Checkpoint.pass()
        try await attach(generation.vm, fleet: fleet, files)
        Checkpoint.pass()
        try write(files.launch, encoded(spec), ownedBy: user)
    }

    /// Makes what a VM has also when it does not run: its identity and its disks.
    @discardableResult
    func makeLasting(_ name: String) async throws -> (GenerationRecord, Identity) {
        guard let generation = try store.current(name) else {
            throw LifecycleError.notCreated(name)
        }
        let files = layout.vm(name)
        let user = try allocateUser(name)
        try checkReach(name, [files.path], by: user)
        let uuid = generation.vm.uuid?.text
        let identity = try await Identity.ensure(files, uuid: uuid, user: user)
        Checkpoint.pass()
        try await prepareDisks(generation, files, user: user)
        Checkpoint.pass()
        return (generation, identity)
    }

    /// What a supervisor is to do for a generation, with the files that its hypervisor reads, and a
    /// note of the secrets in these.
    func superviseSpec(
        _ generation: GenerationRecord, _ identity: Identity, _ files: VMLayout
    ) async throws -> (spec: SuperviseSpec, given: [GivenSecret]) {
        let vm = generation.vm
        let user = identity.user
        guard let image = try images.resolve(generation.imageDigest) else {
            throw LifecycleError.missingImage(vm: vm.name, digest: generation.imageDigest)
        }
        let boot = images.bootFiles(image)
        try checkReach(vm.name, ([boot.kernel] + boot.layers).map(Files.parent), by: user)
        let (secrets, given) = try await secretsToGive(vm, files)
        if !secrets.isEmpty { try checkInMemory(vm.name, files.credentials) }
        let plan = MachinePlan(
            generation: generation, files: files, uuid: identity.uuid,
            accelerator: accelerator(for: vm), hypervisor: try hypervisor(), boot: boot,
            entries: try writeEntries(vm, identity, image, secrets, files, user: user),
            oemStringFiles: try writeOEMStrings(vm, files, user: user),
            isRestricted: isVerifier(vm.name))
        return (plan.superviseSpec(), given)
    }

    /// Refuses folders that a VM's own user cannot pass; its supervisor would say less, and later.
    private func checkReach(_ vm: String, _ folders: [String], by user: UInt32?) throws {
        guard let user else { return }
        for folder in folders {
            var path = folder
            while !Files.exists(path) { path = Files.parent(path) }
            while true {
                var info = stat()
                try check("stat \(path)") { stat(path, &info) }
                let needed = info.st_uid == user ? S_IXUSR : S_IXOTH
                guard info.st_mode & needed != 0 else {
                    throw LifecycleError.unreachable(vm: vm, folder: path, user: user)
                }
                if path == "/" { break }
                path = Files.parent(path)
            }
        }
    }

    /// Takes away what a run that has ended left; where it was a unit's, the unit does.
    func endRun(_ name: String) async throws {
        try await services(for: name)?.settle(name)
        try await release(name)
    }

    /// Takes away what `prepare` made for one run; the disks and the identity stay.
    package func release(_ name: String) async throws {
        try await detach(name)
        try await endShares(name)
        removeLimits(of: name)
        try Files.remove(layout.vm(name).run)
    }

    private func prepareFolders(_ files: VMLayout, user: UInt32?) throws {
        try makeFolder(files.logs, ownedBy: user)
        try makeFolder(files.saved, ownedBy: user)
        try Files.makeFolder(layout.run)
        // The VM's user must pass through to its sockets, and list nothing.
        try Files.makeFolder(files.run, mode: 0o711)
        try makeFolder(files.sockets, ownedBy: user)
        try makeFolder(files.credentials, ownedBy: nil)
        if user != nil { try Files.setMode(files.credentials, 0o711) }
        if !Files.exists(files.lock) { try Files.write(files.lock, "", mode: 0o600) }
        if let user { try Files.setOwner(files.lock, user: user, group: user) }
    }

    /// The guest's identity and credentials as files that only the VM's user can read.
    private func writeEntries(
        _ vm: VM, _ identity: Identity, _ image: ImageManifest, _ secrets: [String: SecretBytes],
        _ files: VMLayout, user: UInt32?
    ) throws -> [LaunchSpec.FirmwareEntry] {
        let fleet = try store.record(vm.name)?.fleet
        let settings = try fleet.map { try store.networkSettings($0) } ?? NetworkSettings()
        var guest = GuestIdentity(
            vm, settings, identity: identity, imageDigest: image.digest,
            defaultKeys: Engine.ownKeys())
        for port in Engine.openPorts(of: image, for: vm) {
            if port.transport == .tcp { guest.tcpPorts.append(port.port) }
            if port.transport == .udp { guest.udpPorts.append(port.port) }
        }
        for (name, value) in secrets { guest.credentials[name] = value.bytes }
        return try guest.firmwareEntries().enumerated().map { index, entry in
            let path = "\(files.credentials)/entry-\(index)"
            try write(path, entry.content, ownedBy: user)
            return LaunchSpec.FirmwareEntry(name: entry.name, path: path)
        }
    }

    private func writeOEMStrings(
        _ vm: VM, _ files: VMLayout, user: UInt32?
    ) throws -> [String] {
        try vm.oemStrings.enumerated().map { index, text in
            let path = "\(files.credentials)/oem-\(index)"
            try write(path, Array(text.utf8), ownedBy: user)
            return path
        }
    }

    /// The public keys of whoever runs martlet: those of the person behind sudo, not root's.
    static func ownKeys() -> [String] {
        let person = environment("SUDO_USER").flatMap { getpwnam($0) }
        let home = person.map { String(cString: $0.pointee.pw_dir) } ?? environment("HOME")
        guard let home, let names = try? Files.list(home + "/.ssh") else { return [] }
        return names.filter { $0.hasPrefix("id_") && $0.hasSuffix(".pub") }.compactMap { name in
            let text = try? Files.readText("\(home)/.ssh/\(name)")
            let line = text.map { String($0.prefix { $0 != "\n" }) } ?? ""
            // A file that is no key must not reach the guest's configuration.
            return AuthorizedKey(line)?.text
        }
    }

    private func checkPorts(_ vm: VM) throws {
        // On a network the host forwards, and not the VM's own user.
        guard isRoot, !vm.isOnNetwork else { return }
        let path = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
        let first = (try? Files.readText(path)).flatMap { UInt16($0.prefix { $0 != "\n" }) } ?? 1024
        for forward in vm.ports where forward.host < first {
            throw LifecycleError.privilegedPort(vm: vm.name, port: forward.host)
        }
    }

    func hypervisor() throws -> String {
        // For tests: a program that behaves as QEMU would, or does not.
        if let path = environment("MARTLET_QEMU") { return path }
        guard let path = findProgram(QEMU.program) else {
            throw StoreError.missingTool(name: QEMU.program, package: QEMU.package)
        }
        return path
    }

    func accelerator(for vm: VM) -> Hypervisors.Accelerator {
        switch vm.accelerator {
        case .tcg: .tcg
        case .kvm: .kvm
        case .auto: Hypervisors.Accelerator.detect().accelerator
        }
    }
}
