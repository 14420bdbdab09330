// SPDX-License-Identifier: Apache-2.0
import Linux

extension Engine {
    /// Records a change that a verb makes without the fleet file, as one key of a partial VM.
    ///
    /// It is merged last, and `show` and `plan` name it as the origin. Scalars are written as JSON,
    /// which every YAML reader takes literally.
    package func override(_ name: String, key: String, text: String) async throws {
        try await changing(name) { _ in
            let path = layout.override(name)
            try Files.makeFolder(layout.overrides, mode: 0o700)
            let existing = Files.exists(path) ? try Files.readText(path) : ""
            var lines = existing.split(separator: "\n").map(String.init)
            if lines.isEmpty {
                lines = ["# What martlet's verbs changed; merged after the fleet file."]
            }
            lines.removeAll { $0.hasPrefix("\(key):") }
            lines.append("\(key): \"\(text)\"")
            try Files.write(path, lines.joined(separator: "\n") + "\n")
        }
    }
}
