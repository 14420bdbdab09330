// SPDX-License-Identifier: Apache-2.0
package import Fleets
import FoundationEssentials
import Linux

/// How whole the content of a picture of a VM's disks is.
package enum Consistency: String, Codable, Sendable {
    /// The guest's file systems were frozen: everything that was written is there.
    case frozen
    /// The VM did not run.
    case stopped
    /// As after a power cut.
    case crash
}

package enum BackupKind: String, Codable, Sendable {
    case full
    /// Holds what changed since its parent.
    case incremental
}

/// The first member of an archive, `backup.json`: what it is and what it rests on.
package struct BackupHeader: Codable, Sendable, Equatable {
    package static let newest = 2
    /// 2 where there are members below `secrets/`, which a reader of before knows nothing of.
    package let version: Int
    package let id: String
    package let vm: String
    package let fleet: String?
    /// Seconds since 1970: the moment that the disks are of.
    package let createdAt: Int64
    package let consistency: Consistency
    /// Why it is not better.
    package let why: String?
    package let parent: Parent?
    /// The VM's configuration at that time, as in `generations/N.json`.
    package let generation: JSONValue
    package let disks: [Disk]

    package struct Parent: Codable, Sendable, Equatable {
        package let id: String
        /// SHA-256 of its `manifest.json`.
        package let manifest: String

        package init(id: String, manifest: String) {
            self.id = id
            self.manifest = manifest
        }
    }

    package struct Disk: Codable, Sendable, Equatable {
        package let name: String
        /// qcow2, raw or device: how the host keeps it.
        package let format: String
        /// Bytes that the guest sees.
        package let bytes: Int64
        package let kind: BackupKind

        package init(name: String, format: String, bytes: Int64, kind: BackupKind) {
            self.name = name
            self.format = format
            self.bytes = bytes
            self.kind = kind
        }
    }

    package init(
        id: String, vm: String, fleet: String?, createdAt: Int64, consistency: Consistency,
        why: String?, parent: Parent?, generation: JSONValue, disks: [Disk],
        hasSecrets: Bool = false
    ) {
        version = hasSecrets ? 2 : 1
        self.id = id
        self.vm = vm
        self.fleet = fleet
        self.createdAt = createdAt
        self.consistency = consistency
        self.why = why
        self.parent = parent
        self.generation = generation
        self.disks = disks
    }

    package var kind: BackupKind { parent == nil ? .full : .incremental }
}

/// The member `manifest.json`, the last but one: what every other member must be.
package struct BackupManifest: Codable, Sendable, Equatable {
    package static let version = 1
    package var version = BackupManifest.version
    package var members: [Member] = []
    package var disks: [DiskMap] = []

    package init() {}

    package struct Member: Codable, Sendable, Equatable {
        package let name: String
        /// Bytes that are stored; of a disk, without its holes.
        package let bytes: Int64
        /// SHA-256 of those bytes.
        package let sha256: String
    }

    /// What a disk's member holds; of an incremental one, everything else is as in its parent.
    package struct DiskMap: Codable, Sendable, Equatable {
        package let name: String
        package let data: [Extent]
        package let zeros: [Extent]
    }
}

/// What is known of a backup without reading it: the file `ID.json` beside its archive.
///
/// It can be lost: everything but `verified` stands in the archive itself.
package struct BackupRecord: Codable, Sendable, Equatable {
    package static let version = 1
    package var version = BackupRecord.version
    package let id: String
    package let vm: String
    package var fleet: String?
    /// Nil where only the archive could tell and that is encrypted.
    package var kind: BackupKind?
    package var parent: String?
    package let createdAt: Int64
    /// Of the archive's file.
    package var bytes: Int64
    package var consistency: Consistency?
    package var why: String?
    package let encrypted: Bool
    /// The secrets that it holds, by name.
    package var secrets: [String]?
    /// Those that belong to it and are not in it, by name, and why.
    package var secretsLeftOut: [String]?
    package var whyNoSecrets: String?
    /// SHA-256 of the archive's file.
    package var sha256: String?
    /// SHA-256 of its `manifest.json`.
    package var manifest: String?
    /// When it was restored, booted and found healthy.
    package var verifiedAt: Int64?
    /// What the last `verify --boot` found, in words.
    package var verdict: String?

    package init(
        id: String, vm: String, createdAt: Int64, bytes: Int64, encrypted: Bool
    ) {
        self.id = id
        self.vm = vm
        self.createdAt = createdAt
        self.bytes = bytes
        self.encrypted = encrypted
    }

    /// What an archive's own header says of it.
    package mutating func take(_ header: BackupHeader) {
        fleet = header.fleet
        kind = header.kind
        parent = header.parent?.id
        consistency = header.consistency
        why = header.why
    }

    package var fileName: String { "\(id).tar.zst" + (encrypted ? ".age" : "") }
}

/// The name of a backup: its moment in UTC, such as `20261121-033000`, and a number if another has it.
package enum BackupID {
    package static func make(_ seconds: Int64, taken: (String) -> Bool) -> String {
        let digits = Clock.iso8601(seconds).filter(\.isNumber)
        let base = "\(digits.prefix(8))-\(digits.dropFirst(8))"
        if !taken(base) { return base }
        var number = 2
        while taken("\(base)-\(number)") { number += 1 }
        return "\(base)-\(number)"
    }

    /// Whether a text can be the name of a backup: it becomes part of paths and of bitmaps' names.
    package static func isValid(_ text: some StringProtocol) -> Bool {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        return (2...3).contains(parts.count) && parts[0].utf8.count == 8
            && parts[1].utf8.count == 6 && parts.allSatisfy { !$0.isEmpty && $0.utf8.count <= 8 }
            && parts.joined().utf8.allSatisfy { (48...57).contains($0) }
    }

    /// ID and encryption of an archive's file name; nil for any other file.
    package static func parse(fileName: String) -> (id: String, encrypted: Bool)? {
        for (suffix, encrypted) in [(".tar.zst", false), (".tar.zst.age", true)]
        where fileName.hasSuffix(suffix) {
            let id = fileName.dropLast(suffix.utf8.count)
            if isValid(id) { return (String(id), encrypted) }
        }
        return nil
    }

    /// Seconds since 1970 that a name tells.
    package static func seconds(_ id: String) -> Int64 {
        let digits = id.utf8.filter { $0 != 45 }.map { Int64($0) - 48 }
        guard isValid(id), digits.count >= 14 else { return 0 }
        func number(_ range: Range<Int>) -> Int64 { digits[range].reduce(0) { $0 * 10 + $1 } }
        let (year, month, day) = (number(0..<4), number(4..<6), number(6..<8))
        // Days since 1970 of a date, counted from 1 March so that a leap day comes last.
        let y = month <= 2 ? year - 1 : year
        let era = y / 400
        let yearOfEra = y - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        let days = era * 146_097 + dayOfEra - 719_468
        return days * 86400 + number(8..<10) * 3600 + number(10..<12) * 60 + number(12..<14)
    }
}

/// JSON of ours: sorted keys, so that the same content is the same bytes.
enum BackupJSON {
    static func encode(_ value: some Encodable) throws -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return [UInt8](try encoder.encode(value)) + [10]
    }

    static func decode<V: Decodable>(_ type: V.Type, _ bytes: [UInt8]) -> V? {
        try? JSONDecoder().decode(type, from: Data(bytes))
    }
}
