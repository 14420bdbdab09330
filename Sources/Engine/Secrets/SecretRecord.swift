// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux

/// What a fleet says of its secrets, as `up` applied it: `secrets/FLEET.json`.
///
/// It holds names and places and never a value, so that a VM starts without the fleet file.
struct SecretRecord: Codable, Equatable {
    static let version = 1
    var version = SecretRecord.version
    /// By name, which a declaration itself does not hold.
    var secrets: [String: Secret] = [:]
}

/// A secret as a running guest was given it: `secrets.json` beside its sockets, for root alone.
struct GivenSecret: Codable, Equatable {
    let name: String
    /// Where it came from.
    let secret: Secret
    /// What its file looked like then; as long as that stays, nobody needs to read it again.
    let stamp: String?
    /// Tells another value from this one, and nothing else.
    let fingerprint: String
}

extension Layout {
    func secretRecord(_ fleet: String) -> String { "\(root)/secrets/\(fleet).json" }
}

extension VMLayout {
    /// What it was given, there while it runs.
    var givenSecrets: String { run + "/secrets.json" }
}

extension Store {
    /// The secrets of a fleet, as they were applied last.
    package func secrets(_ fleet: String) throws(StoreError) -> [Secret] {
        let record = try RecordFile.read(
            SecretRecord.self, from: layout.secretRecord(fleet), newest: SecretRecord.version)
        return (record?.secrets ?? [:]).map { name, secret in
            var secret = secret
            secret.name = name
            return secret
        }.sorted { $0.name < $1.name }
    }
}

extension Fleet {
    /// The VMs whose guests are given a secret.
    package func users(of secret: Secret) -> [String] {
        vms.filter { $0.secretCredentials.contains { $0.secret == secret.name } }.map(\.name)
    }
}

extension VM {
    /// The secrets that its guest is given, by the credential's full name.
    package var secretCredentials: [(credential: String, secret: String)] {
        credentials.compactMap { name, credential in
            credential.secret.map { (credentialPrefix + name, $0) }
        }.sorted { $0.0 < $1.0 }
    }
}
