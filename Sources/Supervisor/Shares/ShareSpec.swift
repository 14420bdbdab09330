// SPDX-License-Identifier: Apache-2.0
import FoundationEssentials
import Glibc
package import Linux

/// What the keeper of a VM's shares is to do: written by `prepare`, plain data.
package struct ShareKeeping: Codable, Sendable, Equatable {
    package var vm: String
    package var daemon: FileDaemon
    /// Held by the keeper and its daemons for as long as one of them lives.
    package var lock: String
    /// The VM's own user, who connects to the sockets; nil without privilege.
    package var user: UInt32?
    package var shares: [SharedFolder]
    /// The socket of whoever waits for the keeper, where that is a unit of a service manager; nil
    /// where the channel is inherited.
    ///
    /// Such a keeper mounts nothing: its unit shows each source at the share's mount point.
    package var channel: String?

    package init(
        vm: String, daemon: FileDaemon, lock: String, user: UInt32?, shares: [SharedFolder]
    ) {
        self.vm = vm
        self.daemon = daemon
        self.lock = lock
        self.user = user
        self.shares = shares
    }

    /// Reads what `prepare` has written.
    package static func read(_ path: String) throws -> ShareKeeping {
        try JSONDecoder().decode(ShareKeeping.self, from: Data(try Files.read(path)))
    }
}

/// One folder of the host that a guest sees.
package struct SharedFolder: Codable, Sendable, Equatable {
    package var tag: String
    /// Where it really is: no part of the path was a link when that was found out.
    package var source: String
    package var readOnly: Bool
    package var owners: Owners
    /// Which folder that was.
    package var identity: Identity
    /// Where its daemon listens, and an empty folder to mount the source on.
    package var socket: String
    package var mountPoint: String

    /// What tells a folder from another one that has taken its place.
    package struct Identity: Codable, Sendable, Equatable {
        package var device: UInt64
        package var inode: UInt64
        /// When it was made: the number of a folder that is gone is soon another one's.
        ///
        /// Nil where the file system does not know, or the record is an older version's.
        package var born: Int64?

        package init(device: UInt64, inode: UInt64, born: Int64?) {
            self.device = device
            self.inode = inode
            self.born = born
        }

        package init(of folder: borrowing Descriptor) throws(SystemError) {
            var info = stat()
            try check("fstat") { fstat(folder.raw, &info) }
            device = UInt64(info.st_dev)
            inode = UInt64(info.st_ino)
            let born = try folder.birthTime()
            self.born = born == 0 ? nil : born
        }

        /// Whether both are of the same folder, as far as both know.
        package func matches(_ other: Identity) -> Bool {
            device == other.device && inode == other.inode
                && (born == nil || other.born == nil || born == other.born)
        }
    }

    /// Whose the files are on the host that a guest's users make.
    package enum Owners: Codable, Sendable, Equatable {
        /// The same numbers.
        case host
        /// Numbers 0 to 65535 of the guest begin at `base` on the host; all others are refused.
        case map(base: UInt32)
        /// All belong to one user of the host, and in the guest to root.
        case squash(user: UInt32)

        /// Whether a daemon needs no more than the rights of one user for it.
        package var isOfOneUser: Bool { if case .squash = self { true } else { false } }
    }

    package init(
        tag: String, source: String, readOnly: Bool, owners: Owners, identity: Identity,
        socket: String, mountPoint: String
    ) {
        self.tag = tag
        self.source = source
        self.readOnly = readOnly
        self.owners = owners
        self.identity = identity
        self.socket = socket
        self.mountPoint = mountPoint
    }
}
