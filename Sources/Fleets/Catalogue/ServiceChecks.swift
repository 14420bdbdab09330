// SPDX-License-Identifier: Apache-2.0

/// Checks what no value of a service can know of itself; every mistake stands where it was written.
struct ServiceChecks {
    let service: Service
    let node: Node
    let diagnostics: Diagnostics
    let places: Places

    init(_ file: ServiceFile, _ diagnostics: Diagnostics) {
        service = file.service
        node = file.node
        self.diagnostics = diagnostics
        var places = Places(diagnostics)
        for entry in file.node.entries { places.add(entry.name, entry.value) }
        self.places = places
    }

    func fail(_ key: String, _ steps: [Step] = [], _ message: String) {
        if places.contains(key) { return places.fail(key, steps, message) }
        diagnostics.add(node.mark, key, message)
    }

    /// What must hold before a VM can be made of it; whether it does.
    func check() -> Bool {
        let before = diagnostics.errorCount
        checkNames()
        checkUnits()
        checkPlaceholders()
        checkVM()
        return diagnostics.errorCount == before
    }

    private func checkNames() {
        for name in service.parameters.keys.sorted() where !isWord(name, 64) {
            fail("parameters", [.key(name)], wordRule(name, 64))
        }
        for (name, secret) in service.secrets.sorted(by: { $0.key < $1.key }) {
            let limit = 28 - ServiceCredential.prefix.utf8.count
            if !isWord(name, limit) || name == ServiceCredential.environment {
                fail(
                    "secrets", [.key(name)],
                    "it becomes a credential of the guest: " + wordRule(name, limit)
                        + ", and not '\(ServiceCredential.environment)'")
            }
            if let variable = secret.env {
                checkVariable(variable, "secrets", [.key(name), "env"])
            }
        }
        for name in service.env.keys.sorted() { checkVariable(name, "env", [.key(name)]) }
        for (index, state) in service.state.enumerated()
        where state.mount != nil && service.image.oci == nil {
            fail("state", [.index(index), "mount"], "'mount' is for an image of 'oci'")
        }
        if service.image.oci != nil { checkOCI() }
    }

    /// What an OCI image brings by itself, and where it sees the service's folders.
    private func checkOCI() {
        if service.user != nil {
            fail("user", [], "an OCI image says itself whom its program runs as; leave 'user' out")
        }
        func isWithin(_ path: String, _ other: String) -> Bool {
            path == other || path.hasPrefix(other + "/")
        }
        for (index, state) in service.state.enumerated() {
            guard let mount = state.mount else {
                fail(
                    "state", [.index(index)],
                    "'mount' is missing: where the image expects the folder")
                continue
            }
            let closed = ["/proc", "/sys", "/dev", "/run", "/tmp"]
            if !isPlainPath(mount) || closed.contains(where: { isWithin(mount, $0) }) {
                fail(
                    "state", [.index(index), "mount"],
                    "'\(mount)' is no folder of an image; such are /data and /etc/wiki")
            }
            for own in ["/var/lib/martlet", "/var/lib/martlet-oci"] where isWithin(state.path, own)
            {
                fail("state", [.index(index)], "'\(own)' and what is in it are Martlet's own")
            }
            for other in service.state[..<index] {
                if other.mount == mount {
                    fail(
                        "state", [.index(index), "mount"], "another folder is at '\(mount)' already"
                    )
                }
                // The program could lead what is done to the inner one elsewhere, by a link.
                if isWithin(state.path, other.path) || isWithin(other.path, state.path) {
                    fail(
                        "state", [.index(index)],
                        "'\(state.path)' and '\(other.path)' lie within each other")
                }
            }
        }
    }

    private func checkVariable(_ name: String, _ key: String, _ steps: [Step]) {
        let isFine =
            !name.isEmpty && name.utf8.allSatisfy { isLetterOrDigit($0) || $0 == UInt8(ascii: "_") }
            && name.first?.isNumber == false
        if !isFine { fail(key, steps, "'\(name)' is no name of a variable") }
    }

    private func checkUnits() {
        if service.image.oci != nil, !service.units.isEmpty {
            fail("units", [], "an OCI image brings what it runs; leave 'units' out")
        }
        var names: Set<String> = []
        let accounts = [service.user?.name, "root"].compactMap { $0 }
        for (index, unit) in service.units.enumerated() {
            let at: [Step] = [.index(index)]
            if !names.insert(unit.name).inserted {
                fail("units", at + ["name"], "there is a unit '\(unit.name)' already")
            }
            // Accounts of packages are there when the image is built; others are not.
            if let user = unit.user, !accounts.contains(user), !isOfPackage(user) {
                fail(
                    "units", at + ["user"],
                    "no account '\(user)'" + nearest(user, in: accounts))
            }
            for (place, secret) in (unit.secrets ?? []).enumerated()
            where service.secrets[secret] == nil {
                fail(
                    "units", at + ["secrets", .index(place)],
                    "no secret '\(secret)'" + nearest(secret, in: service.secrets.keys))
            }
        }
    }

    private func isOfPackage(_ user: String) -> Bool {
        ["postgres", "redis", "www-data", "caddy", "daemon", "nobody"].contains(user)
    }

    // MARK: Placeholders

    private func checkPlaceholders() {
        for (name, text) in service.env.sorted(by: { $0.key < $1.key }) {
            let template = Template(text)
            checkNames(template, "env", [.key(name)])
            if template.isOfVM, !template.secrets.isEmpty, service.image.oci == nil {
                fail(
                    "env", [.key(name)],
                    "a parameter and the file of a secret cannot stand in one value: systemd knows "
                        + "the one from a file and the other from the unit")
            }
            if text.utf8.contains(where: { $0 < 0x20 }) {
                fail("env", [.key(name)], "a value of the environment is one line")
            }
        }
        for item in node["vm"]?.texts() ?? [] where item.text.contains("${") {
            let template = Template(item.text)
            checkNames(template, "vm", item.steps)
            if !template.secrets.isEmpty {
                fail("vm", item.steps, "the file of a secret is known to units alone")
            }
        }
        for (index, unit) in service.units.enumerated() {
            checkCommand(unit.exec, [.index(index), "exec"])
            for (place, command) in unit.pre.enumerated() {
                checkCommand(command, [.index(index), "pre", .index(place)])
            }
        }
    }

    private func checkCommand(_ text: String, _ steps: [Step]) {
        let template = Template(text)
        checkNames(template, "units", steps)
        if template.isOfVM {
            fail(
                "units", steps,
                "a unit is part of the image, which all VMs share: put the parameter into 'env', and "
                    + "its variable here")
        }
        let known = Array(service.env.keys) + service.secrets.values.compactMap(\.env)
        let own = ["CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "MAINPID"]
        for name in template.variables where !(known + own).contains(name) {
            fail("units", steps, "no variable '\(name)' in 'env'" + nearest(name, in: known))
        }
    }

    private func checkNames(_ template: Template, _ key: String, _ steps: [Step]) {
        for name in template.parameters where service.parameters[name] == nil {
            fail(
                key, steps,
                "no parameter '\(name)'" + nearest(name, in: service.parameters.keys))
        }
        for name in template.secrets where service.secrets[name] == nil {
            fail(key, steps, "no secret '\(name)'" + nearest(name, in: service.secrets.keys))
        }
        for name in template.unknown {
            fail(
                key, steps,
                "'${\(name)}' stands for nothing: there are ${with.PARAMETER}, ${secret.NAME}, "
                    + "${vm.name} and ${vm.host}")
        }
    }

    // MARK: The partial VM

    /// What is the fleet's to say, or comes from other keys of the file.
    private static let closed = [
        "service", "with", "image", "enable", "host", "interfaces", "uuid", "profiles", "count",
        "credentialPrefix",
    ]

    private func checkVM() {
        guard let vm = node["vm"] else { return }
        let path = Path.key(.root, "vm")
        for entry in vm.entries where ServiceChecks.closed.contains(entry.name) {
            diagnostics.add(
                entry.mark, "vm." + entry.name, "'\(entry.name)' is not the service's to say")
        }
        guard let filled = vm.filled(service.samples) else { return }
        _ = VM.read(Scope(node: filled, path: path, diagnostics: diagnostics))
    }
}

extension Service {
    /// Values that fit, so that what they are put into can be read.
    var samples: ServiceValues {
        var values = ServiceValues(vm: "vm", host: "vm.example.org")
        for (name, parameter) in parameters {
            let sample =
                switch parameter.type {
                case .text: "text"
                case .number: "1024"
                case .boolean: "true"
                case .host: "vm.example.org"
                case .folder: "/srv/\(name)"
                }
            let text = parameter.standard ?? parameter.choices.first ?? sample
            values.parameters[name] = .init(text: text, mark: nil)
        }
        return values
    }
}
