// SPDX-License-Identifier: Apache-2.0

/// Something that the guest mounts when it starts, by a unit of systemd's.
package struct Mount: Sendable, Equatable {
    /// A device, or the tag of a share.
    package var what: String
    /// An absolute path of the guest.
    package var path: String
    /// The file system's type, such as `ext4` or `virtiofs`.
    package var type: String
    package var options: [String]
    /// Whether the guest makes the file system as large as its disk after mounting it.
    package var grows: Bool

    package init(
        what: String, path: String, type: String, options: [String] = [], grows: Bool = false
    ) {
        self.what = what
        self.path = path
        self.type = type
        self.options = options
        self.grows = grows
    }

    /// The name that systemd demands of the unit for this path.
    package var unitName: String { systemdEscaped(path: path) + ".mount" }

    /// The unit's text; pure.
    ///
    /// Services come after it by `local-fs.target`. That target only *wants* it: what cannot be
    /// mounted shows as a failed unit, and the rest of the guest starts all the same.
    package var unit: String {
        """
        [Unit]
        Description=\(inUnit(path))
        \(grows ? "Wants=systemd-growfs@\(systemdEscaped(path: path)).service\n" : "")[Mount]
        What=\(inUnit(what))
        Where=\(inUnit(path))
        Type=\(type)
        Options=\(options.map(inUnit).joined(separator: ","))
        TimeoutSec=\(timeout)

        """
    }

    /// In seconds.
    ///
    /// A share whose other end is gone answers never; a disk only waits for the module of its file
    /// system, and for its journal, which take long where CPUs are emulated and busy.
    private var timeout: Int { type == "virtiofs" ? 30 : 300 }

    /// Whether the mount point has to be there from the beginning: below `/` nothing can be made
    /// later, and elsewhere systemd makes it.
    var needsFolder: Bool {
        !["/var", "/home", "/root", "/run", "/tmp"].contains { path.hasPrefix($0 + "/") }
    }

    /// A value in a unit file, where `%` begins a specifier.
    private func inUnit(_ value: String) -> String { value.replacing("%", with: "%%") }
}

/// A path as systemd writes it in the name of a unit; pure.
///
/// It is what `systemd-escape --path` prints.
package func systemdEscaped(path: String) -> String {
    let parts = path.utf8.split(separator: UInt8(ascii: "/"))
    guard !parts.isEmpty else { return "-" }
    var name = ""
    for (index, part) in parts.enumerated() {
        if index > 0 { name += "-" }
        for (place, byte) in part.enumerated() {
            let isDotFirst = index == 0 && place == 0 && byte == UInt8(ascii: ".")
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: ":"), UInt8(ascii: "_"):
                name.unicodeScalars.append(Unicode.Scalar(byte))
            case UInt8(ascii: ".") where !isDotFirst:
                name += "."
            default:
                let digits = String(byte, radix: 16)
                name += "\\x" + (digits.utf8.count == 1 ? "0" : "") + digits
            }
        }
    }
    return name
}
