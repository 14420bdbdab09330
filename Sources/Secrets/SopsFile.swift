// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux

/// A file that sops encrypted for age, in YAML or JSON.
///
/// Each value stands alone: AES-256-GCM with the path of keys to it as additional data, so that a
/// value that was moved or whose key was renamed no longer opens. What that cannot see, a value taken
/// out of a list or added, the MAC over all values shows; so all of them are decrypted, whichever is
/// asked for.
struct SopsFile {
    let path: String
    private let entries: [Node.Entry]
    private let rules: SopsRules
    private let form: SopsScalar.Form

    init(parsing bytes: [UInt8], path: String) throws(SecretError) {
        self.path = path
        let root: Node
        do throws(Node.Mistake) {
            root = try Node.parse(bytes)
        } catch {
            // Without the reader's own words: they may quote a secret that nobody encrypted.
            throw .unsupported(
                path: path,
                reason:
                    "line \(error.line), column \(error.column) is not what sops writes as YAML or "
                    + "JSON of one document")
        }
        guard let section = root["sops"], !section.entries.isEmpty else {
            throw .unsupported(
                path: path,
                reason:
                    "it has no 'sops' section, so sops did not encrypt it, or not as YAML or JSON; "
                    + "encrypt it: sops encrypt --age age1… --in-place \(path)")
        }
        entries = root.entries.filter { $0.name != "sops" }
        rules = try SopsRules(section, path: path)
        let first = bytes.first { !" \t\r\n".utf8.contains($0) }
        form = first == UInt8(ascii: "{") ? .json : .yaml
    }

    /// The key that all values are encrypted with, decrypted with an age identity.
    func dataKey(_ tools: Tools, identity: String) async throws(SecretError) -> SecretBytes {
        for (_, armored) in rules.keys {
            let key: [UInt8]
            do throws(SecretError) {
                key = try await tools.decryptAge(
                    Array(armored.utf8), identity: identity, path: path)
            } catch {
                // For another recipient, as all but one of them are.
                if case .undecryptable = error { continue }
                throw error
            }
            guard key.count == 32 else { throw damaged("the data key in it is none") }
            return SecretBytes(count: 32) { $0.copyBytes(from: key) }
        }
        throw .undecryptable(
            path: path,
            reason:
                "it is encrypted for \(rules.keys.map(\.recipient).joined(separator: ", ")), and "
                + "\(identity) opens none of them; add your own (age-keygen -y \(identity)): sops "
                + "rotate --in-place --add-age age1… \(path)")
    }

    /// Decrypts the whole file, checks it, and gives the value at a place.
    func value(at place: [SopsStep], _ key: SecretBytes) throws(SecretError) -> SecretBytes {
        let crypto = try Crypto()
        var walk = Walk(file: self, crypto: crypto, key: key, wanted: place)
        if rules.macOnlyEncrypted { walk.hashed.append(SopsRules.macOnlyEncryptedStart) }
        try walk.visit(.mapping(entries), keys: [], place: [])
        try check(walk.hashed, crypto, key)
        guard let found = walk.found else { throw .empty("the value '\(place.text)' in \(path)") }
        return found
    }

    private func check(
        _ hashed: [SecretBytes], _ crypto: Crypto, _ key: SecretBytes
    ) throws(SecretError) {
        guard let sealed = SopsValue(rules.mac),
            let mac = try crypto.open(
                sealed.data, key: key, iv: sealed.iv, tag: sealed.tag,
                additional: Array(rules.lastModified.utf8))
        else {
            throw damaged(
                "'sops.mac' or 'sops.lastmodified' is not what sops wrote; restore the file, or the "
                    + "'sops' section of it")
        }
        guard mac.bytes == Array(try crypto.sha512(hashed).utf8) else {
            throw damaged(
                "its values are not those that sops wrote (the MAC differs): one was added, removed, "
                    + "moved or changed without sops; restore the file")
        }
    }

    fileprivate func damaged(_ reason: String) -> SecretError {
        .damaged(path: path, reason: reason)
    }
}

extension SopsFile {
    /// Finds the place that a key such as `dns.token`, `list.0` or `list[0]` names.
    ///
    /// A name that has dots in it is found as well; the nearest is named when there is none.
    func find(_ key: String) throws(SecretError) -> [SopsStep] {
        let parts = key.split(separator: ".", omittingEmptySubsequences: false).flatMap { part in
            part.split(separator: "[", omittingEmptySubsequences: false).enumerated().map {
                $0.offset > 0 && $0.element.hasSuffix("]")
                    ? String($0.element.dropLast()) : String($0.element)
            }
        }
        var misses = (depth: -1, hint: "")
        guard let (place, node) = find(parts[...], in: .mapping(entries), [], &misses) else {
            throw .noSuchKey(path: path, key: key, hint: misses.hint)
        }
        guard case .scalar = node else {
            throw .noSuchKey(
                path: path, key: key,
                hint: ", but a part with several there: name one of them, such as '\(key)."
                    + "\(first(of: node))'")
        }
        return place
    }

    private func first(of node: Node.Content) -> String {
        if case .mapping(let entries) = node, let entry = entries.first { entry.name } else { "0" }
    }

    private func find(
        _ parts: ArraySlice<String>, in node: Node.Content, _ place: [SopsStep],
        _ misses: inout (depth: Int, hint: String)
    ) -> (place: [SopsStep], node: Node.Content)? {
        guard let name = parts.first else { return (place, node) }
        func miss(_ hint: String) {
            let here = place.isEmpty ? "" : " (below '\(place.text)')"
            if place.count > misses.depth { misses = (place.count, hint + here) }
        }
        switch node {
        case .scalar: miss(": '\(place.text)' is one value, without parts")
        case .sequence(let items):
            guard let index = Int(name), items.indices.contains(index) else {
                miss(": the list '\(place.text)' has \(items.count) values, from 0 on")
                return nil
            }
            return find(
                parts.dropFirst(), in: items[index].content, place + [.index(index)], &misses)
        case .mapping(let entries):
            for count in 1...parts.count {
                let name = parts.prefix(count).joined(separator: ".")
                guard let entry = entries.first(where: { $0.name == name }) else { continue }
                if let found = find(
                    parts.dropFirst(count), in: entry.value.content, place + [.key(name)], &misses)
                {
                    return found
                }
            }
            miss(nearest(name, in: entries.map(\.name)))
        }
        return nil
    }
}

/// One step to a value: into a mapping or into a list.
enum SopsStep: Equatable {
    case key(String)
    case index(Int)
}

extension [SopsStep] {
    /// `dns.tokens[0]`, for messages.
    var text: String {
        var text = ""
        for step in self {
            switch step {
            case .key(let name): text += (text.isEmpty ? "" : ".") + name
            case .index(let index): text += "[\(index)]"
            }
        }
        return text
    }
}

/// Goes through all values in the order of the file, as the MAC wants them.
private struct Walk {
    let file: SopsFile
    let crypto: Crypto
    let key: SecretBytes
    let wanted: [SopsStep]
    var hashed: [SecretBytes] = []
    var found: SecretBytes?

    /// `keys` is the path that values are bound to: it leaves out where in a list they stand.
    mutating func visit(
        _ node: Node.Content, keys: [String], place: [SopsStep]
    ) throws(SecretError) {
        switch node {
        case .mapping(let entries):
            for entry in entries {
                try visit(
                    entry.value.content, keys: keys + [entry.name],
                    place: place + [.key(entry.name)])
            }
        case .sequence(let items):
            for (index, item) in items.enumerated() {
                try visit(item.content, keys: keys, place: place + [.index(index)])
            }
        case .scalar(let text, let isPlain): try leaf(text, isPlain, keys, place)
        }
    }

    private mutating func leaf(
        _ text: String, _ isPlain: Bool, _ keys: [String], _ place: [SopsStep]
    ) throws(SecretError) {
        let scalar = SopsScalar(text, isPlain: isPlain, file.scalarForm)
        // sops leaves out what is nothing.
        if case .null = scalar { return }
        let isEncrypted = try file.encrypts(keys)
        let value: SecretBytes
        if isEncrypted {
            value = try decrypt(text, isPlain, keys, place)
        } else {
            guard let canonical = scalar.hashed else {
                throw .unsupported(
                    path: file.path,
                    reason: "'\(place.text)' is a time that is not encrypted; put it into quotes "
                        + "and have sops write the file again")
            }
            value = Walk.content(canonical)
        }
        if isEncrypted || !file.hashesEncryptedOnly { hashed.append(value) }
        guard place == wanted else { return }
        found = isEncrypted ? shown(value, text) : Walk.content(text)
    }

    private func decrypt(
        _ text: String, _ isPlain: Bool, _ keys: [String], _ place: [SopsStep]
    ) throws(SecretError) -> SecretBytes {
        // sops leaves an empty text as it is.
        if text.isEmpty { return Walk.content("") }
        guard let sealed = SopsValue(text) else {
            throw file.damaged(
                "'\(place.text)' should be encrypted and is not, or it was cut off; restore it, or "
                    + "set it with sops")
        }
        let path = keys.joined(separator: ":") + ":"
        guard
            let value = try crypto.open(
                sealed.data, key: key, iv: sealed.iv, tag: sealed.tag, additional: Array(path.utf8))
        else {
            throw file.damaged(
                "'\(place.text)' does not open: it was changed or moved, or a key on the way to it "
                    + "was renamed, without sops; restore the file")
        }
        return value
    }

    /// As it stood in the file before sops encrypted it: sops keeps `true` as `True`.
    private func shown(_ value: SecretBytes, _ text: String) -> SecretBytes {
        guard SopsValue(text)?.type == .bool else { return value }
        return Walk.content(value.bytes == Array("True".utf8) ? "true" : "false")
    }

    private static func content(_ text: String) -> SecretBytes {
        SecretBytes(count: text.utf8.count) { $0.copyBytes(from: text.utf8) }
    }
}

extension SopsFile {
    fileprivate var scalarForm: SopsScalar.Form { form }
    fileprivate var hashesEncryptedOnly: Bool { rules.macOnlyEncrypted }
    fileprivate func encrypts(_ keys: [String]) throws(SecretError) -> Bool {
        try rules.encrypts(keys, path: path)
    }
}
