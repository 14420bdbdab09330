// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Glibc
import Linux
import Planning
package import Secrets

// MARK: - What a fleet has

extension Engine {
    var secretStore: SecretStore { SecretStore(root: layout.root) }

    /// Takes over where a fleet's secrets come from.
    func declareSecrets(of fleet: Fleet) throws {
        let secrets = fleet.secrets.sorted { $0.name < $1.name }
        guard try store.secrets(fleet.name) != secrets else { return }
        let record = SecretRecord(
            secrets: Dictionary(
                secrets.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first }))
        try Files.makeFolder(Files.parent(layout.secretRecord(fleet.name)), mode: 0o700)
        try RecordFile.write(record, to: layout.secretRecord(fleet.name))
        Checkpoint.pass()
    }

    /// Reads one secret; one that is generated is made the first time.
    package func secretValue(_ secret: Secret, of fleet: String) async throws -> SecretBytes {
        guard let source = secret.source else { throw SecretFailure.noSource(secret.name) }
        if case .generate(let form) = source {
            return try await secretStore.generated(fleet: fleet, name: secret.name, form)
        }
        return try await SecretReader().read(source)
    }

    /// Gives a generated secret a new value; nothing of the old one is kept.
    ///
    /// Guests that run have the old one until they restart: the next plan says so.
    package func rotateSecret(_ secret: Secret, of fleet: String) async throws {
        guard case .generate(let form)? = secret.source else {
            throw SecretFailure.notOurs(secret.name, place: secret.place)
        }
        _ = try await secretStore.rotate(fleet: fleet, name: secret.name, form)
    }

    /// Gives a generated secret a value that somebody chose.
    package func setSecret(
        _ secret: Secret, of fleet: String, to value: SecretBytes
    ) async throws {
        guard case .generate? = secret.source else {
            throw SecretFailure.notOurs(secret.name, place: secret.place)
        }
        try await secretStore.set(fleet: fleet, name: secret.name, value)
    }

    /// When a secret's value changed last, in seconds since 1970; nil when there is none yet.
    package func secretChangedAt(_ secret: Secret, of fleet: String) -> Int64? {
        try? Files.status(secretFile(secret, of: fleet)).modified
    }

    /// The file that a secret's value is read from.
    private func secretFile(_ secret: Secret, of fleet: String) -> String {
        secret.source.flatMap { SecretReader().file(of: $0) }
            ?? secretStore.file(fleet: fleet, name: secret.name)
    }

    private func stamp(_ secret: Secret, of fleet: String) -> String? {
        var info = stat()
        guard stat(secretFile(secret, of: fleet), &info) == 0 else { return nil }
        return "\(info.st_dev) \(info.st_ino) \(info.st_size) "
            + "\(info.st_mtim.tv_sec).\(info.st_mtim.tv_nsec) "
            + "\(info.st_ctim.tv_sec).\(info.st_ctim.tv_nsec)"
    }
}

// MARK: - What a guest is given

extension Engine {
    /// Refuses a step whose secrets cannot be read, before any of it is done.
    func checkSecrets(_ step: Plan.Step, of fleet: Fleet) async throws {
        let starting: Set<Action> = [.start, .restart, .rebuild]
        guard !starting.isDisjoint(with: step.actions), let vm = fleet.vm(step.vm) else { return }
        for (_, name) in vm.secretCredentials {
            guard let secret = fleet.secret(name) else { throw SecretFailure.unknown(name) }
            _ = try await secretValue(secret, of: fleet.name)
        }
    }

    /// The secrets that a VM's guest gets, by the credential's full name, and the note of them.
    func secretsToGive(
        _ vm: VM, _ files: VMLayout
    ) async throws -> (values: [String: SecretBytes], given: [GivenSecret]) {
        let wanted = vm.secretCredentials
        if wanted.isEmpty { return ([:], []) }
        guard let record = try store.record(vm.name), let fleet = record.fleet ?? record.origin
        else { throw SecretFailure.noFleet(vm.name) }
        let known = try store.secrets(fleet)
        var values: [String: SecretBytes] = [:]
        var given: [GivenSecret] = []
        for (credential, name) in wanted {
            guard let secret = known.first(where: { $0.name == name }) else {
                throw SecretFailure.unknown(name)
            }
            // Before the value: one that changes in between is then looked at again.
            let stamp = stamp(secret, of: fleet)
            let value = try await secretValue(secret, of: fleet)
            values[credential] = value
            if !given.contains(where: { $0.name == name }) {
                let fingerprint = try secretStore.fingerprint(value)
                given.append(
                    GivenSecret(
                        name: name, secret: secret, stamp: stamp, fingerprint: fingerprint))
            }
        }
        return (values, given)
    }

    /// Refuses to write a plain value to anything that lasts.
    func checkInMemory(_ vm: String, _ folder: String) throws {
        guard try !Files.isInMemory(folder) else { return }
        throw SecretFailure.notInMemory(vm: vm, folder: folder)
    }

    /// The secrets of which a running VM has another value than there is now.
    package func staleSecrets(_ name: String, in fleet: Fleet) async -> [String] {
        let path = layout.vm(name).givenSecrets
        guard let given = try? RecordFile.plain([GivenSecret].self, from: path) else { return [] }
        var stale: [String] = []
        for old in given {
            guard let secret = fleet.secret(old.name) else { continue }
            guard let stamp = stamp(secret, of: fleet.name) else {
                // To look for a generated one would make it; the next start does.
                if secret.generate != nil { stale.append(secret.name) }
                continue
            }
            if secret.source == old.secret.source, stamp == old.stamp { continue }
            // One that cannot be read now cannot be given either: whoever tries says why.
            guard let value = try? await secretValue(secret, of: fleet.name),
                let fingerprint = try? secretStore.fingerprint(value)
            else { continue }
            if fingerprint != old.fingerprint { stale.append(secret.name) }
        }
        return stale
    }
}

/// Why a secret cannot be given to a guest, or changed.
package enum SecretFailure: Error, Equatable, CustomStringConvertible {
    case noSource(String)
    case unknown(String)
    case noFleet(String)
    case notOurs(String, place: String)
    case notInMemory(vm: String, folder: String)

    package var description: String {
        switch self {
        case .noSource(let name): "nothing says where the secret '\(name)' comes from"
        case .unknown(let name):
            "the fleet has no secret '\(name)' any more: 'martlet up' takes over what the file says"
        case .noFleet(let vm):
            "\(vm) belongs to no fleet, so nothing says where its secrets come from"
        case .notOurs(let name, let place):
            "the secret '\(name)' is read from \(place): change it there; martlet changes only "
                + "those that it generates"
        case .notInMemory(let vm, let folder):
            "\(vm) is given secrets, and \(folder) is not in memory: their plain values would "
                + "stay on a disk; set MARTLET_RUN to a folder on a tmpfs, such as one below /run"
        }
    }
}

extension Secret {
    /// Where it comes from, for people.
    package var place: String {
        switch source {
        case .generate(let form): "generated (\(form.rawValue))"
        case .age(let path, _): "age: \(path)"
        case .sops(let path, let key, _): "sops: \(path) (\(key))"
        case .file(let path): "file: \(path)"
        case .systemdCreds(let path): "systemd-creds: \(path)"
        case nil: "nowhere"
        }
    }
}
