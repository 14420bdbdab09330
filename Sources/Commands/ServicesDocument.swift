// SPDX-License-Identifier: Apache-2.0
import Fleets

/// What the catalogue's services are, as a document; `make docs` writes docs/services.md of it.
enum ServicesDocument {
    /// The whole document, of the services that are part of the program.
    static func text() throws -> String {
        let services = try Catalogue.ids.map { id in
            guard let document = Catalogue.document(id),
                let service = ServiceFile.lint(id, document, known: Catalogue.ids).file?.service
            else { throw Failure(.failed, "the service '\(id)' cannot be read") }
            return service
        }
        return head + index(services)
            + services.map { "\n" + section($0, isPlain: false) }.joined()
    }

    private static let head = """
        # Services

        Made of the files in [catalogue/](../catalogue) by `make docs`; [catalogue.md](catalogue.md) says how they are written.

        A VM takes one of these with `service: ID`, and may say anything of its own besides: what it says wins.

        ```yaml
        vms:
          git:
            service: gitea
            with: { closed: false }
            publish: [{ host: git.example.org }]
        ```

        *Tested* says what was really tried: `booted` is a VM whose check was green, `started` a program that answered outside of a VM, `read` an entry that was checked and whose digests are those that others have for the same files, while nothing was started.


        """

    private static func index(_ services: [Service]) -> String {
        var text = "| ID | what it is | category | tested |\n|---|---|---|---|\n"
        for service in services {
            let mark = service.deprecated == nil ? "" : " (deprecated)"
            text +=
                "| [`\(service.id)`](#\(service.id)) | \(service.name): \(service.summary)\(mark)"
            text += " | \(service.category.rawValue) | \(service.tested.how.rawValue) |\n"
        }
        return text
    }

    /// One service; `isPlain` is for a terminal.
    static func section(_ service: Service, isPlain: Bool) -> String {
        var lines: [String] = []
        func line(_ name: String, _ text: String) {
            if text.isEmpty { return }
            lines.append(isPlain ? "\(name): \(text)" : "- **\(name)**: \(text)")
        }
        func code(_ text: String) -> String { isPlain ? text : "`\(text)`" }
        if let deprecated = service.deprecated {
            let successor = service.successor.map { " Use \(code($0))." } ?? ""
            line("deprecated", deprecated + successor)
        }
        let links = service.links.sorted { $0.key < $1.key }
        line(
            "links",
            links.map { isPlain ? "\($0.value)" : "[\($0.key)](\($0.value))" }
                .joined(separator: ", "))
        line("license", service.license)
        let date = service.tested.date
        line("tested", "\(service.tested.how.rawValue), \(date). \(service.tested.note)")
        line("image", image(service, code))
        line("account", account(service))
        let folders = service.state.map { state in
            code(state.path) + (state.mount.map { ", \(code($0)) in the container" } ?? "")
        }
        line("state", folders.joined(separator: "; "))
        line("page", service.web.map { "port \($0.number)" } ?? "")
        let members = service.vm.json.members.filter { $0.key != "shares" }
        line("VM", members.map { code("\($0.key): \($0.value.flow)") }.joined(separator: ", "))
        for (name, parameter) in service.parameters.sorted(by: { $0.key < $1.key }) {
            line("with \(name)", "\(parameter.help) \(kind(parameter, code))")
        }
        for (name, secret) in service.secrets.sorted(by: { $0.key < $1.key }) {
            let source =
                secret.generate.map { "generated, \($0.rawValue)" }
                ?? (secret.optional ? "may be given" : "must be given")
            line("secret VM-\(name)", "\(secret.help) (\(source))")
        }
        line("first run", service.firstRun)
        for note in service.notes { line("note", note) }
        let title = isPlain ? "\(service.id): " : "## \(service.id)\n\n"
        let version = service.version.map { " \($0)" } ?? ""
        return "\(title)\(service.name)\(version). \(service.summary).\n\n"
            + lines.joined(separator: "\n") + "\n"
    }

    private static func image(_ service: Service, _ code: (String) -> String) -> String {
        let recipe = service.image
        if let oci = recipe.oci { return "OCI, \(code(oci))" }
        var parts: [String] = []
        if let from = recipe.from, from != "core" { parts.append("from \(code(from))") }
        if !recipe.packages.isEmpty {
            parts.append(recipe.packages.map(code).joined(separator: " "))
        }
        for source in recipe.sources {
            let place = source.place.map { $0.url ?? $0.pins.amd64?.url.text ?? "" }
            parts.append(place ?? requirements(source.pip ?? [], code))
        }
        return parts.joined(separator: "; ")
    }

    /// The first of what pip installs, which is the program itself, without its digests.
    private static func requirements(_ all: [String], _ code: (String) -> String) -> String {
        let first = all.first?.prefix { !$0.isWhitespace } ?? ""
        return code(String(first)) + (all.count > 1 ? " and \(all.count - 1) that it needs" : "")
            + " by pip"
    }

    /// With its number and those of its groups, for whoever gives it a folder of the host.
    private static func account(_ service: Service) -> String {
        guard let user = service.user else { return "" }
        let groups = user.groups.map { name in
            var group = ServiceUser()
            group.name = name
            return ", group \(name) (\(group.number))"
        }
        return "\(user.name) (\(user.number))" + groups.joined()
    }

    private static func kind(_ parameter: ServiceParameter, _ code: (String) -> String) -> String {
        var words = [
            parameter.choices.isEmpty
                ? parameter.type.rawValue : parameter.choices.joined(separator: " or ")
        ]
        if parameter.required { words.append("required") }
        if let standard = parameter.standard { words.append("default \(code(standard))") }
        return "(\(words.joined(separator: ", ")))"
    }
}
