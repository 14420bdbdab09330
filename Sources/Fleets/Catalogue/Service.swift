// SPDX-License-Identifier: Apache-2.0

/// A ready-made VM of the catalogue, as its file declares it.
///
/// What concerns the image and the VM is written in the fleet file's own words: `image` is an
/// image's recipe, and `vm` a partial VM that is merged like a profile.
package struct Service: Record {
    package var id = ""
    package var name = ""
    package var category = ServiceCategory.tools
    package var summary = ""
    package var version: String?
    package var links: [String: String] = [:]
    package var license = ""
    package var tested = ServiceTested()
    package var deprecated: String?
    package var successor: String?
    package var provenance: [String] = []
    package var unstable = false
    package var image = ImageRecipe()
    /// As written: placeholders make values of it only in a VM.
    package var vm = Parameters()
    /// The port of its web page, where `publish` leads.
    package var web: Port?
    package var user: ServiceUser?
    package var state: [ServiceState] = []
    package var parameters: [String: ServiceParameter] = [:]
    package var secrets: [String: ServiceSecret] = [:]
    package var env: [String: String] = [:]
    package var units: [ServiceUnit] = []
    package var firstRun = ""
    package var notes: [String] = []

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("name", &name, .required, "What people call it.")
        key("category", &category, .required, "Where lists show it.")
        key("summary", &summary, .required, "What it is for, in one line.")
        key("version", &version, "The version of what does not come from Debian.")
        key("links", &links, "Pages about it, such as home, docs and source.")
        key("license", &license, .required, "The licence, as SPDX writes it.")
        key("tested", &tested, .required, "How far it was tried.")
        key("deprecated", &deprecated, "Why it should not be used any more.")
        key("successor", &successor, "The service to use instead.")
        key("provenance", &provenance, "Who else says that the digests are right.")
        key("unstable", &unstable, "Whether an archive is made on demand, so that it may change.")
        key("image", &image, "An image's recipe.")
        key("vm", &vm, "A partial VM.")
        key("web", &web, "The port of its web page, where `publish` leads.")
        key("user", &user, "The account that it runs as.")
        key("state", &state, "Folders of the data volume that it keeps its data in.")
        key("parameters", &parameters, "What `with` may set.")
        key("secrets", &secrets, "What it is handed as credentials.")
        key("env", &env, "Environment of its units.")
        key("units", &units, "The units that run it.")
        key("firstRun", &firstRun, "What to do once it runs.")
        key("notes", &notes, "What one should know.")
    }
}

package enum ServiceCategory: String, Choice {
    case media, downloads, network, forge, documents, finance, passwords, search, browser, chat
    case development, containers, tools
}

/// How far a service was tried, and when.
package struct ServiceTested: Record {
    package enum Degree: String, Choice {
        /// A VM of it was started, and its check was green.
        case booted
        /// Its program was started outside of a VM, and answered.
        case started
        /// Nothing was started: the entry was checked, and pins were compared with what others say.
        case read
    }

    package var how = Degree.read
    package var date = ""
    package var note = ""

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("how", &how, .required, "booted, started or read.")
        key("date", &date, .required, "The day, such as 2026-11-20.")
        key("note", &note, .required, "What exactly.")
    }

    package mutating func finish(_ scope: Scope) {
        if !isDate(date) { scope.fail("'date' is a day such as 2026-11-20, found '\(date)'") }
    }

    private func isDate(_ text: String) -> Bool {
        let parts = text.pieces("-").map { Int($0) ?? 0 }
        return text.utf8.count == 10 && parts.count == 3 && parts[0] > 2000
            && (1...12).contains(parts[1]) && (1...31).contains(parts[2])
    }
}

/// The account that a service runs as.
package struct ServiceUser: Record {
    package var name = ""
    package var uid: Int?
    package var home: String?
    package var groups: [String] = []

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("name", &name, .required, "The login name.")
        key("uid", &uid, "Its number; made from the name unless given.")
        key("home", &home, "Its home; the first folder of `state` unless given.")
        key("groups", &groups, "Further groups of the image.")
    }

    package mutating func finish(_ scope: Scope) {
        if !isAccountName(name) {
            scope.fail("'\(name)' is no login name: a-z first, then a-z, 0-9, '-', '_'")
        }
        if let uid, !(2_000..<20_000).contains(uid) {
            scope.fail(
                "'uid' must be from 2000 to 19999, which no package and no user of the fleet takes")
        }
    }

    /// The number that its files on the data volume belong to.
    ///
    /// It must not move when an image is built again, so it is not left to what is free by then.
    package var number: Int {
        if let uid { return uid }
        // FNV-1a: Swift's own hash differs from run to run.
        var hash: UInt32 = 2_166_136_261
        for byte in name.utf8 { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
        return 2_000 + Int(hash % 18_000)
    }
}

/// A folder that a service keeps data in.
package struct ServiceState: Record {
    package var path = ""
    package var mode = FileMode(bits: 0o700)
    package var mount: String?

    package init() {}

    package static func read(_ scope: Scope) -> ServiceState? {
        if case .scalar = scope.node.content, let path = String.read(scope) {
            var state = ServiceState()
            state.path = path
            state.finish(scope)
            return state
        }
        return readRecord(scope)
    }
    package static var schema: JSONValue { ["anyOf": [String.schema, recordSchema]] }

    package mutating func declare(_ key: Fields) {
        key("path", &path, .required, "The folder, below /var.")
        key("mode", &mode, "Permissions in octal, in quotes.")
        key("mount", &mount, "Where an OCI image expects it.")
    }

    package mutating func finish(_ scope: Scope) {
        if !isPlainPath(path) || !path.hasPrefix("/var/") {
            scope.fail("state is a folder below /var, which is the data volume, found '\(path)'")
        }
    }
}

/// Something about a service that a fleet may choose.
package struct ServiceParameter: Record {
    package enum Kind: String, Choice { case text, number, boolean, host, folder }

    package var type = Kind.text
    package var standard: String?
    package var required = false
    package var choices: [String] = []
    package var help = ""

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("type", &type, "text, number, boolean, host (a host name) or folder (of the host).")
        var value = standard.map { UnitSetting(text: $0) }
        key("default", &value, "What holds unless given; without it, all that uses it is left out.")
        standard = value?.text
        key("required", &required, "Whether it must be given.")
        key("choices", &choices, "The words that it may be.")
        key("help", &help, .required, "What it does.")
    }

    package mutating func finish(_ scope: Scope) {
        if required, standard != nil { scope.fail("what is 'required' has no 'default'") }
        if let standard, let problem = problem(standard) {
            scope.fail("the default is wrong: \(problem)")
        }
    }

    /// What is wrong with a value; nil when it can be taken.
    func problem(_ text: String) -> String? {
        let what: String
        let isRight: Bool
        switch type {
        case .text: (what, isRight) = ("a line of text", true)
        case .number: (what, isRight) = ("a whole number", Int(text) != nil)
        case .boolean: (what, isRight) = ("true or false", text == "true" || text == "false")
        case .host: (what, isRight) = ("a host name such as git.example.org", isHostName(text))
        case .folder: (what, isRight) = ("a folder of the host", !text.isEmpty)
        }
        if !isRight || text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7F }) {
            return
                "expected \(what), found '\(text.map { $0.isNewline ? " " : $0 }.prefix(40).map(String.init).joined())'"
        }
        if !choices.isEmpty, !choices.contains(text) {
            return "expected one of \(choices.joined(separator: ", ")), found '\(text)'"
        }
        return nil
    }
}

/// A secret that a service is handed as a credential.
package struct ServiceSecret: Record {
    package var generate: GeneratedSecret?
    package var env: String?
    package var optional = false
    package var help = ""

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("generate", &generate, "Make it once: the form it has. Else the fleet has to give it.")
        key("env", &env, "The variable, where the program takes it in no other way.")
        key("optional", &optional, "Whether the service works without.")
        key("help", &help, .required, "What it is for.")
    }
}
