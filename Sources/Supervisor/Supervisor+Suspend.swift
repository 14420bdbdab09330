// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Hypervisors
import Linux

/// Memory to disk and back, by the hypervisor's migration into a file.
extension Supervisor {
    /// Whether the VM goes on from memory: only while the word that it is suspended is there.
    ///
    /// A spec outlives that word, when a service manager starts a dead supervisor again.
    static func hasSavedMemory(_ spec: SuperviseSpec) -> Bool {
        guard let memory = spec.resume, Files.exists(memory),
            let bytes = try? Files.read(spec.paths.exitRecord, limit: 1 << 20),
            let exit = try? JSONValue(parsing: bytes)
        else { return false }
        return exit["ending"]?.string == ExitRecord.Ending.suspended.rawValue
    }

    // MARK: To disk

    func save() {
        // Nobody answers them from now on.
        for index in spec.health.indices { reactor.disarm("health-\(index)") }
        checkRound += 1
        do {
            guard let path = savedTo else { throw SystemError("no file for the memory", EINVAL) }
            let file = try Descriptor.open(path, O_WRONLY | O_TRUNC | O_NOFOLLOW).release()
            memoryFile = file
            steps(
                [
                    (.stop, nil),
                    // By default it would spare a network that is not there.
                    (.init("migrate-set-parameters", ["max-bandwidth": .integer(1 << 40)]), nil),
                    (.init("getfd", ["fdname": "memory"]), file),
                    (.init("migrate", ["uri": "fd:memory"]), nil),
                ]
            ) { [unowned self] failure in
                if let failure { return endSaving(failure) }
                awaitMigration { [unowned self] failure in
                    if let failure { return endSaving(failure) }
                    sync(file)
                }
            }
        } catch {
            endSaving("\(error)")
        }
    }

    private func endSaving(_ failure: String) {
        closeMemory()
        handle(.saveFailed(failure))
        beginChecks()
    }

    func closeMemory() {
        if let memoryFile { close(memoryFile) }
        memoryFile = nil
    }

    /// Waits for the file to be on disk, on a thread: it may take as long as the disk is slow.
    private func sync(_ file: Int32) {
        do {
            let (reader, writer) = try Pipe().split()
            reactor.onReadable(reader) { [unowned self] in
                let byte = (try? read(reader, 1)) ?? []
                reactor.forget(reader)
                close(reader)
                guard lifecycle.phase == .suspending(saved: false) else { return }
                if byte == [1] {
                    closeMemory()
                    handle(.saved)
                } else {
                    endSaving("the memory could not be written to disk")
                }
            }
            // One of its own: ours may be closed meanwhile.
            let copy = try check("dup") { fcntl(file, F_DUPFD_CLOEXEC, 3) }
            detachThread {
                let failed = fsync(copy) != 0
                close(copy)
                try? write(writer, [failed ? 0 : 1])
                close(writer)
            }
        } catch {
            endSaving("\(error)")
        }
    }

    /// Writes that the VM is suspended: from here on it is, whoever is killed.
    ///
    /// The hypervisor has given its disks up, so they stay as they are.
    func keepSaved() {
        do {
            let bytes = try Files.status(savedTo ?? "").size
            let disks = try DiskStamp.all(spec.launch.disks.map(\.path))
            try writeExitRecord(.suspended, saved: SavedMemory(bytes: bytes, disks: disks))
            handle(.savedForGood)
        } catch {
            // It may be there all the same, not yet safe on disk; the guest is about to go on.
            try? Files.remove(spec.paths.exitRecord)
            endSaving("\(error)")
        }
    }

    // MARK: And back

    func load() {
        do {
            let file = try Descriptor.open(spec.resume ?? "", O_RDONLY | O_NOFOLLOW).release()
            memoryFile = file
            steps(
                [
                    // Or it would write to the disks before the memory is forgotten.
                    (
                        .init(
                            "migrate-set-capabilities",
                            [
                                "capabilities": [
                                    ["capability": "late-block-activate", "state": true]
                                ]
                            ]), nil
                    ),
                    (.init("getfd", ["fdname": "memory"]), file),
                    (.init("migrate-incoming", ["uri": "fd:memory"]), nil),
                ]
            ) { [unowned self] failure in
                closeMemory()
                if let failure { return handle(.loadFailed(failure)) }
                awaitMigration { [unowned self] failure in
                    handle(failure.map { .loadFailed($0) } ?? .loaded)
                }
            }
        } catch {
            handle(.loadFailed("\(error)"))
        }
    }

    /// Removes the word that the VM is suspended, for good: from the next moment on its disks move on.
    func forgetMemory() {
        do {
            try Files.remove(spec.paths.exitRecord)
            try Files.syncFolder(Files.parent(spec.paths.exitRecord))
            handle(.memoryForgotten)
        } catch {
            handle(.loadFailed("what was saved could not be set aside: \(error)"))
        }
    }

    /// Its guest goes on where it was.
    func resumed() {
        booted()
        settled = Reactor.now
        clockIsLate = true
        if agent.isAlive { setClock() }
    }

    func setClock() {
        clockIsLate = false
        let now = Clock.now() * 1_000_000_000
        ask("guest-set-time", ["time": .integer(now)], timeout: 10) { [unowned self] reply in
            guard case .failed(let why) = reply, machine != nil else { return }
            // The agent sets the clock, and then fails where there is no hwclock.
            log.info("\(spec.name): its clock may be late: \(why)")
        }
    }

    // MARK: Both

    /// Sends commands one after the other, each when the last has succeeded.
    private func steps(
        _ commands: [(QMP.Command, Int32?)], _ then: @escaping (String?) -> Void
    ) {
        guard let (command, descriptor) = commands.first else { return then(nil) }
        send(command, passing: descriptor) { [unowned self] reply in
            if case .failed(_, let why) = reply { return then(why) }
            steps(Array(commands.dropFirst()), then)
        }
    }

    /// Asks until the memory is out or in.
    private func awaitMigration(_ then: @escaping (String?) -> Void) {
        send(.init("query-migrate")) { [unowned self] reply in
            guard case .value(_, let value) = reply else { return then("it is not known how far") }
            switch value["status"]?.string {
            case "completed": then(nil)
            case "failed", "cancelled":
                then(value["error-desc"]?.string ?? "the memory could not be written")
            default:
                reactor.arm("migration", after: 0.02) { [unowned self] in
                    guard machine != nil else { return }
                    awaitMigration(then)
                }
            }
        }
    }
}
