// SPDX-License-Identifier: Apache-2.0
import Glibc
package import Linux
import Planning

/// The way into a guest that needs no network: OpenSSH over a virtio-serial port.
///
/// The port carries one connection. The first entry opens it as OpenSSH's control master, which
/// stays for a while; all others are sessions of that connection and cost a fraction.
package struct Access: Sendable {
    private let files: VMLayout
    private let ssh: String
    /// How long the connection stays open after its last session.
    private static let idleSeconds = 120

    init(_ files: VMLayout) throws(StoreError) {
        guard let ssh = findProgram("ssh") else {
            throw .missingTool(name: "ssh", package: "openssh-client")
        }
        self.files = files
        self.ssh = ssh
    }

    /// A program that runs `command` in the guest as `user`; without one, the user's shell.
    ///
    /// The connection is root's, and the port carries no second one: other accounts are entered
    /// from there, as a login.
    package func program(user: String, command: [String], terminal: Bool) -> Program {
        var line = command.map(quoted).joined(separator: " ")
        if user != "root" {
            line = "runuser -l \(quoted(user))" + (command.isEmpty ? "" : " -c \(quoted(line))")
        }
        var arguments = options + [terminal ? "-tt" : "-T", files.name]
        // Without the last part the shell would become the command, and a command that a signal
        // ends would be reported as a broken connection instead of as 128 plus n.
        arguments.append((line.isEmpty ? "exec bash -l" : line) + "\nexit $?")
        var program = Program(ssh, arguments)
        program.folder = files.run
        return program
    }

    /// A program that copies between host and guest; paths in the guest are `NAME:path`.
    package func copyProgram(from sources: [String], to target: String) throws(StoreError)
        -> Program
    {
        guard let scp = findProgram("scp") else {
            throw .missingTool(name: "scp", package: "openssh-client")
        }
        var program = Program(
            scp, options + ["-r", "-o", "User=root", "--"] + sources + [target])
        program.folder = files.run
        return program
    }

    /// Opens the connection unless it is open.
    package func connect() async throws {
        // Two first entries at once would otherwise wait for each other's connection to end.
        let number = try await blocking { [files] in
            // It travels as a number: a noncopyable value cannot leave the closure.
            try FileLock.wait(files.run + "/ssh.lock").release()
        }
        let lock = FileLock(owning: number)
        defer { withExtendedLifetime(lock) {} }
        var check = Program(ssh, options + ["-O", "check", files.name])
        check.folder = files.run
        if try await check.capture().exit.isSuccess { return }
        try Files.remove(files.run + "/mux")
        var master = Program(
            ssh,
            options + [
                "-M", "-N", "-f", "-o", "ControlPersist=\(Access.idleSeconds)", "-l", "root",
                files.name,
            ])
        master.folder = files.run
        let output = try await open(master)
        guard output.exit.isSuccess else {
            let words = output.errorText.split(separator: "\n").last.map(String.init)
            throw StoreError.failed(
                what: "\(files.name) lets nobody in", reason: words ?? "\(output.exit)")
        }
    }

    /// Runs ssh until it is logged in; a login that comes to no end is given up and tried once more.
    private func open(_ master: Program) async throws -> Output {
        for seconds in [45, 90] {
            let output = try await within(.seconds(seconds)) { try await master.capture() }
            if let output { return output }
        }
        throw StoreError.failed(
            what: "\(files.name) lets nobody in", reason: "two logins in a row came to no end")
    }

    /// ssh's options for this guest: nothing of the caller's own configuration takes part.
    private var options: [String] {
        let settings = [
            // Relative to the folder that ssh runs in: a long ROOT would not fit into an address.
            "ControlPath": "mux",
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": files.name,
            "IdentitiesOnly": "yes",
            "IdentityFile": "\"\(files.identity)/access_ed25519\"",
            "LogLevel": "ERROR",
            "PasswordAuthentication": "no",
            "ProxyCommand": "\(quoted(Access.ownPath)) __connect \(files.name)",
            // A session has been seen to sleep until the next packet (guest/port.c says what is known
            // of it): one every other second bounds that. The number allows a guest to be paused
            // for a day.
            "ServerAliveCountMax": "43200",
            "ServerAliveInterval": "2",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": "\"\(files.identity)/known_hosts\"",
        ]
        return ["-F", "/dev/null"]
            + settings.sorted { $0.key < $1.key }.flatMap { ["-o", "\($0.key)=\($0.value)"] }
    }

    /// This program's own file: after an upgrade of the package it is still the one that runs.
    private static let ownPath = (try? Files.readLink("/proc/self/exe")) ?? "martlet"
}

/// What `body` returns; nil, and `body` cancelled, when it has not ended by then.
func within<Result: Sendable>(
    _ time: Duration, _ body: @escaping @Sendable () async throws -> Result
) async throws -> Result? {
    try await withThrowingTaskGroup(of: Result?.self) { group in
        group.addTask { try await body() }
        group.addTask {
            try await Task.sleep(for: time)
            return nil
        }
        defer { group.cancelAll() }
        return try await group.next() ?? nil
    }
}

/// A word as a shell takes it literally.
func quoted(_ word: String) -> String {
    let plain = word.utf8.allSatisfy {
        switch $0 {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: "-_./:=@%+,".utf8.contains($0)
        }
    }
    guard !plain || word.isEmpty else { return word }
    return "'"
        + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''")
        + "'"
}

extension Engine {
    /// The way into a running guest; opens the connection.
    package func access(_ name: String) async throws -> Access {
        let report = await observer.observe(name)
        guard report.vm.phase == .running else {
            throw LifecycleError.notRunning(vm: name, phase: report.vm.phase.rawValue)
        }
        let access = try Access(layout.vm(name))
        try await access.connect()
        return access
    }
}
