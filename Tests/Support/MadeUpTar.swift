// SPDX-License-Identifier: Apache-2.0
import Linux

/// A tar archive of entries that no tar would write.
package struct MadeUpTar {
    package private(set) var bytes: [UInt8] = []

    package init() {}

    /// `type`: `0` a file, `1` a hard link, `2` a symbolic one, `3` a device, `5` a folder.
    package mutating func add(
        _ name: String, _ type: Character = "0", content: String = "", bytes: [UInt8]? = nil,
        link: String = "", mode: Int = 0o644, user: Int = 1000, size: Int? = nil
    ) {
        let content = bytes ?? Array(content.utf8)
        var header = [UInt8](repeating: 0, count: 512)
        func put(_ at: Int, _ text: String) {
            for (index, byte) in text.utf8.enumerated() { header[at + index] = byte }
        }
        func octal(_ value: Int, _ width: Int) -> String {
            let text = String(value, radix: 8)
            return String(repeating: "0", count: width - text.count) + text
        }
        put(0, name)
        put(100, octal(mode, 7))
        put(108, octal(user, 7))
        put(116, octal(user, 7))
        put(124, octal(size ?? content.count, 11))
        put(136, octal(1_700_000_000, 11))
        put(148, "        ")
        put(156, String(type))
        put(157, link)
        put(257, "ustar\u{0}00")
        put(329, octal(1, 7))
        put(337, octal(3, 7))
        put(148, octal(header.reduce(0) { $0 + Int($1) }, 6) + "\u{0} ")
        self.bytes += header + content
        self.bytes += [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
    }

    /// With the end that a tar has.
    package var whole: [UInt8] { bytes + [UInt8](repeating: 0, count: 1024) }
}

/// Everything below a folder: a line each, sorted, such as `bin/x 755 text` or `l -> target`.
package func listing(_ folder: String, owners: Bool = false) async throws -> [String] {
    let script = """
        cd "$0" && find . -mindepth 1 | LC_ALL=C sort | while read -r path; do
            name=${path#./}
            if [ -L "$path" ]; then echo "$name -> $(readlink "$path")"
            elif [ -d "$path" ]; then echo "$name/ $(stat -c %a "$path")"
            else echo "$name $(stat -c %a "$path") $(head -c 40 "$path")"; fi
            [ -z "$1" ] || echo "$name of $(stat -c %u:%g "$path")"
        done
        """
    let output = try await Program("/bin/sh", ["-euc", script, folder, owners ? "y" : ""]).capture()
    return output.text.split(separator: "\n").map(String.init)
}
