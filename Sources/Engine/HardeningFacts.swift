// SPDX-License-Identifier: Apache-2.0
import Fleets

/// What a guest's kernel and its files say of the settings of `HardeningSetting.table`.
///
/// The guest itself says it: it may be wrong on purpose, and is read as such.
struct HardeningFacts: Equatable {
    var release = ""
    /// By name, with dots.
    var sysctls: [String: String] = [:]
    /// Words of the kernel's command line, the last of each name.
    var parameters: [String: String] = [:]
    /// What is to be seen of parameters, by the name of the file that shows it.
    var effects: [String: String] = [:]
    /// Modules that modprobe does not load.
    var blocked: Set<String> = []
    /// Modules that are in the kernel: loaded, or a part of it.
    var present: Set<String> = []
    /// What files of the image say after the hardening's own, by name; the last one counts.
    var overrules: [String: (value: String, file: String)] = [:]
    /// Whether the answer has come to its end.
    var isWhole = false

    static func == (one: HardeningFacts, other: HardeningFacts) -> Bool {
        one.release == other.release && one.sysctls == other.sysctls
            && one.parameters == other.parameters && one.effects == other.effects
            && one.blocked == other.blocked && one.present == other.present
            && one.overrules.mapValues(\.file) == other.overrules.mapValues(\.file)
            && one.isWhole == other.isWhole
    }

    /// A shell command that reads everything at once; pure.
    ///
    /// One process for many files: each costs a guest without KVM a moment. And none of the shell's
    /// own `read`, which takes a byte at a time: the kernel gives of a number its first digit then.
    static let script: String = {
        func names(_ kind: HardeningSetting.Kind) -> String {
            HardeningSetting.table.filter { $0.kind == kind }.map { setting in
                kind == .sysctl ? setting.name.replacing(".", with: "/") : setting.name
            }.joined(separator: " ")
        }
        return """
            sed 's/^/release /' /proc/sys/kernel/osrelease
            sed 's/^/cmdline /' /proc/cmdline
            cd /proc/sys
            grep -sH '' \(names(.sysctl)) | sed 's/^/sysctl /'
            cd /sys
            grep -sH '' kernel/security/lockdown module/module/parameters/sig_enforce \
            module/page_alloc/parameters/shuffle | sed 's/^/effect /'
            grep -qw debugfs /proc/filesystems && echo effect debugfs:on || echo effect debugfs:off
            grep -qw pti /proc/cpuinfo && echo effect pti:on || echo effect pti:off
            /usr/sbin/modprobe --showconfig | grep '^install '
            for n in \(names(.module)); do [ ! -d module/$n ] || echo "present $n"; done
            cd /etc/sysctl.d
            grep -sH '' *.conf | sed 's/^/file /'
            echo end
            """
    }()

    /// Reads the answer; pure.
    ///
    /// What it does not know is left out.
    init(parsing text: String) {
        var files: [(file: String, name: String, value: String)] = []
        for line in text.split(whereSeparator: \.isNewline) {
            let words = line.split(whereSeparator: \.isWhitespace).map(String.init)
            let rest = words.dropFirst().joined(separator: " ")
            // A file and a line of it.
            let parts = rest.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            let (file, text) = (String(parts[0]), parts.count > 1 ? trimmed(parts[1]) : "")
            switch words.first {
            case "release": release = rest
            case "sysctl": sysctls[file.replacing("/", with: ".")] = text
            case "cmdline":
                for word in words.dropFirst() {
                    let parts = word.split(separator: "=", maxSplits: 1)
                    guard let name = parts.first else { continue }
                    parameters[String(name)] = parts.count > 1 ? String(parts[1]) : ""
                }
            case "effect": effects[file.split(separator: "/").last.map(String.init) ?? ""] = text
            case "install" where words.count > 2 && words[2].hasSuffix("/false"):
                blocked.insert(words[1].replacing("-", with: "_"))
            case "present" where words.count > 1: present.insert(words[1])
            case "file":
                guard let one = HardeningFacts.assignment(text) else { continue }
                files.append((file, one.name, one.value))
            case "end": isWhole = true
            default: break
            }
        }
        // As systemd-sysctl has it: by the names of the files, whatever order they were told in.
        let own = "90-hardening.conf"
        for file in Set(files.map(\.file)).sorted() where file > own {
            for one in files where one.file == file {
                overrules[one.name] = (one.value, "/etc/sysctl.d/" + file)
            }
        }
    }

    /// A line of a file of sysctl.d: `-` in front lets it fail, and a name may be a path.
    private static func assignment(_ line: String) -> (name: String, value: String)? {
        let parts = line.split(separator: "=", maxSplits: 1).map { part in
            part.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        }
        guard parts.count == 2, let first = parts[0].first, first != "#", first != ";" else {
            return nil
        }
        let name = first == "-" ? parts[0].dropFirst() : parts[0][...]
        return (String(name).replacing("/", with: "."), parts[1])
    }
}

private func trimmed(_ text: Substring) -> String {
    text.split(whereSeparator: \.isWhitespace).joined(separator: " ")
}
