// SPDX-License-Identifier: Apache-2.0
package import Fleets
import Linux

extension Engine {
    /// Records a change that a verb makes without the fleet file, as one key of a partial VM.
    ///
    /// It is merged last, and `show` and `plan` name it as the origin. Scalars are written as JSON,
    /// which every YAML reader takes literally.
    package func override(_ name: String, key: String, text: String) async throws {
        try await override(name, [(key, .string(text))])
    }

    /// The same for several keys at once.
    package func override(_ name: String, _ values: [(key: String, value: JSONValue)]) async throws
    {
        try await changing(name) { _ in
            let path = layout.override(name)
            try Files.makeFolder(layout.overrides, mode: 0o700)
            let existing = Files.exists(path) ? try Files.readText(path) : ""
            var lines = existing.split(separator: "\n").map(String.init)
            if lines.isEmpty {
                lines = ["# What martlet's verbs changed; merged after the fleet file."]
            }
            for (key, value) in values {
                lines.removeAll { $0.hasPrefix("\(key):") }
                lines.append("\(key): \(value.text())")
            }
            try Files.write(path, lines.joined(separator: "\n") + "\n")
        }
    }

    /// What a VM's overrides say now; nil when it has none.
    package func overrideText(_ name: String) throws -> String? {
        let path = layout.override(name)
        return Files.exists(path) ? try Files.readText(path) : nil
    }

    /// Makes a VM's overrides what they were.
    package func restoreOverride(_ name: String, _ text: String?) async throws {
        try await changing(name) { _ in
            let path = layout.override(name)
            if let text { try Files.write(path, text) } else { try Files.remove(path) }
        }
    }
}
