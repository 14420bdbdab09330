// SPDX-License-Identifier: Apache-2.0
import Linux

/// The programs that decrypt and encrypt for us.
///
/// Plain text goes through their pipes alone: arguments and environment are for everybody to see.
struct Tools: Sendable {
    /// Where they are looked for instead of PATH.
    var searchPath: String?
    /// Where they look for what is theirs.
    var home: String?

    func run(
        _ name: String, package: String, _ arguments: [String], input: [UInt8] = []
    ) async throws(SecretError) -> Output {
        guard let path = findProgram(name, path: searchPath) else {
            throw .missingTool(name: name, package: package)
        }
        var program = Program(path, arguments)
        program.environment =
            ["PATH=\(searchPath ?? environment("PATH") ?? "/usr/bin:/bin")", "LC_ALL=C"]
            + ((home ?? environment("HOME")).map { ["HOME=\($0)"] } ?? [])
        // Without a terminal of its own nothing can stop to ask for a passphrase behind our back.
        program.newSession = true
        do {
            return try await program.capture(input: input)
        } catch let error as SystemError {
            throw .system(error)
        } catch {
            throw .cancelled
        }
    }

    /// Decrypts what `age` encrypted, armored or not.
    ///
    /// What age says is never passed on: for a file that it did not encrypt it quotes the beginning,
    /// and that is the secret itself where somebody forgot to encrypt it.
    func decryptAge(
        _ ciphertext: [UInt8], identity: String, path: String
    ) async throws(SecretError) -> [UInt8] {
        let output = try await run(
            "age", package: "age", ["--decrypt", "--identity", argument(identity)],
            input: ciphertext)
        if output.exit.isSuccess { return output.standardOutput }
        throw Self.complaint(output.errorText, identity: identity, path: path)
    }

    /// What age's refusal means, from versions 1.1 to 1.3.
    static func complaint(_ said: String, identity: String, path: String) -> SecretError {
        if said.contains("any of the recipients") {
            return .undecryptable(
                path: path,
                reason:
                    "it is encrypted for other keys than the one in \(identity); encrypt it for "
                    + "that one too (age-keygen -y \(identity) shows it), or name another identity")
        }
        if said.contains("passphrase") {
            return .undecryptable(
                path: path,
                reason:
                    "it, or the identity \(identity), is locked with a passphrase that nobody can "
                    + "type here; encrypt it for a recipient (age --recipient …) whose identity has "
                    + "none")
        }
        if said.contains("plugin") {
            return .unusable(
                path: identity,
                reason:
                    "it needs a plugin of age that is not installed, or that refuses; install it, "
                    + "or use an identity that age-keygen makes")
        }
        if said.contains("reading \"") || said.contains("identity") {
            return .unusable(
                path: identity,
                reason: "age cannot read an identity in it; it must hold a line that starts with "
                    + "AGE-SECRET-KEY-, or be a private SSH key")
        }
        if said.contains("header") || said.contains("intro") {
            return .damaged(
                path: path,
                reason: "it is nothing that age has encrypted; encrypt it with age --encrypt")
        }
        return .damaged(
            path: path, reason: "it is cut off or was changed; restore it or encrypt it again")
    }

    /// Encrypts for the owner of an identity.
    func encryptAge(
        _ value: SecretBytes, identity: String
    ) async throws(SecretError) -> [UInt8] {
        let output = try await run(
            "age", package: "age", ["--encrypt", "--identity", argument(identity)],
            input: value.bytes)
        guard output.exit.isSuccess else {
            throw .unusable(path: identity, reason: "age cannot encrypt with it (\(output.exit))")
        }
        return output.standardOutput
    }

    /// A path that no program takes for an option or for its input.
    func argument(_ path: String) -> String { path.hasPrefix("/") ? path : "./" + path }
}
