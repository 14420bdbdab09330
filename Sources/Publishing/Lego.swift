// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux

/// Why lego brought no certificate.
package enum LegoError: Error, Equatable, CustomStringConvertible {
    case missing
    case noAccount
    case unknownVariable(provider: String)
    case badLine(Int)
    case badName(String)
    case failed(String)
    case timeout

    package var description: String {
        switch self {
        case .missing:
            "lego is not installed; it asks for certificates by DNS: 'apt-get install lego'"
        case .noAccount: "an ACME account needs `publishing.email`"
        case .unknownVariable(let provider):
            "the secret is a single value, and which variable '\(provider)' wants it in is not known "
                + "here: write it as lines of KEY=VALUE ('lego dnshelp -c \(provider)' names the keys)"
        case .badLine(let number): "line \(number) of the secret is not KEY=VALUE"
        case .badName(let name):
            "the secret sets \(name), which is not for a DNS provider"
        case .failed(let reason): "lego: \(reason)"
        case .timeout: "lego did not come to an end within 15 minutes"
        }
    }
}

/// One order of a certificate by DNS-01.
package struct Lego: Sendable {
    package static let program = "lego"

    private let host: String
    private let provider: String
    private let settings: Publishing
    private let folder: String
    private let authority: String?

    /// `folder` keeps account and certificates and is its user's; `authority` is whom to trust for the
    /// ACME server, in a file that its user can read.
    package init(
        host: String, provider: String, settings: Publishing, folder: String, authority: String?
    ) {
        self.host = host
        self.provider = provider
        self.settings = settings
        self.folder = folder
        self.authority = authority
    }

    /// The command line; nothing secret is in it.
    func words(_ program: String) throws(LegoError) -> [String] {
        guard let email = settings.email else { throw .noAccount }
        return [
            program, "--accept-tos", "--email=\(email)", "--server=\(settings.acme)",
            "--domains=\(host)", "--dns=\(provider)", "--path=\(folder)", "run",
        ]
    }

    /// The variables that a secret stands for: lines of KEY=VALUE, or one value in the variable that
    /// the provider is known to want.
    func variables(_ secret: [UInt8]) throws(LegoError) -> [String] {
        // By bytes: to a string, "\r\n" is one character.
        let lines = secret.split(separator: 10, omittingEmptySubsequences: false).map { line in
            String(decoding: line.last == 13 ? line.dropLast() : line, as: UTF8.self)[...]
        }
        let written = lines.enumerated().filter {
            !$0.element.isEmpty && !$0.element.hasPrefix("#")
        }
        if written.count == 1, let only = written.first, Lego.name(of: only.element) == nil {
            guard let name = Lego.variable[provider] else {
                throw .unknownVariable(provider: provider)
            }
            return ["\(name)=\(only.element)"]
        }
        var variables: [String] = []
        for (index, line) in written {
            guard let name = Lego.name(of: line) else { throw .badLine(index + 1) }
            // Those of the loader and of the shell are no provider's.
            if name.hasPrefix("LD_") || ["PATH", "HOME", "SHELL", "IFS"].contains(name) {
                throw .badName(name)
            }
            variables.append(String(line))
        }
        return variables
    }

    private static func name(of line: Substring) -> String? {
        guard let equals = line.firstIndex(of: "="), equals != line.startIndex else { return nil }
        let name = line[..<equals]
        let isName = name.utf8.allSatisfy {
            (65...90).contains($0) || (48...57).contains($0) || $0 == 95
        }
        return isName ? String(name) : nil
    }

    /// What providers that want one value want it in, from `lego dnshelp` (4.9).
    static let variable = [
        "cloudflare": "CF_DNS_API_TOKEN", "desec": "DESEC_TOKEN", "digitalocean": "DO_AUTH_TOKEN",
        "dnsimple": "DNSIMPLE_OAUTH_TOKEN", "duckdns": "DUCKDNS_TOKEN", "gandi": "GANDI_API_KEY",
        "gandiv5": "GANDIV5_API_KEY", "hetzner": "HETZNER_API_KEY", "ionos": "IONOS_API_KEY",
        "linode": "LINODE_TOKEN", "netlify": "NETLIFY_TOKEN", "njalla": "NJALLA_TOKEN",
        "vultr": "VULTR_API_KEY",
    ]

    /// The files of this host that a secret names: those of keys (`..._FILE`), and the program of the
    /// provider `exec`.
    static func files(in variables: [String]) -> [String] {
        variables.compactMap { line in
            let parts = line.split(separator: "=", maxSplits: 1)
            guard parts.count == 2, parts[0] == "EXEC_PATH" || parts[0].hasSuffix("_FILE"),
                parts[1].hasPrefix("/")
            else { return nil }
            return String(parts[1])
        }
    }

    /// What it sees of this host: what is its own, and what the secret names.
    private func launcher(_ user: UInt32?, _ variables: [String]) -> Launcher {
        // What is not there is for lego to say. None is optional: a link would be one in its view, too,
        // and lead nowhere.
        let readable = ([authority].compactMap { $0 } + ["/etc/hosts"] + Lego.files(in: variables))
            .filter { Files.exists($0) && !Files.isFolder($0) }
            .map { Sandbox.Place($0, .readable) }
        return Launcher(
            user: user,
            places: Sandbox.resolver() + readable + [Sandbox.Place(folder, .writable)],
            hidden: [], stage: folder)
    }

    /// Gets the certificate; `user` is whom lego runs as, nil for whoever runs martlet.
    package func run(secret: [UInt8], user: UInt32?) async throws {
        guard let path = findProgram(Lego.program) else { throw LegoError.missing }
        let variables = try variables(secret)
        var program = try launcher(user, variables).program(try words(path))
        program.environment =
            ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=\(folder)"]
            + (authority.map { ["LEGO_CA_CERTIFICATES=\($0)"] } ?? []) + variables
        let prepared = program
        let output = try await withThrowingTaskGroup(of: Output?.self) { group in
            group.addTask {
                try await prepared.withWalls { try await $0.capture(limit: 1 << 20) }
            }
            group.addTask {
                try await Task.sleep(for: .seconds(900))
                return nil
            }
            defer { group.cancelAll() }
            guard let first = try await group.next(), let output = first else {
                throw LegoError.timeout
            }
            return output
        }
        guard !output.exit.isSuccess else { return }
        throw LegoError.failed(Lego.reason(output.errorText + output.text))
    }

    /// The last line that says something, without its time.
    static func reason(_ text: String) -> String {
        let lines = text.split(separator: "\n").map { $0.drop { $0 == " " || $0 == "\t" } }
        guard
            let start = lines.lastIndex(where: { $0.contains("Could not") || $0.contains("error:") }
            )
        else { return lines.last.map { String($0.prefix(400)) } ?? "it ended without a word" }
        let words = lines[start...].joined(separator: " ")
        // 2026/01/31 12:34:56
        let isTimed = words.utf8.count > 20 && words.utf8.dropFirst(4).first == 47
        return String((isTimed ? words.dropFirst(20) : words[...]).prefix(400))
    }
}
