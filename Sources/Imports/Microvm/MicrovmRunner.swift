// SPDX-License-Identifier: Apache-2.0
import Fleets

/// A runner of microvm.nix, read from its script; the script is never run.
package enum MicrovmRunner {
    /// Where a runner is: its script, and what lies around it.
    package struct Place {
        /// For messages.
        package var path: String
        package var script: [UInt8]
        /// The package that holds `bin` and `share`; nil for a script alone.
        package var package: String?
        /// The folder that the runner runs in, which relative paths start at; nil when not known.
        package var base: String?

        package init(
            path: String, script: [UInt8], package: String? = nil, base: String? = nil
        ) {
            (self.path, self.script, self.package, self.base) = (path, script, package, base)
        }
    }

    /// Makes an entry of what a runner would run.
    package static func read(
        _ place: Place, host: HostView = HostView()
    ) throws(ImportError) -> Imported {
        let script = try ShellScript(place.script)
        guard let command = Command(script) else {
            throw .malformed("it runs no hypervisor that microvm.nix knows; is this microvm-run?")
        }
        let name = command.name ?? place.base.map(baseName) ?? baseName(place.path)
        var draft = Draft(
            name, origin: "the microvm.nix runner of '\(name)' (\(command.kind.rawValue))",
            host: host)
        draft.noteWhatStays(command)
        var reader = RunnerReader(
            draft: draft, files: RunnerFiles(place.package, host: host), base: place.base,
            made: Made.all(script))
        try reader.read(command)
        return try reader.draft.result()
    }
}

/// The programs that a runner of microvm.nix may end in.
enum RunnerKind: String {
    case qemu, stratovirt, crosvm, kvmtool, alioth, firecracker, vfkit
    case cloudHypervisor = "cloud-hypervisor"

    init?(program: String) {
        let name = program.split(separator: "/").last.map(String.init) ?? program
        switch name {
        case _ where name.hasPrefix("qemu-system-"): self = .qemu
        case "qemu-kvm": self = .qemu
        case "lkvm": self = .kvmtool
        default:
            guard let kind = RunnerKind(rawValue: name), kind != .qemu, kind != .kvmtool else {
                return nil
            }
            self = kind
        }
    }
}

extension MicrovmRunner {
    /// The line of a script that becomes the hypervisor.
    struct Command {
        let kind: RunnerKind
        /// The name that `exec -a` gives the process, without what microvm.nix puts before it.
        var name: String?
        /// What follows the program; what the script computes is left out and listed apart.
        var words: [String]
        var computed: [String]

        /// The last `exec` of a hypervisor; the script may start others before.
        init?(_ script: ShellScript) {
            for command in script.commands.reversed() {
                if let found = Command(command) {
                    self = found
                    return
                }
            }
            return nil
        }

        private init?(_ command: [ShellWord]) {
            guard let start = command.firstIndex(where: { $0.text == "exec" }), start < 4 else {
                return nil
            }
            var rest = command[(start + 1)...]
            var name: String?
            while let option = rest.first, option.text.hasPrefix("-") {
                rest.removeFirst()
                if option.text == "-a", let word = rest.popFirst(), !word.isComputed {
                    name = word.text
                }
            }
            // stratovirt wants a terminal, which `unbuffer` makes.
            if rest.first?.text.hasSuffix("/unbuffer") == true { rest.removeFirst() }
            guard let program = rest.popFirst(), let kind = RunnerKind(program: program.text) else {
                return nil
            }
            self.kind = kind
            let prefix = "microvm@"
            // What follows an option that a script computes is that option's value still.
            words = rest.map { $0.isComputed ? "" : $0.text }
            computed = rest.filter(\.isComputed).map(\.text)
            let option = words.firstIndex { $0 == "-name" || $0 == "--name" }.map { $0 + 1 }
            self.name =
                name.map { $0.hasPrefix(prefix) ? String($0.dropFirst(prefix.count)) : $0 }
                ?? option.flatMap { words.indices.contains($0) ? words[$0] : nil }
            if self.name?.isEmpty == true { self.name = nil }
        }
    }
}

/// A disk image that the script makes when it is missing: how large it is, and what is in it.
struct Made {
    var bytes: UInt64?
    var filesystem: String?
    var label: String?

    /// By path, from the lines `truncate -s 64M IMAGE` and `mkfs.ext4 -L label IMAGE`.
    static func all(_ script: ShellScript) -> [String: Made] {
        var all: [String: Made] = [:]
        for command in script.commands {
            let keywords = ["then", "do", "else", "{", "!", "if"]
            let words = command.drop { keywords.contains($0.text) }
            guard let program = words.first?.text.split(separator: "/").last,
                let image = words.last, words.count > 2, !image.isComputed
            else { continue }
            let texts = words.map(\.text)
            func value(_ options: String...) -> String? {
                texts.firstIndex { options.contains($0) }.map { texts.index(after: $0) }
                    .flatMap { $0 < texts.endIndex - 1 ? texts[$0] : nil }
            }
            if program == "truncate" {
                all[image.text, default: Made()].bytes = value("-s").flatMap {
                    hypervisorSize($0, unit: 1)
                }
            } else if program.hasPrefix("mkfs.") {
                all[image.text, default: Made()].filesystem = String(program.dropFirst(5))
                all[image.text, default: Made()].label = value("-L", "-n")
            }
        }
        return all
    }
}

extension Draft {
    fileprivate mutating func noteWhatStays(_ command: MicrovmRunner.Command) {
        note(
            "the NixOS system", "a guest starts from a Debian image that Martlet builds",
            "name its Debian packages in `image: { packages: […] }` and write its settings as "
                + "`files`; docs/import.md shows how")
        if command.kind != .qemu {
            note(
                "the hypervisor \(command.kind.rawValue)", "the entry leaves the choice to Martlet",
                ["cloud-hypervisor", "firecracker"].contains(command.kind.rawValue)
                    ? "`hypervisor: \(command.kind.rawValue)` asks for it" : nil)
        }
        for word in command.computed {
            note(
                "the argument \(word)", "the script computes it, and an import runs nothing",
                "look at what it is, and write the key that says the same")
        }
    }
}
