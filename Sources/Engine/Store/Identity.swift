// SPDX-License-Identifier: Apache-2.0
import Linux

/// What makes a VM this VM, whatever image and disks it has: made once, and kept by everything but `purge`.
package struct Identity: Sendable, Equatable {
    /// 32 hexadecimal digits, as in `/etc/machine-id`.
    package let machineID: String
    package let uuid: String
    /// OpenSSH private key text of the guest's host key.
    package let hostKey: String
    package let hostPublicKey: String
    /// Path of the private key with which this host enters the guest (`exec`, `ssh`, `cp`).
    package let accessKeyPath: String
    package let accessPublicKey: String
    /// The user that the VM's processes run as; nil when martlet does not run as root.
    package let user: UInt32?

    /// Reads the identity, making what is missing.
    static func ensure(
        _ layout: VMLayout, uuid declared: String?, user: UInt32?
    ) async throws -> Identity {
        let folder = layout.identity
        try Files.makeFolder(folder, mode: 0o700)
        let hostKey = try await key(folder + "/ssh_host_ed25519_key", comment: layout.name)
        let access = try await key(folder + "/access_ed25519", comment: "martlet")
        let hostPublicKey = line(try Files.readText(hostKey + ".pub"))
        // What `ssh` and `exec` compare the guest's key with: a stranger in its place is refused.
        let known = folder + "/known_hosts"
        if !Files.exists(known) { try Files.write(known, "\(layout.name) \(hostPublicKey)\n") }
        return Identity(
            machineID: try once(folder + "/machine-id") { randomHex(32) },
            uuid: try declared ?? once(folder + "/uuid") { randomUUID() },
            hostKey: try Files.readText(hostKey),
            hostPublicKey: hostPublicKey,
            accessKeyPath: access,
            accessPublicKey: line(try Files.readText(access + ".pub")),
            user: try user.map { user in
                let text = try once(folder + "/uid") { String(user) }
                guard let user = UInt32(text) else {
                    throw StoreError.unreadable(path: folder + "/uid", reason: "not a number")
                }
                return user
            })
    }

    /// The first line of a file that is written when it does not exist.
    private static func once(_ path: String, _ make: () -> String) throws(SystemError) -> String {
        if !Files.exists(path) { try Files.write(path, make() + "\n") }
        return line(try Files.readText(path))
    }

    /// Makes a key pair when it is missing, and returns the private key's path.
    ///
    /// The private key is renamed into place last: where it is, its public half is.
    private static func key(_ path: String, comment: String) async throws -> String {
        if Files.exists(path) { return path }
        guard let keygen = findProgram("ssh-keygen") else {
            throw StoreError.missingTool(name: "ssh-keygen", package: "openssh-client")
        }
        let unfinished = path + ".new"
        try Files.remove(unfinished)
        try Files.remove(unfinished + ".pub")
        let output = try await Program(
            keygen, ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", unfinished]
        ).capture()
        guard output.exit.isSuccess else {
            throw StoreError.failed(
                what: "the key \(path) could not be made",
                reason: String(output.errorText.prefix { !$0.isNewline }))
        }
        // ssh-keygen makes nothing last, and an empty key would be believed for ever.
        try Files.sync(unfinished + ".pub")
        try Files.sync(unfinished)
        try Files.rename(unfinished + ".pub", path + ".pub")
        try Files.rename(unfinished, path)
        try Files.syncFolder(Files.parent(path))
        return path
    }

    private static func line(_ text: String) -> String { String(text.prefix { $0 != "\n" }) }
}

/// A random (version 4) UUID.
func randomUUID() -> String {
    var digits = Array(randomHex(32))
    digits[12] = "4"
    digits[16] = "89ab".randomElement() ?? "8"
    for place in [8, 13, 18, 23] { digits.insert("-", at: place) }
    return String(digits)
}
