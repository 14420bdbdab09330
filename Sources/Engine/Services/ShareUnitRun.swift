// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux
import Supervisor

extension ServiceManager {
    func shareSettings(_ vm: String) -> String {
        "\(folder)/\(ShareUnit.name(vm)).d/50-martlet.conf"
    }

    /// Writes what the unit of a VM's shares has beyond its template; tells whether that changed.
    func install(_ unit: ShareUnit) throws -> Bool {
        let path = shareSettings(unit.vm)
        guard (try? Files.readText(path)) != unit.text else { return false }
        try Files.makeFolder(Files.parent(path))
        try Files.write(path, unit.text, mode: 0o644)
        return true
    }
}

extension Engine {
    /// Starts the unit that serves a VM's shares; returns our end of its keeper's channel.
    func startShareUnit(
        _ keeping: ShareKeeping, _ files: VMLayout, _ manager: ServiceManager
    ) async throws -> Int32 {
        guard let user = keeping.user, let socket = keeping.channel else {
            throw ShareError.failed(vm: keeping.vm, reason: "\(files.sharesRecord) names no user")
        }
        let unit = ShareUnit(
            vm: keeping.vm, daemon: keeping.daemon.kind, shares: keeping.shares,
            account: try await account(keeping.vm, user), sources: files.run + "/sources")
        try Files.makeFolder(unit.sources, mode: 0o700)
        for (index, share) in keeping.shares.enumerated() {
            try Files.link(share.source, at: "\(unit.sources)/\(index)")
        }
        _ = try Descriptor.open(
            files.sharesLock, O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600)
        let listener = try UnixSocket.listen(socket)
        defer { unlink(socket) }
        let keeper = unit.rights == .oneUser ? user : 0
        for path in [files.sharesLock, files.sharesRecord, socket, files.shares] {
            try Files.setOwner(path, user: keeper, group: keeper)
        }
        if try manager.install(unit) { try await manager.reload() }
        do {
            try await manager.startNow(ShareUnit.name(keeping.vm))
        } catch {
            throw ShareError.failed(vm: keeping.vm, reason: "\(error)")
        }
        return try await blocking { [number = listener.raw] in
            var one = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
            guard poll(&one, 1, 20_000) > 0 else {
                throw ShareError.failed(
                    vm: keeping.vm,
                    reason: "\(ShareUnit.name(keeping.vm)) has not begun; see \(files.sharesLog)")
            }
            return try UnixSocket.accept(number).release()
        }
    }
}
