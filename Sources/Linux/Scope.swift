// SPDX-License-Identifier: Apache-2.0
import Glibc

extension Program {
    /// The same program in a scope of systemd of its own, where systemd runs; else as it is.
    ///
    /// What a unit's `ExecStartPre=` starts is killed before the unit's next process, and what a login
    /// starts may be killed at logout: a process that serves a VM must be in neither. Scopes take
    /// the process as it is, with its descriptors and its number; a user has to be one by name.
    package func inScope(_ name: String, of description: String) -> Program {
        guard Files.isFolder(Systemd.running), let starter = findProgram("systemd-run"),
            user.map({ getpwuid($0) != nil }) ?? true
        else { return self }
        // systemd-run would find itself there.
        let target = path == "/proc/self/exe" ? (try? Files.readLink(path)) ?? path : path
        var scoped = self
        scoped.path = starter
        scoped.name = nil
        scoped.arguments =
            (geteuid() == 0 ? [] : ["--user"]) + [
                "--scope", "--quiet", "--collect", "--slice=microvm.slice",
                // Of two at a time, for one may still be ending.
                "--unit=\(name)-\(randomHex(4))", "--description=\(description)",
            ]
        if let user, geteuid() == 0 {
            scoped.arguments += ["--uid=\(user)", "--gid=\(group ?? user)"]
            scoped.user = nil
            scoped.group = nil
        } else if geteuid() != 0 {
            // Where its manager is.
            scoped.environment =
                (environment ?? [])
                + ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"]
                .compactMap { name in Linux.environment(name).map { "\(name)=\($0)" } }
        }
        scoped.arguments += ["--", target] + arguments
        return scoped
    }
}

extension Child {
    /// Puts a process that was just started into a scope of its own, where systemd runs.
    ///
    /// It is for one that systemd-run cannot start, because it sees less than that would need. Where
    /// it cannot be moved it is killed. Blocks until it is there.
    package func move(toScope name: String, of description: String) throws(SystemError) {
        guard Files.isFolder(Systemd.running), let busctl = findProgram("busctl") else { return }
        // Of two at a time, for one may still be ending.
        let scope = "\(name)-\(randomHex(4)).scope"
        var program = Program(
            busctl,
            (geteuid() == 0 ? [] : ["--user"]) + [
                "--quiet", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                "org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))",
                scope, "fail", "4", "PIDs", "au", "1", "\(pid)", "Slice", "s", "microvm.slice",
                "Description", "s", description, "CollectMode", "s", "inactive-or-failed", "0",
            ])
        // Without a session there is no manager of the user's, and nothing to move it out of.
        if geteuid() != 0, environment("XDG_RUNTIME_DIR") == nil { return }
        program.folder = "/"
        do throws(SystemError) {
            let caller = try program.spawn()
            guard try caller.waitBlocking().isSuccess else {
                throw SystemError("put process \(pid) into the scope \(scope)", EIO)
            }
            try awaitScope(scope)
        } catch {
            signal(SIGKILL)
            _ = try? waitBlocking()
            throw error
        }
    }

    /// The manager answers before it has moved anything.
    private func awaitScope(_ scope: String) throws(SystemError) {
        for _ in 0..<500 {
            if (try? Files.readText("/proc/\(pid)/cgroup"))?.contains("/\(scope)") == true {
                return
            }
            usleep(10_000)
        }
        throw SystemError("put process \(pid) into the scope \(scope)", ETIMEDOUT)
    }
}

/// The service manager of most hosts.
package enum Systemd {
    /// Exists where systemd is the init; sd_booted(3).
    package static let running = "/run/systemd/system"
}
