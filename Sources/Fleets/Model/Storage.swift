// SPDX-License-Identifier: Apache-2.0

/// A further disk: a file that Martlet makes, or a block device of the host.
package struct Volume: Record {
    package var name = ""
    package var size: ByteSize?
    package var device: String?
    package var mount: String?
    package var filesystem = Filesystem.ext4
    package var format = DiskFormat.qcow2
    package var readOnly = false

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("name", &name, .required, "The volume's name; its serial number inside the guest.")
        key("size", &size, "How much it can hold; growing is fine, shrinking is refused.")
        key.path("device", &device, "A block device of the host instead of a file.")
        key("mount", &mount, "Where the guest mounts it; without it the disk is only attached.")
        key("filesystem", &filesystem, "What it is formatted with when it is made.")
        key("format", &format, "How the file is kept on the host.")
        key("readOnly", &readOnly, "Whether the guest may only read it.")
    }

    package mutating func finish(_ scope: Scope) {
        if (size == nil) == (device == nil) { scope.fail("give either 'size' or 'device'") }
        if device != nil { format = .raw }
    }
}

package enum Filesystem: String, Choice {
    case ext4, xfs, btrfs, vfat

    /// Whether it can be made larger with what is in it.
    package var canGrow: Bool { self != .vfat }
}

package enum DiskFormat: String, Choice { case qcow2, raw }

/// A directory of the host inside the guest.
package struct Share: Record {
    package var source = ""
    package var mount = ""
    /// The name the guest mounts it by; made from the mount point unless given.
    package var tag = ""
    package var readOnly = false
    package var create: CreatedDirectory?
    package var ids = IdentityMapping.host

    package init() {}

    package mutating func declare(_ key: Fields) {
        key.path("source", &source, .required, "A directory of the host.")
        key("mount", &mount, .required, "Where it appears in the guest.")
        key("tag", &tag, "The name the guest mounts it by; made from `mount` unless given.")
        key("readOnly", &readOnly, "Whether the guest may only read it.")
        key("create", &create, "Make the directory when it is missing.")
        key("ids", &ids, "Owners of files: as on the host, mapped, or all the VM's own user.")
    }

    package mutating func finish(_ scope: Scope) {
        if tag.isEmpty {
            tag = String(mount.split(separator: "/").joined(separator: "-").prefix(36))
        }
        if tag.isEmpty || tag.utf8.count > 36 || !tag.utf8.allSatisfy(isWordByte) {
            scope.fail("'tag' takes 1 to 36 letters, digits, '-', '_' and '.'; found '\(tag)'")
        }
    }
}

package struct CreatedDirectory: Record {
    package var mode = FileMode.directory
    package var owner = "root"

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("mode", &mode, "Permissions in octal, in quotes.")
        key("owner", &owner, "A user of the host.")
    }
}

package enum IdentityMapping: String, Choice { case host, map, squash }

/// Guest memory: fixed, or between two bounds with a balloon.
package struct Memory: Declared {
    package var min: ByteSize
    package var max: ByteSize

    package init(_ size: ByteSize) { self.init(min: size, max: size) }
    package init(min: ByteSize, max: ByteSize) {
        self.min = min
        self.max = max
    }

    package var isFixed: Bool { min == max }

    private struct Bounds: Record {
        var min = ByteSize(bytes: 0)
        var max = ByteSize(bytes: 0)

        mutating func declare(_ key: Fields) {
            key("min", &min, .required, "What the guest always keeps.")
            key("max", &max, .required, "What it may grow to.")
        }
        func finish(_ scope: Scope) {
            if min > max { scope.fail("'min' (\(min)) is above 'max' (\(max))") }
        }
    }

    package static func read(_ scope: Scope) -> Memory? {
        if case .mapping = scope.node.content {
            return Bounds.read(scope).map { Memory(min: $0.min, max: $0.max) }
        }
        return ByteSize.read(scope).map { Memory($0) }
    }
    package var json: JSONValue {
        isFixed ? max.json : ["min": min.json, "max": max.json]
    }
    package static var schema: JSONValue { ["anyOf": [ByteSize.schema, Bounds.schema]] }
}

/// When something happens again and again: `daily`, `03:30`, or five fields of cron.
package struct Schedule: Notation {
    package let text: String

    package init?(_ text: String) {
        self.text = text
        if ["hourly", "daily", "weekly", "monthly"].contains(text) { return }
        if let time = Self.time(text) {
            guard time.hour < 24, time.minute < 60 else { return nil }
            return
        }
        let fields = text.split(separator: " ")
        guard fields.count == 5 else { return nil }
        let ranges = [0...59, 0...23, 1...31, 1...12, 0...7]
        for (field, range) in zip(fields, ranges) {
            guard Self.isCron(field, range) else { return nil }
        }
    }

    /// Hour and minute of `03:30`.
    package static func time(_ text: String) -> (hour: Int, minute: Int)? {
        let parts = text.pieces(":")
        guard parts.count == 2, parts.allSatisfy({ $0.utf8.count == 2 }),
            let hour = UInt8(parts[0]), let minute = UInt8(parts[1])
        else { return nil }
        return (Int(hour), Int(minute))
    }

    private static func isCron(_ field: Substring, _ range: ClosedRange<Int>) -> Bool {
        field.pieces(",").allSatisfy { item in
            let step = item.pieces("/")
            guard step.count <= 2, step.count == 1 || UInt8(step[1]).map({ $0 > 0 }) == true
            else { return false }
            if step[0] == "*" { return true }
            let ends = step[0].pieces("-").map {
                UInt8($0).map(Int.init)
            }
            guard ends.count <= 2, ends.allSatisfy({ $0.map(range.contains) == true }) else {
                return false
            }
            return ends.count == 1 || (ends[0] ?? 0) <= (ends[1] ?? 0)
        }
    }

    package var description: String { text }
    package static var expected: String {
        "hourly, daily, weekly, monthly, a time such as 03:30, or five cron fields"
    }
    package static var pattern: String {
        #"^(hourly|daily|weekly|monthly|[0-9]{2}:[0-9]{2}|\S+( \S+){4})$"#
    }
}

/// How many of each age to keep.
package struct Retention: Record {
    package var hourly = 0
    package var daily = 0
    package var weekly = 0
    package var monthly = 0
    package var yearly = 0

    package init() {}
    package init(daily: Int, weekly: Int, monthly: Int = 0) {
        (self.daily, self.weekly, self.monthly) = (daily, weekly, monthly)
    }

    package mutating func declare(_ key: Fields) {
        key("hourly", &hourly, "The newest of how many hours.")
        key("daily", &daily, "The newest of how many days.")
        key("weekly", &weekly, "The newest of how many weeks.")
        key("monthly", &monthly, "The newest of how many months.")
        key("yearly", &yearly, "The newest of how many years.")
    }

    package mutating func finish(_ scope: Scope) {
        let all = [hourly, daily, weekly, monthly, yearly]
        if all.contains(where: { $0 < 0 }) { scope.fail("counts to keep cannot be negative") }
        if all.allSatisfy({ $0 == 0 }) {
            scope.fail("keeps nothing at all; give at least one count, such as daily: 7")
        }
    }
}

package struct SnapshotPolicy: Record {
    package var schedule: Schedule?
    package var keep = Retention(daily: 7, weekly: 4, monthly: 6)

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("schedule", &schedule, "When snapshots are made; by hand only unless given.")
        key("keep", &keep, "How many of each age to keep.")
    }
}

package struct BackupPolicy: Record {
    package var schedule: Schedule?
    package var to: String?
    package var encrypt: [String] = []
    package var identity: String?
    package var keep = Retention(daily: 7, weekly: 4)
    package var verify: Schedule?

    package init() {}

    package mutating func declare(_ key: Fields) {
        key("schedule", &schedule, "When backups are made; by hand only unless given.")
        key.path(
            "to", &to, unlessPrefixed: "restic:",
            "Where they go: a directory, or restic:REPOSITORY; ROOT/backups unless given.")
        key("encrypt", &encrypt, "age recipients; without any, backups are not encrypted.")
        key.path(
            "identity", &identity,
            "The age identity that `backup verify` and `restore` decrypt with.")
        key("keep", &keep, "How many of each age to keep.")
        key("verify", &verify, "When the newest backup is restored, booted and checked.")
    }
}
