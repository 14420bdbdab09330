// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Glibc
import Linux

/// The values that Martlet keeps itself: those it made, and those it was given.
///
///     ROOT/secrets/identity.key     the age identity that encrypts them, made once (0400)
///     ROOT/secrets/salt.key         what fingerprints are salted with, made once (0400)
///     ROOT/secrets/FLEET/NAME.age   one value (0600)
///
/// The dot keeps the first two from ever being a fleet. Every file appears whole, by one rename:
/// whoever is killed leaves the old or the new, and at most a temporary file that
/// `removeUnfinished` takes away and that nothing reads.
package struct SecretStore: Sendable {
    package let folder: String
    private let tools: Tools

    private var identity: String { folder + "/identity.key" }
    private var salt: String { folder + "/salt.key" }

    /// - Parameters:
    ///   - root: ROOT, where all of Martlet's state is.
    ///   - searchPath: Where programs are looked for instead of PATH.
    package init(root: String, searchPath: String? = nil) {
        folder = root + "/secrets"
        tools = Tools(searchPath: searchPath)
    }

    /// Where a value is kept, or will be.
    package func file(fleet: String, name: String) -> String { "\(folder)/\(fleet)/\(name).age" }

    /// The value, or nil when there is none.
    package func value(
        fleet: String, name: String
    ) async throws(SecretError) -> SecretBytes? {
        let path = try path(fleet, name)
        guard Files.exists(path) else { return nil }
        let ciphertext = try SecretFile.ciphertext(path, limit: 1 << 20)
        try SecretFile.checkIdentity(identity)
        let bytes = try await tools.decryptAge(ciphertext, identity: identity, path: path)
        return try SecretBytes(bytes, name: "the secret in \(path)")
    }

    /// Keeps a value in the place of the one before, of which nothing stays.
    package func set(
        fleet: String, name: String, _ value: SecretBytes
    ) async throws(SecretError) {
        let path = try path(fleet, name)
        let ciphertext = try await encrypt(value)
        try makeFolder(Files.parent(path))
        try secret(path) { () throws(SystemError) in try Files.write(path, ciphertext) }
    }

    /// The value, made now unless it is there already.
    ///
    /// Two that ask at once get the same one.
    package func generated(
        fleet: String, name: String, _ form: GeneratedSecret
    ) async throws(SecretError) -> SecretBytes {
        if let value = try await value(fleet: fleet, name: name) { return value }
        let made = SecretBytes.random(form)
        if try await adopt(fleet: fleet, name: name, made) { return made }
        return try await value(fleet: fleet, name: name) ?? made
    }

    /// Keeps a value where there is none; false when there is one, which stays.
    package func adopt(
        fleet: String, name: String, _ value: SecretBytes
    ) async throws(SecretError) -> Bool {
        let path = try path(fleet, name)
        guard !Files.exists(path) else { return false }
        let ciphertext = try await encrypt(value)
        try makeFolder(Files.parent(path))
        return try write(new: path, ciphertext, mode: 0o600)
    }

    /// Makes a new value in the place of the one before, of which nothing stays.
    package func rotate(
        fleet: String, name: String, _ form: GeneratedSecret
    ) async throws(SecretError) -> SecretBytes {
        let made = SecretBytes.random(form)
        try await set(fleet: fleet, name: name, made)
        return made
    }

    /// Removes a value; a missing one is no error.
    package func remove(fleet: String, name: String) throws(SecretError) {
        let path = try path(fleet, name)
        guard Files.isFolder(Files.parent(path)) else { return }
        try secret(path) { () throws(SystemError) in
            try Files.remove(path)
            try Files.syncFolder(Files.parent(path))
        }
        // Only an empty folder can be removed so.
        rmdir(Files.parent(path))
    }

    /// The names of a fleet's values, sorted.
    package func names(fleet: String) throws(SecretError) -> [String] {
        let folder = try folder(fleet)
        return try secret(folder) { () throws(SystemError) in try Files.list(folder) }
            .filter { $0.hasSuffix(".age") }.map { String($0.dropLast(4)) }.filter(isSecretName)
    }

    /// When a value was last set or made, in seconds since 1970; nil when there is none.
    package func changedAt(fleet: String, name: String) throws(SecretError) -> Int64? {
        let path = try path(fleet, name)
        do throws(SystemError) {
            return try Files.status(path).modified
        } catch {
            if error.isMissing { return nil }
            throw .system(error)
        }
    }

    /// What tells one value from another without keeping either: 64 hexadecimal digits.
    ///
    /// It is HMAC-SHA-256 with a random key of this ROOT's own, so that nobody who has only the
    /// fingerprint can try likely values.
    package func fingerprint(_ value: SecretBytes) throws(SecretError) -> String {
        if !Files.exists(salt) {
            try makeFolder(folder)
            _ = try write(new: salt, randomHex(64).utf8, mode: 0o400)
        }
        let key = try secret(salt) { () throws(SystemError) in
            try Files.readUntrusted(salt, limit: 64)
        }
        guard key.count == 64 else {
            throw .damaged(
                path: salt,
                reason:
                    "it is not what Martlet wrote; remove it, and every secret counts as changed "
                    + "once")
        }
        return value.withBytes { HMAC.sha256(key: key, $0) }
    }

    /// Removes what killed runs were writing; call it while nobody else changes anything.
    package func removeUnfinished() throws(SecretError) {
        try secret(folder) { () throws(SystemError) in
            try Files.removeAbandoned(in: folder)
            for fleet in try Files.list(folder) where Files.isFolder("\(folder)/\(fleet)") {
                try Files.removeAbandoned(in: "\(folder)/\(fleet)")
            }
        }
    }
}

extension SecretStore {
    private func folder(_ fleet: String) throws(SecretError) -> String {
        guard isName(fleet) else { throw .invalidName(fleet) }
        return "\(folder)/\(fleet)"
    }

    private func path(_ fleet: String, _ name: String) throws(SecretError) -> String {
        guard isSecretName(name) else { throw .invalidName(name) }
        return "\(try folder(fleet))/\(name).age"
    }

    private func encrypt(_ value: SecretBytes) async throws(SecretError) -> [UInt8] {
        try await makeIdentity()
        return try await tools.encryptAge(value, identity: identity)
    }

    private func makeIdentity() async throws(SecretError) {
        guard !Files.exists(identity) else { return }
        // A second identity would hide that all values are lost.
        if let fleet = try fleets().first {
            throw .missing(
                path: identity,
                what: "without it the values in \(folder)/\(fleet) cannot be read; restore it, or "
                    + "remove \(folder) and with it all values")
        }
        try makeFolder(folder)
        let output = try await tools.run("age-keygen", package: "age", [])
        guard output.exit.isSuccess, output.text.contains("AGE-SECRET-KEY-") else {
            throw .unusable(path: identity, reason: "age-keygen made no identity (\(output.exit))")
        }
        _ = try write(new: identity, output.standardOutput, mode: 0o400)
    }

    /// The fleets that have values.
    private func fleets() throws(SecretError) -> [String] {
        let all = try secret(folder) { () throws(SystemError) in try Files.list(folder) }
        var found: [String] = []
        for fleet in all where isName(fleet) {
            if try !names(fleet: fleet).isEmpty { found.append(fleet) }
        }
        return found
    }

    private func makeFolder(_ path: String) throws(SecretError) {
        try secret(path) { () throws(SystemError) in
            try Files.makeFolder(folder, mode: 0o700)
            try Files.makeFolder(path, mode: 0o700)
            try Files.setMode(folder, 0o700)
            try Files.setMode(path, 0o700)
            try Files.syncFolder(Files.parent(path))
        }
    }

    /// Writes a file that is not there yet; false when another run was faster, whose file stays.
    private func write(
        new path: String, _ bytes: some Collection<UInt8>, mode: UInt32
    ) throws(SecretError) -> Bool {
        // Named as `Files.removeAbandoned` expects what a killed run leaves.
        let temporary = "\(path).new.\(getpid()).\(randomHex(8))"
        return try secret(path) { () throws(SystemError) in
            try Files.write(temporary, bytes, mode: mode)
            do throws(SystemError) {
                try Files.renameNew(temporary, path)
            } catch {
                unlink(temporary)
                if error.isExisting { return false }
                throw error
            }
            try Files.syncFolder(Files.parent(path))
            return true
        }
    }
}

/// A name as a fleet file takes it; with a dot at its beginning it would be another folder.
private func isSecretName(_ name: String) -> Bool { isWord(name, 64) && !name.hasPrefix(".") }

/// HMAC (RFC 2104).
enum HMAC {
    /// In lower-case hexadecimal; the key has at most 64 bytes.
    static func sha256(key: [UInt8], _ message: UnsafeRawBufferPointer) -> String {
        let block = key + [UInt8](repeating: 0, count: 64 - key.count)
        var inner = SHA256()
        inner.update(block.map { $0 ^ 0x36 })
        inner.update(message)
        let digest = Array(inner.finish().utf8)
        var outer = SHA256()
        outer.update(block.map { $0 ^ 0x5c })
        outer.update(
            stride(from: 0, to: digest.count, by: 2).map {
                digit(digest[$0]) << 4 | digit(digest[$0 + 1])
            })
        return outer.finish()
    }

    private static func digit(_ character: UInt8) -> UInt8 {
        character < UInt8(ascii: "a")
            ? character - UInt8(ascii: "0") : character - UInt8(ascii: "a") + 10
    }
}
