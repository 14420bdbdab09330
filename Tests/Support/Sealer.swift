// SPDX-License-Identifier: Apache-2.0
import CCrypto
import Linux

@testable package import Secrets

/// A value of a file that sops encrypts.
package indirect enum Tree {
    case map([(String, Tree)])
    case list([Tree])
    /// What sops keeps of it, and its type.
    case sealed(String, String = "str")
    /// Written as it is; what of it goes into the MAC.
    case plain(String, hashed: String?)
}

/// Writes files as sops does, and an age identity to read them with.
package struct Sealer {
    package let folder: TemporaryFolder
    package let identity: String
    package let recipient: String
    package let dataKey: [UInt8]
    package var rule = "unencrypted_suffix: _unencrypted"
    package var macOnlyEncrypted = false
    package var lastModified = "2026-01-02T03:04:05Z"
    package var version = "3.10.2"
    /// Further lines of the `sops` section.
    package var extra: [String] = []

    package static let programs = "/usr/bin:/bin"

    package init() async throws {
        // As martlet does: a program that fails early leaves its input unread.
        Signals.ignoreBrokenPipes()
        folder = try TemporaryFolder()
        identity = folder.path + "/key.txt"
        (recipient, dataKey) = (
            try await Sealer.makeIdentity(identity),
            (0..<32).map { _ in UInt8.random(in: 0...255) }
        )
    }

    /// Makes an age identity; gives its recipient.
    package static func makeIdentity(_ path: String) async throws -> String {
        let output = try await Program("/usr/bin/age-keygen").capture()
        try Files.write(path, output.standardOutput, mode: 0o400)
        let line = output.text.split(separator: "\n").first { $0.contains("public key: ") } ?? ""
        return String(line.dropFirst("# public key: ".count))
    }

    /// Encrypts for age, armored.
    package static func armor(_ bytes: [UInt8], _ recipient: String) async throws -> [String] {
        let output = try await Program(
            "/usr/bin/age", ["--encrypt", "--armor", "--recipient", recipient]
        ).capture(input: bytes)
        return output.text.split(separator: "\n").map(String.init)
    }

    /// The lines of a file in YAML.
    package func yaml(_ entries: [(String, Tree)]) async throws -> String {
        var hashed: [UInt8] = []
        if macOnlyEncrypted {
            hashed = SopsRules.macOnlyEncryptedStart.bytes
        }
        let body = lines(entries, "", &hashed)
        let armored = try await Sealer.armor(dataKey, recipient)
        let section =
            ["sops:", "    age:", "        - recipient: \(recipient)", "          enc: |"]
            + armored.map { "            " + $0 }
            + [
                "    lastmodified: \"\(lastModified)\"",
                "    mac: \(seal(try Crypto().sha512([secret(hashed)]), lastModified))",
                "    \(rule)", "    version: \(version)",
            ] + (macOnlyEncrypted ? ["    mac_only_encrypted: true"] : []) + extra
        return (body + section).joined(separator: "\n") + "\n"
    }

    private func lines(
        _ entries: [(String, Tree)], _ path: String, _ hashed: inout [UInt8], _ indent: String = ""
    ) -> [String] {
        var lines: [String] = []
        for (name, tree) in entries {
            let path = path + name + ":"
            switch tree {
            case .map(let entries):
                lines.append("\(indent)\(name):")
                lines += self.lines(entries, path, &hashed, indent + "    ")
            case .list(let items):
                lines.append("\(indent)\(name):")
                for item in items {
                    lines.append("\(indent)    - " + scalar(item, path, &hashed))
                }
            default: lines.append("\(indent)\(name): " + scalar(tree, path, &hashed))
            }
        }
        return lines
    }

    private func scalar(_ tree: Tree, _ path: String, _ hashed: inout [UInt8]) -> String {
        switch tree {
        case .sealed(let text, let type):
            hashed += Array(text.utf8)
            return seal(text, path, type)
        case .plain(let text, let bytes):
            if !macOnlyEncrypted { hashed += Array((bytes ?? "").utf8) }
            return text
        default: return ""
        }
    }

    /// One encrypted value.
    package func seal(_ text: String, _ additional: String, _ type: String = "str") -> String {
        guard !text.isEmpty, let functions = ml_crypto()?.pointee,
            let context = functions.EVP_CIPHER_CTX_new()
        else { return "\"\"" }
        defer { functions.EVP_CIPHER_CTX_free(context) }
        let iv = (0..<32).map { _ in UInt8.random(in: 0...255) }
        let (plain, additional) = (Array(text.utf8), Array(additional.utf8))
        var out = [UInt8](repeating: 0, count: plain.count + 16)
        var tag = [UInt8](repeating: 0, count: 16)
        var count: Int32 = 0
        _ = functions.EVP_CipherInit_ex(context, functions.EVP_aes_256_gcm(), nil, nil, nil, 1)
        _ = functions.EVP_CIPHER_CTX_ctrl(context, Int32(ml_gcm_set_iv_length), 32, nil)
        _ = functions.EVP_CipherInit_ex(context, nil, nil, dataKey, iv, 1)
        _ = functions.EVP_CipherUpdate(context, nil, &count, additional, Int32(additional.count))
        _ = functions.EVP_CipherUpdate(context, &out, &count, plain, Int32(plain.count))
        var rest: Int32 = 0
        _ = functions.EVP_CipherFinal_ex(context, nil, &rest)
        _ = functions.EVP_CIPHER_CTX_ctrl(context, Int32(ml_gcm_get_tag), 16, &tag)
        let fields = [Array(out.prefix(plain.count)), iv, tag].map(encode)
        return "ENC[AES256_GCM,data:\(fields[0]),iv:\(fields[1]),tag:\(fields[2]),type:\(type)]"
    }
}

package func encode(_ bytes: [UInt8]) -> String {
    var text = ""
    for start in stride(from: 0, to: bytes.count, by: 3) {
        let piece = bytes[start...].prefix(3)
        let bits = (0..<3).reduce(UInt32(0)) {
            $0 << 8 | ($1 < piece.count ? UInt32(piece[start + $1]) : 0)
        }
        for place in 0..<4 {
            let digit = Base64.digits[Int(bits >> UInt32(18 - 6 * place) & 63)]
            text += place <= piece.count ? String(UnicodeScalar(digit)) : "="
        }
    }
    return text
}

package func secret(_ bytes: [UInt8]) -> SecretBytes {
    SecretBytes(count: bytes.count) { $0.copyBytes(from: bytes) }
}

package func secret(_ text: String) -> SecretBytes { secret(Array(text.utf8)) }

extension SecretBytes {
    package var text: String { String(decoding: bytes, as: UTF8.self) }
}
