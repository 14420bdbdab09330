// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
package import Linux

/// The Caddy of one ROOT: an instance of our own, which knows nothing of others on the host.
///
/// It is known by its command line and its user, and what it does is asked of itself; so a run that
/// was killed between two steps, or a Caddy that was, leaves nothing that the next run would not see.
package struct CaddyServer: Sendable {
    package enum Change: Sendable, Equatable { case none, loaded, started, ended }

    package static let program = "caddy"
    package static let package = "caddy"

    /// What lasts: certificates, logs.
    package let lasting: String
    /// What a reboot takes away: the configuration and the admin socket.
    package let run: String
    /// Whom it runs as; nil for whoever runs martlet.
    let user: UInt32?
    private let name: String

    /// `name` tells this ROOT from others.
    package init(lasting: String, run: String, user: UInt32?, name: String) {
        self.lasting = lasting
        self.run = run
        self.user = user
        self.name = name
    }

    package var storage: String { lasting + "/storage" }
    package var logs: String { lasting + "/logs" }
    /// Certificates that did not come from Caddy itself.
    package var certificates: String { lasting + "/certificates" }
    package var rootCertificate: String { storage + "/pki/authorities/local/root.crt" }
    private var file: String { run + "/caddy.json" }
    private var adminFolder: String { run + "/admin" }
    private var output: String { run + "/caddy.out" }

    package var folders: Caddy.Folders {
        Caddy.Folders(
            storage: storage, log: logs + "/caddy.log", adminSocket: adminFolder + "/admin.sock")
    }

    /// Makes the folders that files can be put into for it.
    package func makeFolders() throws(SystemError) {
        for folder in [lasting, run] { try Files.makeFolder(folder) }
        for folder in [storage, logs, adminFolder] {
            try Files.makeFolder(folder, mode: 0o700)
            if let user { try Files.setOwner(folder, user: user, group: user) }
        }
        try Files.makeFolder(certificates, mode: 0o750)
        if let user { try Files.setOwner(certificates, user: 0, group: user) }
    }

    /// Makes Caddy do what is wanted, and only what differs; it ends when there are no sites.
    ///
    /// The caller holds a lock. A running Caddy takes the new configuration over without dropping
    /// a request, or refuses it and goes on with the old one.
    package func apply(_ wanted: Caddy) throws -> Change {
        let running = process()
        guard !wanted.sites.isEmpty else {
            guard running != nil || Files.exists(run) else { return .none }
            try end()
            return running == nil ? .none : .ended
        }
        try makeFolders()
        try copyNames()
        let configuration = wanted.configuration
        if running != nil {
            switch asked("GET", "/config/") {
            case .success(let reply):
                let now = try? JSONValue(parsing: reply.body)
                if now?.sorted == configuration.sorted { return .none }
                try checkPorts(wanted, besides: now)
                try load(configuration)
                return .loaded
            // It hangs, or its socket was taken away: nobody can tell it anything any more.
            case .failure: try stop()
            }
        }
        try checkPorts(wanted, besides: nil)
        try write(configuration)
        try start()
        return .started
    }

    /// Whether it runs.
    package var isRunning: Bool { process() != nil }

    /// The hosts that the running one serves, as it says itself; none when it does not run.
    package var servedHosts: Set<String> {
        guard process() != nil,
            case .success(let reply) = asked("GET", "/config/apps/http/servers"),
            let servers = try? JSONValue(parsing: reply.body)
        else { return [] }
        var hosts: Set<String> = []
        for route in servers.members.flatMap({ $0.value["routes"]?.elements ?? [] }) {
            for match in route["match"]?.elements ?? [] {
                hosts.formUnion((match["host"]?.elements ?? []).compactMap(\.string))
            }
        }
        return hosts
    }

    // MARK: - A running one

    private func asked(
        _ method: String, _ path: String, body: String? = nil
    ) -> Result<HTTPReply, HTTPError> {
        let http = UnixHTTP(
            socket: folders.adminSocket, host: Caddy.adminHost, timeout: body == nil ? 5 : 30)
        return Result { () throws(HTTPError) in try http.call(method, path, body: body) }
    }

    private func load(_ configuration: JSONValue) throws {
        switch asked("POST", "/load", body: configuration.text()) {
        case .success(let reply) where reply.status == 200:
            // For whoever starts it after a crash of the host or of itself.
            try write(configuration)
        case .success(let reply):
            let said = (try? JSONValue(parsing: reply.body))?["error"]?.string
            throw PublishError.refused(reason: said ?? reply.text)
        case .failure(let error):
            throw PublishError.refused(reason: "\(error)")
        }
    }

    private func write(_ configuration: JSONValue) throws(SystemError) {
        let fresh = file + ".fresh"
        try Files.write(fresh, configuration.text(pretty: true) + "\n", mode: 0o640)
        if let user { try Files.setOwner(fresh, user: 0, group: user) }
        try Files.rename(fresh, file)
    }

    // MARK: - Starting and ending

    private func start() throws {
        guard let caddy = findProgram(CaddyServer.program) else {
            throw PublishError.missingTool(
                name: CaddyServer.program, package: CaddyServer.package,
                purpose: "serves what `publish` names")
        }
        try Files.remove(folders.adminSocket)
        keepConnections()
        let log = try Descriptor.open(output, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o640)
        let child: Child
        do throws(SystemError) {
            var program = try launcher.program([caddy] + arguments)
            program.environment = [
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=\(storage)",
                "XDG_DATA_HOME=\(storage)", "XDG_CONFIG_HOME=\(storage)",
            ]
            program.descriptors = [1: log.raw, 2: log.raw]
            child = try program.spawnWithWalls()
            try child.move(
                toScope: "martlet-proxy-\(name)", of: "Reverse proxy of microVMs")
        } catch {
            let step = error.step.map { "cannot \($0.text): \(error.reason)" }
            throw PublishError.notStarted(reason: step ?? "\(error)")
        }
        let patience = Clock.monotonic() + 20_000_000_000
        while true {
            if case .success(let reply) = asked("GET", "/config/"), reply.status == 200 { break }
            var one = pollfd(fd: child.pidfd, events: Int16(POLLIN), revents: 0)
            if poll(&one, 1, 50) > 0 || Clock.monotonic() > patience {
                child.signal(SIGKILL)
                _ = try child.waitBlocking()
                throw PublishError.notStarted(reason: lastWords)
            }
        }
        // It is the child of init from the moment we leave.
        close(child.pidfd)
    }

    private var arguments: [String] { ["run", "--config", file] }

    /// What it sees of this host: its configuration, its certificates, and what names mean.
    private var launcher: Launcher {
        var launcher = Launcher(
            user: user, capability: Launcher.lowPorts,
            places: [
                .init(run, .readable), .init(certificates, .readable),
                .init(adminFolder, .writable), .init(storage, .writable), .init(logs, .writable),
            ]
                + CaddyServer.names.map {
                    .init("/etc/\($0)", .link(to: "\(run)/\($0)"), isOptional: true)
                },
            hidden: [Files.parent(lasting), Files.parent(run)], stage: run)
        // How many connections may wait to be accepted: without it a burst is turned away.
        launcher.seesSettings = true
        return launcher
    }

    /// Files of /etc that it has copies of: it runs for months, and those are replaced meanwhile.
    private static let names = ["hosts", "resolv.conf"]

    private func copyNames() throws(SystemError) {
        for name in CaddyServer.names {
            let now = (try? Files.read("/etc/\(name)", limit: 1 << 20)) ?? []
            let copy = "\(run)/\(name)"
            if (try? Files.read(copy, limit: 1 << 20)) != now {
                try Files.write(copy, now, mode: 0o644)
            }
        }
    }

    private var lastWords: String {
        let said = (try? Files.readText(output)) ?? ""
        let line = said.split(separator: "\n").last.map(String.init) ?? ""
        return line.isEmpty ? "it ended at once, without a word" : line
    }

    /// Tells the kernel to move connections over that wait in a listening socket which is closed.
    ///
    /// A new configuration has new sockets, and what waits in the old ones would be reset. An old
    /// kernel cannot do it, and drops a connection now and then.
    private func keepConnections() {
        let setting = "/proc/sys/net/ipv4/tcp_migrate_req"
        guard geteuid() == 0, (try? Files.readText(setting)) == "0\n" else { return }
        try? Descriptor.open(setting, O_WRONLY).write("1\n".utf8)
    }

    private func end() throws {
        try stop()
        try Files.remove(run)
    }

    private func stop() throws {
        guard let running = process() else { return }
        for signal in [SIGTERM, SIGKILL] {
            running.signal(signal)
            // It lets requests that are under way come to their end.
            if running.ended(within: 12_000) { return }
        }
    }

    /// Its process; one that only looks like it belongs to another user.
    private func process() -> RunningProcess? {
        let owner = user ?? geteuid()
        for pid in ((try? Files.list("/proc")) ?? []).compactMap({ Int32($0) }) {
            guard (try? Files.status("/proc/\(pid)"))?.owner == owner,
                let process = RunningProcess(pid),
                Array(process.words.dropFirst()) == arguments
            else { continue }
            return process
        }
        return nil
    }

    // MARK: - Ports

    /// Refuses ports that somebody else has: two servers that both allow it would share one, and
    /// each would have half of the visitors.
    private func checkPorts(_ wanted: Caddy, besides now: JSONValue?) throws {
        let servers = now?["apps"]?["http"]?["servers"]?.members ?? []
        let own = servers.flatMap { $0.value["listen"]?.elements ?? [] }.compactMap(\.string)
        for text in wanted.settings.listen where !own.contains(text) {
            for address in listened(text) { try check(address, text) }
        }
    }

    private func check(_ address: SocketAddress, _ text: String) throws {
        do throws(SystemError) {
            if try Ports.isFree(address, .stream) { return }
        } catch {
            switch error.code {
            case EACCES: throw PublishError.noPrivilege(port: address.port)
            case EADDRNOTAVAIL: throw PublishError.noAddress(text: text)
            // No IPv6 here: Caddy listens on the rest.
            default: return
            }
        }
        let holder = Ports.holder(of: address.port)
        throw PublishError.portTaken(
            port: address.port,
            by: holder.map { "\($0.name) (process \($0.pid))" } ?? "another program")
    }

    private func listened(_ text: String) -> [SocketAddress] {
        guard let (address, port) = endpoint(text) else { return [] }
        if text.hasPrefix(":") { return [.v4(0, port: port), .v6(high: 0, low: 0, port: port)] }
        switch address {
        case .v4(let address): return [.v4(address.value, port: port)]
        case .v6(let address): return [.v6(high: address.high, low: address.low, port: port)]
        }
    }
}

extension JSONValue {
    /// The same with the members of all objects in the order of their keys.
    var sorted: JSONValue {
        switch self {
        case .object(let members):
            .object(
                members.sorted { $0.key < $1.key }.map { .init($0.key, $0.value.sorted) })
        case .array(let all): .array(all.map(\.sorted))
        default: self
        }
    }
}
