// SPDX-License-Identifier: Apache-2.0
import Glibc
import Linux

/// A service manager that refused, in its own words.
package struct ServiceError: Error, Equatable, CustomStringConvertible {
    package let what: String
    package let reason: String
    package var description: String { "\(what): \(reason)" }
}

/// systemd, where the VMs below ROOT are its units: `microvm@NAME.service`.
///
/// The units name the standard places, so a ROOT that is elsewhere has none, and its VMs are
/// started by the command line itself. The same holds where Martlet's units are not installed.
package struct ServiceManager: Sendable, Equatable {
    package enum Kind: Sendable { case system, user }

    package let kind: Kind
    /// Where settings for single units lie, and links to those that start with the host.
    package let folder: String
    /// Where the template of the units is.
    package let template: String

    private static let templateName = "microvm@.service"
    package static let target = "microvms.target"
    package static func unit(_ vm: String) -> String { "microvm@\(vm).service" }

    /// What there is where a manager of a ROOT's VMs may be.
    package enum Found: Sendable, Equatable {
        case manager(ServiceManager)
        /// Another init runs the host.
        case noSystemd
        /// ROOT or RUN is not where the units have it.
        case elsewhere
        /// An ordinary user has no manager of their own, or none that runs.
        case noSession
        case notInstalled
    }

    /// The manager that has the VMs of a ROOT; nil when none has.
    package static func find(
        _ layout: Layout, user: UInt32, variable: (String) -> String? = { environment($0) },
        isThere: (String) -> Bool = { Files.exists($0) }
    ) -> ServiceManager? {
        let found = look(layout, user: user, variable: variable, isThere: isThere)
        return if case .manager(let manager) = found { manager } else { nil }
    }

    /// The manager that has the VMs of a ROOT, or why none has them.
    package static func look(
        _ layout: Layout, user: UInt32, variable: (String) -> String? = { environment($0) },
        isThere: (String) -> Bool = { Files.exists($0) }
    ) -> Found {
        // What the units are written for, whatever this run was told.
        let plain = { (name: String) in name.hasPrefix("MARTLET_") ? nil : variable(name) }
        guard isThere(Systemd.running) else { return .noSystemd }
        guard let usual = try? Layout.standard(user: user, variable: plain), layout == usual else {
            return .elsewhere
        }
        if user == 0 {
            let places = ["/etc", "/run", "/usr/local/lib", "/usr/lib"]
                .map { "\($0)/systemd/system/\(templateName)" }
            return found(.system, folder: "/etc/systemd/system", places.first(where: isThere))
        }
        guard let runtime = variable("XDG_RUNTIME_DIR"), isThere(runtime + "/systemd/private"),
            let home = variable("XDG_CONFIG_HOME") ?? variable("HOME").map({ $0 + "/.config" })
        else { return .noSession }
        let places = [home, "/etc", "/usr/local/lib", "/usr/lib"]
            .map { "\($0)/systemd/user/\(templateName)" }
        return found(.user, folder: home + "/systemd/user", places.first(where: isThere))
    }

    private static func found(_ kind: Kind, folder: String, _ template: String?) -> Found {
        guard let template else { return .notInstalled }
        return .manager(ServiceManager(kind: kind, folder: folder, template: template))
    }

    /// Which manager `systemctl` is to talk to.
    var scope: [String] { kind == .user ? ["--user"] : [] }

    /// Runs `systemctl` to its end.
    @discardableResult
    func call(_ what: String, _ arguments: [String]) async throws -> Output {
        guard let path = findProgram("systemctl") else {
            throw StoreError.missingTool(name: "systemctl", package: "systemd")
        }
        let words = scope + ["--no-pager", "--no-ask-password"]
        let output = try await Program(path, words + arguments).capture()
        guard output.exit.isSuccess else {
            let said = output.errorText.split(separator: "\n").first.map(String.init)
            throw ServiceError(what: what, reason: said ?? "systemctl ended with \(output.exit)")
        }
        return output
    }

    /// Starts a unit and returns when its guest is up.
    func start(_ vm: String) async throws {
        try await startNow(ServiceManager.unit(vm))
    }

    /// Starts a unit however often it was started before.
    func startNow(_ unit: String) async throws {
        // What people start is not the loop that systemd counts starts for.
        _ = try? await call("reset \(unit)", ["reset-failed", unit])
        try await call("start \(unit)", ["start", unit])
    }

    /// Waits until a unit has stopped and has taken its traces away; asks it to stop if it runs.
    func settle(_ vm: String) async throws {
        try await call("stop \(ServiceManager.unit(vm))", ["stop", ServiceManager.unit(vm)])
    }

    func reload() async throws { try await call("reload systemd", ["daemon-reload"]) }

    /// The last line that a unit has said, for people who asked why it failed.
    func lastWords(_ vm: String) async -> String? {
        guard let path = findProgram("journalctl") else { return nil }
        let words =
            scope + [
                kind == .user
                    ? "--user-unit=\(ServiceManager.unit(vm))"
                    : "--unit=\(ServiceManager.unit(vm))",
                "--no-pager", "--output=cat", "--lines=20",
            ]
        let text = try? await Program(path, words).capture().text
        return text?.split(separator: "\n").last { $0.hasPrefix("error: ") }
            .map { String($0.dropFirst("error: ".count)) }
    }
}
