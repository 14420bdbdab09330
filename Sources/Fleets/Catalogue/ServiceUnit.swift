// SPDX-License-Identifier: Apache-2.0

/// A unit of systemd that runs a part of a service.
package struct ServiceUnit: Record {
    package enum Kind: String, Choice { case exec, simple, oneshot, notify, forking }
    package enum Sandbox: String, Choice { case strict, jit, dns, privileged }

    package var name = ""
    package var exec = ""
    package var pre: [String] = []
    package var type = Kind.exec
    package var sandbox = Sandbox.strict
    package var user: String?
    package var after: [String] = []
    package var timer: String?
    package var secrets: [String]?
    package var writable: [String] = []
    package var settings: [String: String] = [:]

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("name", &name, .required, "The unit's name, without .service.")
        key("exec", &exec, .required, "The command, as systemd's ExecStart takes it.")
        key("pre", &pre, "Commands before it.")
        key("type", &type, "systemd's Type.")
        key("sandbox", &sandbox, .required, "strict, jit, dns or privileged.")
        key("user", &user, "Another account than the service's.")
        key("after", &after, "Units that must run first.")
        key("timer", &timer, "When it runs again and again, as systemd's OnCalendar.")
        key("secrets", &secrets, "The secrets that it gets; all unless given.")
        key(
            "writable", &writable,
            "What it may write to besides `state`; what is missing is left out.")
        var values = settings.mapValues { UnitSetting(text: $0) }
        key("settings", &values, "Settings of systemd that replace those of the sandbox.")
        settings = values.mapValues(\.text)
    }

    package mutating func finish(_ scope: Scope) {
        if !isUnitName(name) { scope.fail("'\(name)' is no name of a unit") }
        for command in [exec] + pre where !isCommand(command) {
            scope.fail(
                "a command is one line that begins with the program's whole path, found '\(command.prefix(40))'"
            )
        }
        for (name, value) in settings where !isSetting(name) || value.utf8.contains(0x0A) {
            scope.fail("'\(name)' is no setting of a unit; they look like ProtectProc: invisible")
        }
        for path in writable where !isPlainPath(path) {
            scope.fail("'\(path)' is no folder that a unit can write to")
        }
    }

    private func isCommand(_ text: String) -> Bool {
        let program = text.drop { "-:+!@".contains($0) }
        return program.hasPrefix("/") && !text.utf8.contains { $0 < 0x20 || $0 == 0x7F }
    }

    private func isSetting(_ name: String) -> Bool {
        name.first?.isUppercase == true && name.utf8.allSatisfy(isLetterOrDigit)
    }
}

func isUnitName(_ text: String) -> Bool {
    isWord(text, 64) && !text.hasPrefix(".") && !text.hasPrefix("-")
}

/// A path that stands in a unit as it is: absolute, nothing to resolve, nothing to escape.
func isPlainPath(_ path: String) -> Bool {
    path.hasPrefix("/")
        && path.pieces("/").dropFirst().allSatisfy { part in
            !part.isEmpty && part != "." && part != ".."
                && part.utf8.allSatisfy { isWordByte($0) || "@+".utf8.contains($0) }
        }
}
