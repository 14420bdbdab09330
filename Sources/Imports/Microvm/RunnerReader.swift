// SPDX-License-Identifier: Apache-2.0
import Fleets

/// Takes the arguments of a hypervisor apart; the forms of each are in a file of their own.
struct RunnerReader {
    var draft: Draft
    let files: RunnerFiles
    /// Where relative paths start; nil when nobody knows.
    let base: String?
    let made: [String: Made]
    /// How many disks came before, by which microvm.nix names them in the guest.
    private var letters = 0

    init(draft: Draft, files: RunnerFiles, base: String?, made: [String: Made]) {
        (self.draft, self.files, self.base, self.made) = (draft, files, base, made)
    }

    mutating func read(_ command: MicrovmRunner.Command) throws(ImportError) {
        switch command.kind {
        case .qemu, .stratovirt: qemu(command.words)
        case .cloudHypervisor: cloudHypervisor(command.words)
        case .firecracker: try firecracker(command.words)
        case .crosvm: crosvm(command.words)
        case .kvmtool: kvmtool(command.words)
        case .alioth: alioth(command.words)
        case .vfkit: throw .unsuitable("vfkit runs on macOS, and Martlet on Linux")
        }
    }

    /// A path as the runner would see it; it stays relative where nobody knows from where.
    func absolute(_ path: String) -> String {
        guard !path.hasPrefix("/"), let base else { return path }
        let rest = path.hasPrefix("./") ? String(path.dropFirst(2)) : path
        return "\(base)/\(rest)"
    }

    // MARK: Disks and shares

    mutating func disk(
        _ path: String, serial: String? = nil, readOnly: Bool, isQCOW2: Bool = false
    ) {
        let letter = Character(Unicode.Scalar(UInt8(ascii: "a") + UInt8(min(letters, 25))))
        letters += 1
        // The store of NixOS: the image of Martlet stands in its place.
        if path.isEmpty || path.hasPrefix("/nix/store/") { return }
        let made = made[path]
        let table =
            made?.label.flatMap { files.mounts["/dev/disk/by-label/\($0)"] }
            ?? files.mounts["/dev/vd\(letter)"]
        let known = ["ext4", "xfs", "btrfs", "vfat"]
        let type = made?.filesystem ?? table?.type
        draft.volume(
            Draft.Volume(
                path: absolute(path), name: serial ?? made?.label, bytes: made?.bytes,
                isDevice: path.hasPrefix("/dev/"), isQCOW2: isQCOW2, readOnly: readOnly,
                mount: table?.folder,
                filesystem: type.flatMap { known.contains($0) ? $0 : nil }))
        if let type, !known.contains(type), table != nil {
            draft.note(
                "the file system '\(type)' of \(path)", "volumes have ext4, xfs, btrfs or vfat",
                "its content is copied into a new one")
        }
    }

    /// A share by 9p, whose folder stands in the command itself.
    mutating func share(source: String, tag: String, readOnly: Bool) {
        if isStore(source, tag) { return }
        draft.share(
            source: absolute(source), tag: tag, mount: files.mounts[tag]?.folder,
            readOnly: readOnly)
    }

    /// A share by virtiofs: the command has only the socket of the program that serves it.
    mutating func share(tag given: String?, socket: String) {
        // `NAME-virtiofs-TAG.sock` is what microvm.nix calls it.
        let tag =
            given ?? baseName(socket).split(separator: "-virtiofs-").last.map(String.init) ?? ""
        guard let source = files.source(tag: tag) else {
            if isStore("", tag) { return }
            return draft.note(
                "the share '\(tag)'", "the script names the socket \(socket), and no folder",
                "give the whole runner (the folder with `bin` and `share`), or add it to `shares`")
        }
        share(source: source, tag: tag, readOnly: false)
    }

    private func isStore(_ source: String, _ tag: String) -> Bool {
        source.hasPrefix("/nix/store") || tag == "ro-store" || tag == "store"
    }

    // MARK: Interfaces

    mutating func tap(_ name: String, mac: String?) {
        draft.privateNetwork("microvm", mac: mac)
        draft.note(
            "the tap \(name)", "what it is connected to is decided on the host, not in the runner",
            "its interface is on a network of Martlet's own, behind NAT; for a bridge of the host "
                + "write `networks: { microvm: { bridge: NAME } }`. Martlet makes a tap of another "
                + "name, so that rules for \(name) leave it alone")
    }

    mutating func bridge(_ name: String, mac: String?) { draft.bridge(name, mac: mac) }

    /// A macvtap, whose parent is in the package beside the script.
    mutating func macvtap(_ name: String?, mac: String?) {
        let known =
            name.flatMap { files.macvtaps[$0] } ?? mac.flatMap { files.macvtaps[$0.lowercased()] }
        if let known { return draft.macvtap(known.parent, mode: known.mode, mac: mac) }
        draft.note(
            "the macvtap interface \(name ?? mac ?? "")",
            "the script does not say what interface of the host it shares",
            "give the whole runner, or add `networks: { lan: { macvtap: NAME } }` and an interface "
                + "on it" + (mac.map { " with `mac: \"\($0)\"`" } ?? ""))
    }

    // MARK: Machine

    mutating func memory(_ text: String?) {
        guard let text else { return }
        draft.memory = hypervisorSize(text)
    }

    mutating func vsock(_ text: String?) { draft.vsock = text.flatMap(UInt32.init) }

    mutating func pci(_ address: String) {
        let last = address.split(separator: "/").last.map(String.init) ?? address
        draft.device("pci", last.split(separator: ":").count == 2 ? "0000:\(last)" : last)
    }

    mutating func balloon() {
        draft.note(
            "the balloon", "the runner does not say how far it may go",
            "write `memory: { min: …, max: … }`")
    }

    mutating func graphics() {
        draft.note("the screen", "VMs have none", "use `console` and `ssh`")
    }

    mutating func unknown(_ option: String, _ value: String? = nil) {
        let text = option + (value.map { " \($0)" } ?? "")
        draft.note("the argument \(text)", "a fleet file has no key for it")
    }

    /// Takes from the kernel's command line what its owner added; the rest belongs to NixOS, or is
    /// what the hypervisor needs.
    mutating func kernel(_ line: String?) {
        let own = [
            "earlyprintk", "console", "reboot", "panic", "8250.nr_uarts", "init", "root", "rdinit",
            "initrd", "regInfo", "loglevel", "lsm", "systemConfig", "edd", "noapic", "acpi",
            "i8042.noaux", "i8042.nomux", "i8042.nopnp", "i8042.dumbkbd", "net.ifnames", "quiet",
            "boot.shell_on_fail", "boot.panic_on_fail", "nohibernate", "rootfstype", "rw", "ro",
            "systemd.unit",
        ]
        var left: [String] = []
        for word in (line ?? "").split(separator: " ").map(String.init) {
            let name = String(word.prefix { $0 != "=" })
            if ["lsm", "net.ifnames", "systemd.unit", "loglevel"].contains(name) {
                left.append(word)
            }
            if !own.contains(name) { draft.kernelParameters.append(word) }
        }
        if !left.isEmpty {
            draft.note(
                "the kernel parameters \(left.joined(separator: " "))",
                "they are NixOS's own, or Martlet sets them", "`kernel.parameters` adds others")
        }
    }
}
