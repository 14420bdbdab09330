// SPDX-License-Identifier: Apache-2.0
import Fleets

/// The `sops` section of a file: for whom it is encrypted, what in it is, and its MAC.
struct SopsRules {
    /// The data key, encrypted for one recipient each, in armored form.
    let keys: [(recipient: String, armored: String)]
    let mac: String
    /// As written: the MAC is bound to these very characters.
    let lastModified: String
    let macOnlyEncrypted: Bool
    private let rule: Rule

    private enum Rule {
        case unencryptedSuffix(String)
        case encryptedSuffix(String)
        case unencryptedRegex(String)
        case encryptedRegex(String)
    }

    /// What sops hashes first when only encrypted values count, so that no MAC fits both ways.
    static let macOnlyEncryptedStart = SecretBytes(count: 32) {
        $0.copyBytes(
            from: [
                0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47,
                0xbe, 0x0b, 0x0b, 0x97, 0x5b, 0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81,
                0x76, 0xf2, 0x7d, 0x69,
            ] as [UInt8])
    }

    init(_ section: Node, path: String) throws(SecretError) {
        try Self.checkKind(section, path)
        keys = Self.keys(section["age"])
        guard !keys.isEmpty else {
            throw .unsupported(
                path: path,
                reason:
                    "it has no age recipient, and other kinds of keys are not read here; add one: "
                    + "sops rotate --in-place --add-age age1… \(path)")
        }
        guard let mac = Self.text("mac", section),
            let lastModified = Self.text("lastmodified", section)
        else {
            throw .unsupported(
                path: path,
                reason: "it has no MAC ('sops.mac' and 'sops.lastmodified'), so nobody can tell "
                    + "whether it was changed; have sops write it again")
        }
        self.mac = mac
        self.lastModified = lastModified
        macOnlyEncrypted = Self.text("mac_only_encrypted", section) == "true"
        rule = try Self.rule(section, path)
    }

    private static func text(_ name: String, _ section: Node) -> String? {
        guard let node = section[name], case .scalar(let text, _) = node.content, !node.isNull,
            !text.isEmpty
        else { return nil }
        return text
    }

    private static func checkKind(_ section: Node, _ path: String) throws(SecretError) {
        guard let version = text("version", section) else {
            throw .unsupported(
                path: path,
                reason: "it does not say which version of sops wrote it ('sops.version')")
        }
        guard version.hasPrefix("3.") else {
            throw .unsupported(
                path: path,
                reason: "another version of sops than 3 wrote it; write it again with sops 3")
        }
        if let groups = section["key_groups"], !isEmpty(groups) {
            throw .unsupported(
                path: path,
                reason: "its key is split over key groups (Shamir's secret sharing), which Martlet "
                    + "does not put together; encrypt it with one group: take key_groups out of "
                    + ".sops.yaml and run sops updatekeys \(path)")
        }
    }

    private static func rule(_ section: Node, _ path: String) throws(SecretError) -> Rule {
        var rules: [Rule] = []
        if let suffix = text("unencrypted_suffix", section) {
            rules.append(.unencryptedSuffix(suffix))
        }
        if let suffix = text("encrypted_suffix", section) { rules.append(.encryptedSuffix(suffix)) }
        if let regex = text("unencrypted_regex", section) { rules.append(.unencryptedRegex(regex)) }
        if let regex = text("encrypted_regex", section) { rules.append(.encryptedRegex(regex)) }
        for name in ["unencrypted_comment_regex", "encrypted_comment_regex"]
        where text(name, section) != nil {
            throw .unsupported(
                path: path,
                reason:
                    "what in it is encrypted depends on comments ('sops.\(name)'), which are not "
                    + "read here; choose by a suffix or a regex of keys instead")
        }
        guard rules.count <= 1 else {
            throw .unsupported(
                path: path, reason: "it has two rules of what is encrypted, and sops allows one")
        }
        // The suffix that sops takes when nothing else is said.
        return rules.first ?? .unencryptedSuffix("_unencrypted")
    }

    private static func isEmpty(_ node: Node) -> Bool {
        switch node.content {
        case .scalar: node.isNull
        case .sequence(let items): items.isEmpty
        case .mapping(let entries): entries.isEmpty
        }
    }

    private static func keys(_ node: Node?) -> [(recipient: String, armored: String)] {
        guard case .sequence(let items)? = node?.content else { return [] }
        return items.compactMap { item in
            guard case .scalar(let armored, _)? = item["enc"]?.content else { return nil }
            guard case .scalar(let recipient, _)? = item["recipient"]?.content else { return nil }
            return (recipient, armored)
        }
    }

    /// Whether the value at a path of keys is encrypted: any key on the way decides.
    func encrypts(_ keys: [String], path: String) throws(SecretError) -> Bool {
        switch rule {
        case .unencryptedSuffix(let suffix): return !keys.contains { $0.hasSuffix(suffix) }
        case .encryptedSuffix(let suffix): return keys.contains { $0.hasSuffix(suffix) }
        case .unencryptedRegex(let regex):
            return try !matches(keys, regex, "unencrypted_regex", path)
        case .encryptedRegex(let regex): return try matches(keys, regex, "encrypted_regex", path)
        }
    }

    private func matches(
        _ keys: [String], _ pattern: String, _ name: String, _ path: String
    ) throws(SecretError) -> Bool {
        guard let regex = try? Regex(pattern).matchingSemantics(.unicodeScalar) else {
            throw .unsupported(
                path: path,
                reason:
                    "its rule 'sops.\(name)' is a regular expression that is not understood here; "
                    + "choose a simpler one, or a suffix")
        }
        return keys.contains { $0.firstMatch(of: regex) != nil }
    }
}
