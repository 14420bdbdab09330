// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux
import Planning
import Supervisor

// MARK: - What cannot be shared

extension Engine {
    /// Refuses a step whose shares cannot be, before any of it is done.
    func checkShares(_ step: Plan.Step, of fleet: Fleet) async throws {
        let changing: Set<Action> = [.create, .start, .update, .restart, .rebuild]
        guard !changing.isDisjoint(with: step.actions), let vm = fleet.vm(step.vm) else { return }
        try await checkShares(of: vm)
    }

    /// Refuses shares that this host cannot serve, or must not.
    func checkShares(of vm: VM) async throws {
        guard !vm.shares.isEmpty else { return }
        _ = try await fileDaemon(for: vm)
        for share in vm.shares {
            _ = try realSource(share, of: vm)
            if let owner = share.create?.owner, Account(owner) == nil {
                throw ShareError.noOwner(vm: vm.name, owner: owner)
            }
        }
    }

    /// The daemon that serves a VM's shares on this host.
    private func fileDaemon(for vm: VM) async throws -> FileDaemon {
        guard let daemon = try await FileDaemon.find() else {
            throw ShareError.noDaemon(vm: vm.name, package: FileDaemon.package)
        }
        if daemon.kind == .c {
            guard isRoot else { throw ShareError.needsRoot(vm: vm.name, daemon: daemon.path) }
            if let share = vm.shares.first(where: { $0.ids != .host }) {
                throw ShareError.cannotMap(vm: vm.name, tag: share.tag, daemon: daemon.path)
            }
        } else if !isRoot, let share = vm.shares.first(where: { $0.ids != .squash }) {
            throw ShareError.ownersNeedRoot(vm: vm.name, tag: share.tag)
        }
        return daemon
    }

    /// Where a source really is, or will be once it is made.
    ///
    /// The file says a path, and a link in it may lead to a place that the file could not name.
    private func realSource(_ share: Share, of vm: VM) throws -> String {
        var existing = share.source
        var missing: [String] = []
        while lstatFails(existing), existing != "/" {
            missing.insert(Files.name(existing), at: 0)
            existing = Files.parent(existing)
        }
        if !missing.isEmpty, share.create == nil {
            throw ShareError.missing(vm: vm.name, source: share.source)
        }
        let real: String
        do throws(SystemError) {
            real = try Files.realPath(existing)
        } catch {
            if error.isMissing { throw ShareError.missing(vm: vm.name, source: share.source) }
            throw error
        }
        guard Files.isFolder(real) else {
            throw ShareError.notAFolder(vm: vm.name, source: share.source)
        }
        let path = ([real == "/" ? "" : real] + missing).joined(separator: "/")
        let final = path.isEmpty ? "/" : path
        if let reason = whyNotShared(final) ?? whyNotOurs(final) {
            throw ShareError.forbidden(
                vm: vm.name, source: share.source, path: final, reason: reason)
        }
        return final
    }

    private func lstatFails(_ path: String) -> Bool {
        var info = stat()
        return lstat(path, &info) != 0
    }

    /// Why a real path is too near to what Martlet itself keeps; nil when it is not.
    private func whyNotOurs(_ path: String) -> String? {
        for (name, place) in [("MARTLET_ROOT", layout.root), ("MARTLET_RUN", layout.run)] {
            // It may not be there yet.
            let real = (try? Files.realPath(place)) ?? place
            let (inside, outside) = (isPath(path, within: real), isPath(real, within: path))
            guard inside || outside else { continue }
            return (inside ? "it lies in" : "it holds") + " \(real), where martlet keeps the disks "
                + "and keys of all VMs (\(name)); share another directory"
        }
        return nil
    }
}

// MARK: - Making them ready

extension VMLayout {
    /// Where the daemon of a share listens; by number, for a tag may look like a path.
    func shareSocket(_ index: Int) -> String { "\(shares)/\(index).sock" }

    /// Where a keeper that is a unit finds whoever waits for it.
    var keeperSocket: String { "\(shares)/keeper.sock" }
}

extension ShareKeeping {
    /// The keeper is a unit, which shows the sources at places of its own and is connected to.
    mutating func keepByUnit(_ files: VMLayout) {
        channel = files.keeperSocket
        for index in shares.indices { shares[index].mountPoint = ShareUnit.mountPoint(index) }
    }

    /// The keeper is a process, which inherits its channel and mounts the sources itself.
    mutating func keepByProcess(_ files: VMLayout) {
        channel = nil
        for index in shares.indices { shares[index].mountPoint = "\(files.shares)/\(index)" }
    }
}

extension Engine {
    /// Makes missing sources, and writes down what the keeper of the shares is to do.
    func prepareShares(_ vm: VM, _ files: VMLayout, user: UInt32?) async throws {
        // What an earlier run left would be served again.
        try Files.remove(files.sharesRecord)
        guard !vm.shares.isEmpty else { return }
        let daemon = try await fileDaemon(for: vm)
        let isUnit = try services(for: vm.name)?.kind == .system
        var folders: [SharedFolder] = []
        for (index, share) in vm.shares.enumerated() {
            let source = try realSource(share, of: vm)
            let owners = try owners(share, of: vm, user: user)
            if !Files.exists(source), let wanted = share.create {
                try make(source, wanted, owners, vm)
                Checkpoint.pass()
            }
            let folder = SharedFolder(
                tag: share.tag, source: source, readOnly: share.readOnly, owners: owners,
                identity: try SharedFolder.Identity(
                    of: Descriptor.open(source, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)),
                socket: files.shareSocket(index), mountPoint: "\(files.shares)/\(index)")
            warnOfRights(share, folder, vm)
            folders.append(folder)
        }
        try Files.makeFolder(files.shares, mode: 0o711)
        // The VM's own user connects, and has no other business here.
        try Files.setMode(files.shares, 0o711)
        var keeping = ShareKeeping(
            vm: vm.name, daemon: daemon, lock: files.sharesLock, user: user, shares: folders)
        if isUnit { keeping.keepByUnit(files) }
        try Files.write(files.sharesRecord, encoded(keeping), mode: 0o600)
    }

    /// Says of files that are to be one user's what that user may not do with them.
    private func warnOfRights(_ share: Share, _ folder: SharedFolder, _ vm: VM) {
        guard case .squash(let user) = folder.owners, user != geteuid() else { return }
        var info = stat()
        guard stat(folder.source, &info) == 0 else { return }
        let mine = info.st_uid == user
        let read = (mine ? S_IRUSR | S_IXUSR : S_IROTH | S_IXOTH)
        let write = share.readOnly ? 0 : (mine ? S_IWUSR : S_IWOTH)
        guard info.st_mode & (read | write) != read | write,
            !hasAccessList(folder.source)
        else { return }
        reporter.warning(
            "\(vm.name): the share '\(share.tag)' is served as the VM's own user, number \(user), "
                + "who cannot \(info.st_mode & read != read ? "read" : "write") \(folder.source): "
                + "give it to that user, or leave 'ids: squash' out")
    }

    private func owners(
        _ share: Share, of vm: VM, user: UInt32?
    ) throws -> SharedFolder.Owners {
        switch share.ids {
        case .host: .host
        case .map: .map(base: try allocateMapped(vm.name))
        case .squash: .squash(user: user ?? geteuid())
        }
    }

    /// Where a guest's users begin on the host: kept as the VM's own user is.
    private func allocateMapped(_ name: String) throws -> UInt32 {
        func kept(_ vm: String) -> UInt32? {
            (try? Files.readText(layout.vm(vm).identity + "/ids"))
                .flatMap { UInt32($0.prefix { $0 != "\n" }) }
        }
        let taken = Set(try store.names().vms.filter { $0 != name }.compactMap(kept))
        // It may have come with a backup, from another host or from who knows where.
        if let base = kept(name), base >= Derived.firstMapped, !taken.contains(base) {
            let (range, rest) = (base - Derived.firstMapped).quotientAndRemainder(dividingBy: 65536)
            if rest == 0, range < Derived.mappedRanges { return base }
        }
        let first = UserRange.candidate(root: layout.root, vm: name) % Derived.mappedRanges
        for step in 0..<Derived.mappedRanges {
            let range = (first + step) % Derived.mappedRanges
            let base = Derived.firstMapped + range * 65536
            if taken.contains(base) { continue }
            try Files.write(layout.vm(name).identity + "/ids", "\(base)\n")
            return base
        }
        throw ShareError.failed(vm: name, reason: "all ranges of users are given out")
    }

    /// Makes a directory as declared, under its name only once it is complete.
    private func make(
        _ path: String, _ wanted: CreatedDirectory, _ owners: SharedFolder.Owners, _ vm: VM
    ) throws {
        guard let account = Account(wanted.owner) else {
            throw ShareError.noOwner(vm: vm.name, owner: wanted.owner)
        }
        var (user, group) = (account.user, account.group)
        // Root of a guest whose users are others on the host is not root there.
        switch owners {
        case .map(let base) where user == 0: (user, group) = (base, base)
        case .squash(let own) where user == 0: (user, group) = (own, own)
        case .host, .map, .squash: break
        }
        let parent = Files.parent(path)
        try Files.makeFolder(parent)
        let fresh = "\(parent)/.martlet-new-\(Files.name(path))"
        rmdir(fresh)
        try check("mkdir \(fresh)") { mkdir(fresh, 0o700) }
        // By descriptor: somebody else may own the parent, and put a link in its place.
        let folder = try Descriptor.open(fresh, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        if isRoot { try check("chown \(fresh)") { fchown(folder.raw, user, group) } }
        try check("chmod \(fresh)") { fchmod(folder.raw, UInt32(wanted.mode.bits)) }
        try folder.sync()
        try Files.renameNew(fresh, path)
        try Files.syncFolder(parent)
    }
}

// MARK: - Serving them

extension Engine {
    /// Starts what keeps the daemons of a VM's shares; nil for a VM without any.
    ///
    /// Returns the channel that its supervisor is to hold: when it is closed everywhere, they end.
    /// The caller closes its own.
    func startKeeper(_ vm: VM, _ files: VMLayout) async throws -> Int32? {
        guard !vm.shares.isEmpty else { return nil }
        var keeping = try ShareKeeping.read(files.sharesRecord)
        let channel: Int32
        if keeping.channel != nil, let manager = try services(for: vm.name) {
            channel = try await startShareUnit(keeping, files, manager)
        } else {
            if keeping.channel != nil {
                // The units have been removed since: a process would wait for one of them.
                keeping.keepByProcess(files)
                try Files.write(files.sharesRecord, encoded(keeping), mode: 0o600)
            }
            channel = try startKeeper(of: vm.name, files)
        }
        do {
            let line = try await blocking { try firstLine(of: channel) }
            guard line == "ready" else {
                let reason = line.hasPrefix("failed ") ? String(line.dropFirst(7)) : ""
                throw ShareError.failed(
                    vm: vm.name,
                    reason: reason.isEmpty ? "its keeper ended; see \(files.sharesLog)" : reason)
            }
        } catch {
            close(channel)
            throw error
        }
        return channel
    }

    /// Starts the keeper as a process; returns our end of its channel.
    private func startKeeper(of name: String, _ files: VMLayout) throws -> Int32 {
        let log = try Descriptor.open(
            files.sharesLog, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW, mode: 0o640)
        let (ours, theirs) = try UnixSocket.pair()
        var program = Program("/proc/self/exe")
        program.name = "martlet"
        program.arguments = keeperWords(name) + [files.sharesRecord]
        program.environment = [
            "MARTLET_ROOT=\(layout.root)", "MARTLET_RUN=\(layout.run)",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        ]
        program.folder = "/"
        program.newSession = true
        program.descriptors = [1: log.raw, 2: log.raw, 3: theirs]
        program = program.inScope(
            "martlet-shares-\(name)", of: "Shares of the microVM \(name)")
        defer { close(theirs) }
        do {
            // It is the child of init from the moment we leave.
            close(try program.spawn().pidfd)
        } catch {
            close(ours)
            throw error
        }
        return ours
    }

    /// Waits until nothing of a VM's shares runs any more; its supervisor has gone.
    func endShares(_ name: String) async throws {
        let files = layout.vm(name)
        for attempt in 0..<2 {
            for _ in 0..<250 {
                guard try FileLock.isHeld(files.sharesLock) else { return }
                try await Task.sleep(for: .milliseconds(20))
            }
            // One that does not hear that its supervisor is gone is not wanted any longer.
            for process in RunningProcess.all(where: isKeeper(of: name))
            where attempt == 0 {
                process.signal(SIGKILL)
            }
        }
        throw LifecycleError.timeout(vm: name, waitingFor: "free of the daemons of its shares")
    }

    /// What tells a VM's keeper from all other processes.
    func keeperWords(_ vm: String) -> [String] {
        ["__shares", "--", vm, Derived.rootID(layout.root)]
    }

    /// Whether a command line is that of a VM's keeper; a unit's names no ROOT but the standard one.
    func isKeeper(of vm: String) -> ([String]) -> Bool {
        var ours = [keeperWords(vm)]
        if services?.kind == .system { ours.append(["__shares", "--", vm, "unit"]) }
        return { words in ours.contains { words.dropFirst().starts(with: $0) } }
    }
}

/// Reads up to the end of a line, or of the stream; blocks for 20 seconds at most.
private func firstLine(of descriptor: Int32) throws(SystemError) -> String {
    var bytes: [UInt8] = []
    while !bytes.contains(10) {
        var one = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&one, 1, 20_000) > 0 else { break }
        // One at a time: what follows is for the supervisor.
        let next = try read(descriptor, 1)
        if next.isEmpty { break }
        bytes += next
    }
    return String(decoding: bytes.prefix { $0 != 10 }, as: UTF8.self)
}
