// SPDX-License-Identifier: Apache-2.0
import Linux

/// QEMU for x86-64: its program, its version and its command line.
package struct QEMU: Hypervisor {
    package static let name = "qemu"
    package static let package = "qemu-system-x86"
    package static let program = "qemu-system-x86_64"

    package init() {}

    package var waitForMemory: [String] { ["-S", "-incoming", "defer"] }

    package struct Version: Sendable, Equatable, Comparable, CustomStringConvertible {
        package let major: Int
        package let minor: Int

        package init(_ major: Int, _ minor: Int) {
            self.major = major
            self.minor = minor
        }

        /// Reads the first line of `qemu-system-x86_64 --version`; nil when it is something else.
        package init?(parsing text: String) {
            let prefix = "QEMU emulator version "
            guard text.hasPrefix(prefix) else { return nil }
            let number = text.dropFirst(prefix.count).prefix { $0 == "." || $0.isNumber }
            let parts = number.split(separator: ".").compactMap { Int($0) }
            guard parts.count >= 2 else { return nil }
            self.init(parts[0], parts[1])
        }

        package var description: String { "\(major).\(minor)" }

        package static func < (left: Version, right: Version) -> Bool {
            (left.major, left.minor) < (right.major, right.minor)
        }
    }

    /// Asks a QEMU for its version; nil when the program is no QEMU.
    package static func version(of path: String) async throws -> Version? {
        Version(parsing: try await Program(path, ["--version"]).capture().text)
    }
}
