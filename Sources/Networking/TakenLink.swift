// SPDX-License-Identifier: Apache-2.0
package import Linux

/// A link of ours that systemd-networkd configures as well, so that two programs undo each other.
package struct TakenLink: Sendable, Equatable {
    package let link: String
    /// The file of systemd-networkd that matches it; nil when it does not say.
    package let file: String?

    package init(link: String, file: String?) {
        self.link = link
        self.file = file
    }

    /// Those of the calling thread's network namespace.
    ///
    /// systemd-networkd keeps a file for each link, by index: that says something about the host's
    /// first namespace alone, so in any other, and for whoever may not tell, there are none.
    package static func look(
        in folder: String = "/run/systemd/netif/links"
    ) throws(SystemError) -> [TakenLink] {
        guard Files.exists(folder), let first = try? Files.readLink("/proc/1/ns/net"),
            try Files.readLink("/proc/thread-self/ns/net") == first
        else { return [] }
        return try RouteSocket().links().compactMap { link in
            guard link.alias?.hasPrefix("martlet/") == true,
                let text = try? Files.readText("\(folder)/\(link.index)")
            else { return nil }
            return TakenLink(link.name, state: text)
        }
    }

    /// Reads the state of a link as systemd-networkd writes it; nil when it leaves the link alone.
    init?(_ link: String, state text: String) {
        var values: [Substring: Substring] = [:]
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: "=", maxSplits: 1)
            if parts.count == 2 { values[parts[0]] = parts[1] }
        }
        // The others are: pending, initialized, unmanaged, linger.
        guard let state = values["ADMIN_STATE"],
            ["configuring", "configured", "failed"].contains(state)
        else { return nil }
        self.init(link: link, file: values["NETWORK_FILE"].map(String.init))
    }
}
