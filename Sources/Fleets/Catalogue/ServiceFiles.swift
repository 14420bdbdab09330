// SPDX-License-Identifier: Apache-2.0

/// What the guest sees of a service's secrets and settings.
package enum ServiceCredential {
    /// Goes before each name; units in images shared by VMs name them, so no VM can change it.
    package static let prefix = "HOST-"
    /// The credential with the variables that differ from VM to VM.
    package static let environment = "env"
}

extension Service {
    /// The name of the image that all VMs of the service have.
    package static func imageName(_ id: String) -> String { "service." + id }

    /// The recipe of its image: what the entry says, its account, folders and units; pure.
    ///
    /// Nothing in it is of one VM, so all VMs of a service share one image.
    package var imageRecipe: ImageRecipe {
        var recipe = image
        recipe.name = Service.imageName(id)
        if recipe.oci != nil {
            var told = OCIService()
            told.state = state
            told.secrets = secrets
            recipe.ociService = told
            return recipe
        }
        for (path, file) in files { recipe.files[path] = file }
        var run: [String] = []
        if user != nil { run.append("systemd-sysusers /usr/lib/sysusers.d/martlet-\(id).conf") }
        run += recipe.run
        let enabled = units.map { $0.timer == nil ? "\($0.name).service" : "\($0.name).timer" }
        if !enabled.isEmpty {
            run.append("systemctl -q enable \(enabled.joined(separator: " "))")
        }
        recipe.run = run
        return recipe
    }

    /// The files that are made from the entry, by path.
    var files: [String: ImageFile] {
        var files: [String: ImageFile] = [:]
        for unit in units {
            let path = "/etc/systemd/system/\(unit.name)"
            files[path + ".service"] = ImageFile(text: unitText(unit))
            if let timer = unit.timer {
                files[path + ".timer"] = ImageFile(text: timerText(unit, timer))
            }
        }
        if let user {
            let home = user.home ?? state.first?.path ?? "/"
            // In this field `%` and `:` would say something else.
            let words = name.filter { $0.isLetter || $0.isNumber || " -.".contains($0) }
            var text = "u \(user.name) \(user.number) \"\(words)\" \(home) /usr/sbin/nologin\n"
            for group in user.groups {
                // The same number in every image: folders of the host belong to it.
                var account = ServiceUser()
                account.name = group
                text += "g \(group) \(account.number)\nm \(user.name) \(group)\n"
            }
            files["/usr/lib/sysusers.d/martlet-\(id).conf"] = ImageFile(text: text)
        }
        let folders = state.filter { !$0.isOfSystemd }
        if !folders.isEmpty {
            let owner = user?.name ?? "root"
            files["/usr/lib/tmpfiles.d/martlet-\(id).conf"] = ImageFile(
                text: folders.map { "d \($0.path) \($0.mode) \(owner) \(owner) -\n" }.joined())
        }
        if secrets.values.contains(where: { $0.env != nil }) {
            var file = ImageFile(text: wrapperText)
            file.mode = .directory
            files[wrapper] = file
        }
        return files
    }

    /// The program that puts secrets into the environment of the one that it becomes.
    var wrapper: String { "/usr/lib/martlet/services/\(id)-environment" }

    private var wrapperText: String {
        let variables = secrets.compactMap { name, secret in secret.env.map { (name, $0) } }
            .sorted { $0.0 < $1.0 }
        return
            "#!/bin/sh\n# Hands secrets over to a program that takes them in no other way.\nset -eu\n"
            + variables.map { name, variable in
                let file = "\"$CREDENTIALS_DIRECTORY/\(ServiceCredential.prefix)\(name)\""
                return
                    "if [ -e \(file) ]; then\n\t\(variable)=$(cat \(file))\n\texport \(variable)\nfi\n"
            }.joined() + "exec \"$@\"\n"
    }
}

extension ServiceState {
    /// Whether it lies where systemd makes folders for services by itself.
    var isOfSystemd: Bool { path.hasPrefix("/var/lib/") && mount == nil }
}

// MARK: - Units

extension Service {
    /// The text of one unit; pure.
    func unitText(_ unit: ServiceUnit) -> String {
        var after = ["network-online.target"]
        for name in unit.after { after.append(name.contains(".") ? name : name + ".service") }
        var text = "[Unit]\nDescription=\(name.replacing("%", with: "%%"))"
        if unit.name != id { text += " (\(unit.name))" }
        text += "\n"
        if let page = links["docs"] ?? links["home"] {
            text += "Documentation=\(page.replacing("%", with: "%%"))\n"
        }
        text += "After=\(after.joined(separator: " "))\nWants=network-online.target\n"
        if after.count > 1 { text += "Requires=\(after.dropFirst().joined(separator: " "))\n" }
        text += "[Service]\n" + settingLines(unit).map { "\($0)=\($1)\n" }.joined()
        if unit.timer == nil { text += "[Install]\nWantedBy=multi-user.target\n" }
        return text
    }

    func timerText(_ unit: ServiceUnit, _ schedule: String) -> String {
        """
        [Unit]
        Description=\(name.replacing("%", with: "%%")) (\(unit.name))
        [Timer]
        OnCalendar=\(schedule)
        Persistent=yes
        [Install]
        WantedBy=timers.target

        """
    }

    private func settingLines(_ unit: ServiceUnit) -> [(String, String)] {
        var lines = [("Type", unit.type.rawValue)]
        if unit.type == .oneshot, unit.timer == nil { lines.append(("RemainAfterExit", "yes")) }
        if let account = unit.user ?? user?.name {
            lines += [("User", account), ("Group", account)]
        }
        let isOwn = unit.user == nil || unit.user == user?.name
        if isOwn { lines += stateLines }
        for path in unit.writable { lines.append(("ReadWritePaths", "-\(path)")) }
        lines += environmentLines
        lines += secretLines(unit)
        let wrap = unit.usesWrapper(secrets) ? wrapper + " " : ""
        for command in unit.pre { lines.append(("ExecStartPre", wrapped(command, wrap))) }
        lines.append(("ExecStart", wrapped(unit.exec, wrap)))
        if unit.type != .oneshot { lines += [("Restart", "on-failure"), ("RestartSec", "5")] }
        lines += unit.sandbox.lines
        return replaced(lines, unit.settings)
    }

    private var stateLines: [(String, String)] {
        let own = state.filter(\.isOfSystemd)
        let names = own.map { String($0.path.dropFirst("/var/lib/".utf8.count)) }
        var lines: [(String, String)] = []
        if let first = own.first {
            lines.append(("StateDirectory", names.joined(separator: " ")))
            lines.append(("StateDirectoryMode", first.mode.description))
        }
        for folder in state where !folder.isOfSystemd {
            lines.append(("ReadWritePaths", folder.path))
        }
        return lines
    }

    /// What is the same in all VMs stands in the image; the rest comes with the VM.
    private var environmentLines: [(String, String)] {
        var lines: [(String, String)] = []
        for (name, value) in env.sorted(by: { $0.key < $1.key }) {
            let template = Template(value)
            guard !template.isOfVM else { continue }
            let text = template.pieces.map { piece in
                if case .secret(let secret) = piece {
                    return "%d/\(ServiceCredential.prefix)\(secret)"
                }
                return (Template.text(piece)).replacing("\\", with: "\\\\").replacing(
                    "\"", with: "\\\""
                )
                .replacing("%", with: "%%")
            }.joined()
            lines.append(("Environment", "\"\(name)=\(text)\""))
        }
        if env.values.contains(where: { Template($0).isOfVM }) {
            lines.append(
                (
                    "EnvironmentFile",
                    "-/run/credentials/@system/\(ServiceCredential.prefix)\(ServiceCredential.environment)"
                ))
        }
        return lines
    }

    private func secretLines(_ unit: ServiceUnit) -> [(String, String)] {
        (unit.secrets ?? Array(secrets.keys)).sorted().map { name in
            let full = ServiceCredential.prefix + name
            // A credential that is loaded must be there; one that is imported may be missing.
            return secrets[name]?.optional == true
                ? ("ImportCredential", full) : ("LoadCredential", "\(full):\(full)")
        }
    }

    private func wrapped(_ command: String, _ wrapper: String) -> String {
        let text = Template(command).pieces.map { piece in
            if case .secret(let name) = piece { return "%d/\(ServiceCredential.prefix)\(name)" }
            return Template.text(piece)
        }.joined()
        guard !wrapper.isEmpty else { return text }
        let program = text.firstIndex(of: "/") ?? text.startIndex
        return text[..<program] + wrapper + text[program...]
    }

    /// The lines with settings of the unit's own in the place of those of the same name.
    private func replaced(
        _ lines: [(String, String)], _ settings: [String: String]
    ) -> [(String, String)] {
        let kept = lines.filter { settings[$0.0] == nil }
        return kept + settings.sorted { $0.key < $1.key }
    }
}

extension Template {
    /// A piece as it was written.
    static func text(_ piece: Piece) -> String {
        switch piece {
        case .text(let text): text
        case .variable(let name), .unknown(let name): "${\(name)}"
        case .parameter(let name): "${with.\(name)}"
        case .secret(let name): "${secret.\(name)}"
        case .vmName: "${vm.name}"
        case .vmHost: "${vm.host}"
        }
    }
}

extension ServiceUnit {
    func usesWrapper(_ all: [String: ServiceSecret]) -> Bool {
        (secrets ?? Array(all.keys)).contains { all[$0]?.env != nil }
    }
}
