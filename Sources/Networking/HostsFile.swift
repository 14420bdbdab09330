// SPDX-License-Identifier: Apache-2.0
package import Linux

/// Why a hosts file was left as it is.
package enum HostsFileError: Error, Equatable, CustomStringConvertible {
    /// The markers of the block do not fit together.
    case damaged(path: String, line: Int, reason: String)
    /// What was to be written is no entry of a hosts file.
    case invalid(String)
    case system(SystemError)

    package var description: String {
        switch self {
        case .damaged(let path, let line, let reason):
            "\(path):\(line): \(reason); repair the file by hand"
        case .invalid(let reason): reason
        case .system(let error): error.description
        }
    }
}

/// The names of VMs in the host's own hosts file, in a block that we maintain.
///
/// The administrator sets the block up once; without it nothing is ever written. Each owner (a
/// fleet) has a section of its own in the block, and all that lies outside of the block stays as
/// it is, byte for byte.
package struct HostsFile: Sendable {
    package typealias Entry = (address: String, names: [String])

    private let path: String
    private let lock: String

    /// `lock` is the path of a file that writers lock while they read and write; it is made when
    /// missing, in a folder that exists.
    package init(_ path: String = "/etc/hosts", lock: String) {
        self.path = path
        self.lock = lock
    }

    /// Whether the file has our block.
    package var isSetUp: Bool {
        get throws(HostsFileError) { try read().hasBlock }
    }

    /// Adds the empty block at the end of the file, unless it is there.
    package func setUp() throws(HostsFileError) {
        _ = try change { $0.addBlock() }
    }

    /// Makes these entries the owner's section of the block; none take the section away.
    ///
    /// Returns whether the file was written: not without the block, and not when it says all that
    /// already. `owner` is a word: printable ASCII without spaces.
    @discardableResult
    package func update(owner: String, entries: [Entry]) throws(HostsFileError) -> Bool {
        let lines = try HostsText.lines(entries)
        try HostsText.checkOwner(owner)
        // Where nobody asked for the block, nobody needs to be able to take the lock.
        guard try isSetUp else { return false }
        return try change { $0.setSection(owner, lines) }
    }

    /// Takes the owner's section out of the block; returns whether there was one.
    @discardableResult
    package func remove(owner: String) throws(HostsFileError) -> Bool {
        try update(owner: owner, entries: [])
    }

    private func change(_ edit: (inout HostsText) -> Void) throws(HostsFileError) -> Bool {
        let held = try system { () throws(SystemError) in try FileLock.wait(lock) }
        // Other fleets write the same file: what they wrote must not be lost.
        defer { withExtendedLifetime(held) {} }
        var text = try read()
        let before = text.bytes
        edit(&text)
        let after = text.bytes
        if after == before { return false }
        try system { () throws(SystemError) in
            if Files.exists(path) {
                try Files.replaceContent(path, after)
            } else {
                try Files.write(path, after, mode: 0o644)
            }
        }
        return true
    }

    /// A missing file is an empty one.
    private func read() throws(HostsFileError) -> HostsText {
        let bytes = try system { () throws(SystemError) in
            Files.exists(path) ? try Files.read(path) : []
        }
        return try HostsText(bytes, path: path)
    }

    private func system<R: ~Copyable>(
        _ body: () throws(SystemError) -> R
    ) throws(HostsFileError) -> R {
        do { return try body() } catch { throw .system(error) }
    }
}
