// SPDX-License-Identifier: Apache-2.0

extension ServiceChecks {
    /// What makes an entry one that others can rely on.
    func lint(known: [String]) {
        lintWords(known)
        lintUse()
        lintWeb()
        if !service.image.sources.isEmpty, service.provenance.isEmpty {
            fail(
                "image", ["sources"], "'provenance' is missing: who says that the digests are right"
            )
        }
        for (index, source) in service.image.sources.enumerated() {
            lintSource(source, ["sources", .index(index)])
        }
        lintImage()
        for (index, unit) in service.units.enumerated()
        where unit.user == nil && service.user == nil && unit.sandbox != .privileged {
            fail(
                "units", [.index(index)],
                "it would run as root: give the service a 'user', or say 'sandbox: privileged'")
        }
    }

    private func lintWords(_ known: [String]) {
        for (key, text) in [("summary", service.summary), ("name", service.name)] {
            if text.isEmpty || text.utf8.count > 100 || text.utf8.contains(0x0A) {
                fail(key, [], "expected one line of up to 100 characters")
            }
        }
        if service.links["home"] == nil { fail("links", [], "'home' is missing: its own page") }
        for (name, link) in service.links.sorted(by: { $0.key < $1.key })
        where !link.hasPrefix("https://") {
            fail("links", [.key(name)], "expected an address that begins with https://")
        }
        if let successor = service.successor, !known.contains(successor) {
            fail("successor", [], "no service '\(successor)'" + nearest(successor, in: known))
        }
        if service.firstRun.isEmpty {
            fail("firstRun", [], "'firstRun' is missing: what to do once it runs")
        }
    }

    /// What is declared and used by nothing is a mistake of whoever wrote it.
    private func lintUse() {
        let commands = service.units.flatMap { $0.pre + [$0.exec] }
        let texts = (node["vm"]?.texts().map(\.text) ?? []) + service.env.values + commands
        let templates = texts.map { Template($0) }
        let parameters = Set(templates.flatMap(\.parameters))
        for name in service.parameters.keys.sorted() where !parameters.contains(name) {
            fail("parameters", [.key(name)], "nothing uses it: put ${with.\(name)} somewhere")
        }
        let secrets = Set(templates.flatMap(\.secrets))
        let files = service.image.files.values.compactMap(\.text)
        for (name, secret) in service.secrets.sorted(by: { $0.key < $1.key }) {
            let isRead = { (text: String) in
                text.contains("CREDENTIALS_DIRECTORY")
                    && (text.contains(ServiceCredential.prefix + name)
                        || text.contains("\"\(name)\""))
            }
            let isUsed =
                secret.env != nil || secrets.contains(name)
                || (files + commands).contains(where: isRead)
            if !isUsed {
                fail(
                    "secrets", [.key(name)],
                    "nothing uses it: give 'env', put ${secret.\(name)} somewhere, or read "
                        + "$CREDENTIALS_DIRECTORY/\(ServiceCredential.prefix)\(name) in a file of the "
                        + "image")
            }
        }
    }

    private func lintWeb() {
        let filled = node["vm"]?.filled(service.samples)
        let vm = filled.map {
            VM.readPartially(Scope(node: $0, path: .root, diagnostics: Diagnostics()))
        }
        let checks = vm?.health ?? []
        if let web = service.web {
            if !checks.contains(where: { $0.http?.port == web.number }) {
                fail(
                    "web", [],
                    "a page needs a check: 'health: { http: \"http://:\(web.number)/\" }' in 'vm'")
            }
            if vm?.firewall.tcp.contains(web) != true {
                fail("web", [], "'vm.firewall.tcp' does not open it")
            }
        } else if checks.isEmpty {
            fail("vm", [], "'health' is missing: nothing would tell whether it works")
        }
    }

    private func lintImage() {
        Validator(Fleet(), places).checkRecipe(service.image, "image", [])
        for path in service.image.files.keys.sorted()
        where service.files[path] != nil {
            fail("image", ["files", .key(path)], "it is made from the entry already")
        }
    }

    // MARK: Sources

    /// What the reader of recipes leaves open: it takes any file that has a digest.
    private func lintSource(_ source: ImageSource, _ at: [Step]) {
        guard let place = source.place else { return }
        let pins = [("amd64", place.pins.amd64), ("arm64", place.pins.arm64)]
        if let url = place.url {
            lintFile(url, source.sha256 ?? "", at)
        } else if place.pins.amd64 == nil {
            fail("image", at, "there is nothing for amd64")
        }
        for (_, pin) in pins { if let pin { lintFile(pin.url.text, pin.sha256, at) } }
    }

    private func lintFile(_ url: String, _ digest: String, _ at: [Step]) {
        if Set(digest.utf8).count < 6 || digest != digest.lowercased() {
            fail("image", at, "'\(digest)' is no digest of a file, but a placeholder")
        }
        guard url.hasPrefix("https://") else {
            return fail(
                "image", at, "expected an address that begins with https://, found '\(url)'")
        }
        if url.contains("/archive/refs/tags/"), !service.unstable {
            fail(
                "image", at,
                "archives of tags are made on demand, and their bytes have changed before: take an "
                    + "asset of a release, or say 'unstable: true'")
        }
        let isCommit = url.split(whereSeparator: { "/.-".contains($0) }).contains {
            isHexPattern(String($0), String(repeating: "x", count: 40))
        }
        if service.version.map({ url.contains($0) }) != true, !isCommit {
            fail(
                "image", at,
                "neither 'version' nor a commit is part of the address, so what is there will change"
            )
        }
    }
}
