// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux

/// Reads secrets from where a fleet file says they are.
package struct SecretReader: Sendable {
    /// What `~/` at the beginning of a path stands for.
    private let home: String
    private let tools: Tools
    /// The age identity of an `age` source that names none.
    package let ageIdentity: String
    /// The age identity of a `sops` source that names none: the one that the program `sops` takes.
    package let sopsIdentity: String

    /// Bytes that an encrypted file may have: base64, and a line for each of many recipients.
    private static let ciphertextLimit = 1 << 20
    private static let sopsLimit = 4 << 20

    /// - Parameters:
    ///   - home: The folder that holds `.config`; that of the user who runs us unless given.
    ///   - searchPath: Where programs are looked for instead of PATH.
    ///   - variable: The value of an environment variable.
    package init(
        home: String? = nil, searchPath: String? = nil,
        variable: (String) -> String? = environment
    ) {
        // systemd starts services of root without HOME.
        let home = home ?? variable("HOME") ?? "/root"
        self.home = home
        tools = Tools(searchPath: searchPath, home: home)
        func given(_ name: String) -> String? { variable(name).flatMap { $0.isEmpty ? nil : $0 } }
        ageIdentity = home + "/.config/age/key.txt"
        sopsIdentity =
            given("SOPS_AGE_KEY_FILE")
            ?? (given("XDG_CONFIG_HOME") ?? home + "/.config") + "/sops/age/keys.txt"
    }

    /// The file that a source is read from; nil for one that is generated.
    package func file(of source: Secret.Source) -> String? {
        switch source {
        case .age(let path, _), .sops(let path, _, _), .file(let path), .systemdCreds(let path):
            expanded(path)
        case .generate: nil
        }
    }

    /// The value of a secret, now.
    ///
    /// A generated one is made anew with each call: `SecretStore.generated` makes it once. Relative
    /// paths start from the working folder.
    package func read(_ source: Secret.Source) async throws(SecretError) -> SecretBytes {
        switch source {
        case .generate(let form): return .random(form)
        case .age(let path, let identity):
            return try await readAge(
                expanded(path), identity: identity.map(expanded) ?? ageIdentity)
        case .sops(let path, let key, let identity):
            return try await readSops(
                expanded(path), key: key, identity: identity.map(expanded) ?? sopsIdentity)
        case .file(let path): return try SecretFile.value(expanded(path))
        case .systemdCreds(let path): return try await readSystemdCreds(expanded(path))
        }
    }

    private func expanded(_ path: String) -> String {
        path.hasPrefix("~/") ? home + path.dropFirst() : path
    }

    private func readAge(
        _ path: String, identity: String
    ) async throws(SecretError) -> SecretBytes {
        let ciphertext = try SecretFile.ciphertext(path, limit: Self.ciphertextLimit)
        try SecretFile.checkIdentity(identity)
        let value = try await tools.decryptAge(ciphertext, identity: identity, path: path)
        return try SecretBytes(value, name: "the secret in \(path)")
    }

    /// By our own reader, even where the program `sops` is installed: one way to do it.
    private func readSops(
        _ path: String, key: String, identity: String
    ) async throws(SecretError) -> SecretBytes {
        let file = try SopsFile(
            parsing: try SecretFile.ciphertext(path, limit: Self.sopsLimit), path: path)
        let place = try file.find(key)
        try SecretFile.checkIdentity(identity)
        let dataKey = try await file.dataKey(tools, identity: identity)
        return try file.value(at: place, dataKey).checked("the secret '\(key)' in \(path)")
    }

    /// The name that such a file is encrypted under is its own: systemd goes by it as well.
    private func readSystemdCreds(_ path: String) async throws(SecretError) -> SecretBytes {
        let ciphertext = try SecretFile.ciphertext(path, limit: Self.ciphertextLimit)
        let name = Files.name(path)
        let output = try await tools.run(
            "systemd-creds", package: "systemd", ["decrypt", "--name=\(name)", "-", "-"],
            input: ciphertext)
        guard output.exit.isSuccess else {
            throw .undecryptable(path: path, reason: complaint(output.errorText, name: name))
        }
        return try SecretBytes(output.standardOutput, name: "the secret in \(path)")
    }

    private func complaint(_ said: String, name: String) -> String {
        if said.contains("does not match") {
            return
                "it was encrypted under another name; encrypt it with --name=\(name), or give the "
                + "file the name that it was encrypted under"
        }
        if said.contains("null key") {
            return "it is encrypted with the null key, which protects nothing; encrypt it with "
                + "--with-key=host"
        }
        return
            "systemd-creds refuses it: it was encrypted on another host, was changed, or is nothing "
            + "that systemd-creds has encrypted; encrypt it here with systemd-creds encrypt "
            + "--name=\(name)"
    }
}
