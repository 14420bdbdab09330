// SPDX-License-Identifier: Apache-2.0

/// What lies beside the script of a runner, in its package.
struct RunnerFiles {
    /// The parent interface and mode of a macvtap, by interface name and by MAC.
    private(set) var macvtaps: [String: (parent: String, mode: String)] = [:]
    /// Mount points by device or tag, from the guest's own table.
    private(set) var mounts: [String: (folder: String, type: String)] = [:]
    private let folder: String?
    private let host: HostView

    /// Reads the package, which holds `bin` and `share`; nil when there is only a script.
    init(_ folder: String?, host: HostView) {
        self.folder = folder
        self.host = host
        guard let folder else { return }
        for line in host.lines("\(folder)/share/microvm/macvtap-interfaces") {
            let words = line.split(separator: " ").map(String.init)
            guard words.count >= 4 else { continue }
            macvtaps[words[0]] = (words[2], words[3])
            macvtaps[words[1].lowercased()] = (words[2], words[3])
        }
        for line in host.lines("\(folder)/share/microvm/system/etc/fstab")
        where !line.hasPrefix("#") {
            let words = line.split { $0 == " " || $0 == "\t" }.map { unescaped(String($0)) }
            if words.count >= 3 { mounts[words[0]] = (words[1], words[2]) }
        }
    }

    /// Where the share of a tag comes from.
    func source(tag: String) -> String? {
        guard let folder, !tag.isEmpty, !tag.contains("/"), tag != ".." else { return nil }
        return host.lines("\(folder)/share/microvm/virtiofs/\(tag)/source").first
    }

    /// The word before a space is written as octal in such a table.
    private func unescaped(_ word: String) -> String {
        word.split(separator: "\\040", omittingEmptySubsequences: false).joined(separator: " ")
    }
}
