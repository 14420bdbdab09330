// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

/// A network whose names and addresses nobody serves.
package struct DnsmasqError: Error, Equatable, CustomStringConvertible {
    package let network: String
    package let reason: String
    package var description: String { "dnsmasq of the network '\(network)': \(reason)" }
}

/// The process behind a `Dnsmasq`.
///
/// It writes its number itself, into a folder that only root can write to, and shows in its command
/// line what it reads: so a run that was killed between two steps leaves nothing unknown.
package struct DnsmasqServer: Sendable {
    package static let program = "dnsmasq"
    package static let package = "dnsmasq-base"

    private let wanted: Dnsmasq
    private let network: String
    private let folder: String

    package init(_ wanted: Dnsmasq) {
        self.wanted = wanted
        network = wanted.network.name
        folder = wanted.folder
    }

    /// Makes the server read what is wanted: files alone where that is enough, else it starts anew.
    package func apply() throws {
        for name in ["hosts", "dhcp", "leases"] {
            try Files.makeFolder("\(folder)/\(name)")
        }
        if let nobody = getpwnam("nobody") {
            try Files.setOwner(
                wanted.leaseFolder, user: nobody.pointee.pw_uid, group: nobody.pointee.pw_gid)
        }
        try fill("\(folder)/hosts", wanted.hosts)
        try fill("\(folder)/dhcp", wanted.leases)
        let running = DnsmasqServer.process(in: folder)
        if running.flatMap(DnsmasqServer.configuration) == wanted.file { return }
        try DnsmasqServer.stop(in: folder)
        for old in try Files.list(folder) where old.hasSuffix(".conf") {
            try Files.remove("\(folder)/\(old)")
        }
        try Files.write(wanted.file, wanted.configuration, mode: 0o644)
        try start()
    }

    /// Ends the server of a folder, and removes the folder.
    package static func remove(_ folder: String) throws {
        try stop(in: folder)
        try Files.remove(folder)
    }

    /// Whether a server runs for a folder.
    package static func isRunning(_ folder: String) -> Bool { process(in: folder) != nil }

    /// Makes a folder hold these files and no others.
    private func fill(_ folder: String, _ files: [String: String]) throws(SystemError) {
        for name in try Files.list(folder) where files[name] == nil {
            try Files.remove("\(folder)/\(name)")
        }
        for (name, text) in files.sorted(by: { $0.key < $1.key }) {
            let path = "\(folder)/\(name)"
            if (try? Files.readText(path)) == text { continue }
            // dnsmasq reads every file that appears in there: an unfinished one must not.
            let fresh = self.folder + "/fresh"
            try Files.write(fresh, text, mode: 0o644)
            try Files.rename(fresh, path)
        }
    }

    private func start() throws {
        guard let path = findProgram(DnsmasqServer.program) else {
            throw DnsmasqError(
                network: network,
                reason: "the program is missing: install the Debian package "
                    + DnsmasqServer.package)
        }
        let log = try Descriptor.open(wanted.log, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o640)
        var program = Program(path, ["--conf-file=\(wanted.file)"])
        program.environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        program.descriptors = [1: log.raw, 2: log.raw]
        program.folder = "/"
        program.newSession = true
        program = program.inScope(
            "martlet-dns-\(network)", of: "DHCP and DNS of the network \(network)")
        let child = try program.spawn()
        let patience = Clock.monotonic() + 10_000_000_000
        while DnsmasqServer.process(in: folder) == nil {
            var one = pollfd(fd: child.pidfd, events: Int16(POLLIN), revents: 0)
            if poll(&one, 1, 10) > 0 || Clock.monotonic() > patience {
                child.signal(SIGKILL)
                _ = try child.waitBlocking()
                let said = (try? Files.readText(wanted.log)) ?? ""
                throw DnsmasqError(
                    network: network,
                    reason: said.split(separator: "\n").last.map(String.init)
                        ?? "it ended at once, without a word")
            }
        }
        // It is the child of init from the moment we leave.
        close(child.pidfd)
    }

    private static func stop(in folder: String) throws(SystemError) {
        guard let running = process(in: folder) else { return }
        for signal in [SIGTERM, SIGKILL] {
            running.signal(signal)
            if running.ended(within: 3000) { break }
        }
        try Files.remove("\(folder)/dnsmasq.pid")
    }

    private static func process(in folder: String) -> RunningProcess? {
        guard let text = try? Files.readText("\(folder)/dnsmasq.pid"),
            let pid = Int32(text.prefix { $0.isNumber }),
            let process = RunningProcess(pid)
        else { return nil }
        // The number may have gone to another process since.
        return configuration(of: process)?.hasPrefix(folder + "/") == true ? process : nil
    }

    private static func configuration(of process: RunningProcess) -> String? {
        let option = "--conf-file="
        return process.words.first { $0.hasPrefix(option) }.map {
            String($0.dropFirst(option.count))
        }
    }
}
