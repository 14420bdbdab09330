// SPDX-License-Identifier: Apache-2.0
import Fleets
import Glibc
import Linux

extension Engine {
    /// The user that a VM's processes run as: the same for the same ROOT and name; nil unless root.
    ///
    /// Two names of one ROOT never share one.
    func allocateUser(_ name: String) throws -> UInt32? {
        guard isRoot else { return nil }
        let kept = layout.vm(name).identity + "/uid"
        if let text = try? Files.readText(kept),
            let user = UInt32(text.prefix { $0 != "\n" })
        {
            return user
        }
        let taken = Set(
            try store.names().vms.compactMap { other in
                (try? Files.readText(layout.vm(other).identity + "/uid"))
                    .flatMap { UInt32($0.prefix { $0 != "\n" }) }
            })
        var user = UserRange.candidate(root: layout.root, vm: name)
        while taken.contains(user) { user = UserRange.next(after: user) }
        return user
    }

    /// Makes a folder that belongs to the VM's user and to nobody else.
    func makeFolder(_ path: String, ownedBy user: UInt32?) throws {
        try Files.makeFolder(path, mode: 0o700)
        if let user { try Files.setOwner(path, user: user, group: user) }
        try Files.setMode(path, 0o700)
    }

    /// Writes a file that the VM's user may read, and nobody else.
    func write(_ path: String, _ bytes: [UInt8], ownedBy user: UInt32?) throws {
        try Files.write(path, bytes, mode: 0o400)
        if let user { try Files.setOwner(path, user: user, group: user) }
    }
}

enum UserRange {
    static func candidate(root: String, vm: String) -> UInt32 {
        // FNV-1a, as it must give the same number for ever.
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in "\(root)\u{0}\(vm)".utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return Derived.users.lowerBound
            + UInt32((hash ^ hash >> 32) % UInt64(Derived.users.count))
    }

    static func next(after user: UInt32) -> UInt32 {
        user < Derived.users.upperBound ? user + 1 : Derived.users.lowerBound
    }
}
