// SPDX-License-Identifier: Apache-2.0

/// What a fleet says of networks as a whole, beside what each VM says of its interfaces.
///
/// A host keeps it as it was applied: VMs start also where no fleet file is at hand.
package struct NetworkSettings: Sendable, Equatable, Codable {
    package var networks: [Network]
    package var allow: [Opening]
    package var trusted: [String]
    package var advertise: Advertisement

    package init(
        networks: [Network] = [], allow: [Opening] = [], trusted: [String] = [],
        advertise: Advertisement = .none
    ) {
        self.networks = networks
        self.allow = allow
        self.trusted = trusted
        self.advertise = advertise
    }

    package func network(_ name: String) -> Network? { networks.first { $0.name == name } }

    private enum CodingKeys: String, CodingKey { case names, networks, allow, trusted, advertise }

    package init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        networks = try container.decode([Network].self, forKey: .networks)
        // In a fleet file the name is the key, and no part of the value.
        let names = try container.decode([String].self, forKey: .names)
        for (index, name) in names.enumerated() where index < networks.count {
            networks[index].name = name
        }
        allow = try container.decode([Opening].self, forKey: .allow)
        trusted = try container.decode([String].self, forKey: .trusted)
        advertise = try container.decode(Advertisement.self, forKey: .advertise)
    }

    package func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(networks.map(\.name), forKey: .names)
        try container.encode(networks, forKey: .networks)
        try container.encode(allow, forKey: .allow)
        try container.encode(trusted, forKey: .trusted)
        try container.encode(advertise, forKey: .advertise)
    }
}

extension Fleet {
    package var networkSettings: NetworkSettings {
        NetworkSettings(networks: networks, allow: allow, trusted: trusted, advertise: advertise)
    }
}
