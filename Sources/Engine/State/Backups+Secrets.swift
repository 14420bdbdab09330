// SPDX-License-Identifier: Apache-2.0
import Fleets
import Linux
import Secrets
import Storage

/// The generated secrets of a VM on their way into a backup.
struct BackupSecrets {
    /// Those that go with it.
    var values: [(name: String, bytes: SecretBytes)] = []
    /// Those that do not, and why.
    var leftOut: [String] = []
    var why: String?
}

extension Engine {
    /// The secrets that Martlet keeps itself and a VM's guest is given: they belong into an archive
    /// that is encrypted, and into no other.
    ///
    /// Those that come from a file have their place elsewhere.
    func secretsToBackUp(_ vm: VM, encrypted: Bool) async throws -> BackupSecrets {
        guard let fleet = try store.record(vm.name).flatMap({ $0.fleet ?? $0.origin }) else {
            return BackupSecrets()
        }
        let wanted = Set(vm.secretCredentials.map(\.secret))
        let kept = try store.secrets(fleet).filter {
            wanted.contains($0.name) && $0.generate != nil
                && Files.exists(secretStore.file(fleet: fleet, name: $0.name))
        }.map(\.name)
        var result = BackupSecrets()
        guard encrypted else {
            result.leftOut = kept
            result.why = "it is not encrypted"
            return result
        }
        for name in kept {
            do {
                guard let value = try await secretStore.value(fleet: fleet, name: name) else {
                    continue
                }
                result.values.append((name, value))
            } catch {
                // The disks are worth a backup all the same.
                result.leftOut.append(name)
                result.why = "\(error)"
            }
        }
        return result
    }

    /// Gives a fleet the secrets of a backup that it has not, and says what became of each.
    ///
    /// A value that is there stays: guests may have it, and it may be newer.
    func takeSecrets(
        _ unpacked: UnpackedBackup, fleet: String?
    ) async throws -> [String] {
        let secrets = unpacked.archive.secrets.sorted { $0.key < $1.key }
        guard let fleet = fleet ?? unpacked.header.fleet, !secrets.isEmpty else { return [] }
        var taken: [String] = []
        var different: [String] = []
        for (name, bytes) in secrets {
            let value = try SecretBytes(bytes, name: "the secret '\(name)' of the backup")
            if try await secretStore.adopt(fleet: fleet, name: name, value) {
                taken.append(name)
            } else if (try? await secretStore.value(fleet: fleet, name: name)) != value {
                different.append(name)
            }
            Checkpoint.pass()
        }
        let names = taken.joined(separator: ", ")
        return (taken.isEmpty ? [] : ["with its secrets \(names)"])
            + different.map {
                "the secret '\($0)' has another value here, which was kept"
            }
    }

    /// Gives a VM the identity that it had, unless it has one already.
    func takeIdentity(_ kept: [String: [UInt8]], _ files: VMLayout) throws {
        if Files.exists("\(files.identity)/machine-id") { return }
        try Files.makeFolder(files.identity, mode: 0o700)
        // By this file an identity is known: it comes last.
        let names = kept.keys.filter { $0 != "machine-id" && $0 != "uid" }.sorted()
        for name in names + ["machine-id"] {
            guard let bytes = kept[name] else { continue }
            try Files.write("\(files.identity)/\(name)", bytes)
        }
    }
}
