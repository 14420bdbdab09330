// SPDX-License-Identifier: Apache-2.0
import Fleets

private let flags: Set<String> = ["watchdog", "v", "vv", "vvv", "pvpanic"]

/// Options that take every word up to the next option.
private let lists: Set<String> = [
    "disk", "fs", "net", "device", "pmem", "vdpa", "user-device", "numa", "memory-zone", "platform",
    "vsock",
]

/// Options that are read below, or that say nothing a fleet file could hold.
private let known: Set<String> = flags.union([
    "cpus", "memory", "kernel", "initramfs", "cmdline", "platform", "disk", "fs", "net", "device",
    "vsock", "balloon", "gpu", "seccomp", "console", "serial", "api-socket", "rng", "log-file",
    "landlock", "landlock-rules",
])

extension RunnerReader {
    mutating func cloudHypervisor(_ words: [String]) {
        let options = OptionReader(words, flags: flags, lists: lists)
        let cpus = options["cpus"].map { OptionList($0) }
        draft.vcpu = (cpus?["boot"] ?? cpus?.kind).flatMap(Int.init)
        if let most = cpus?["max"].flatMap(Int.init), most != draft.vcpu {
            draft.note("CPUs to plug in later", "CPUs are not plugged in", "raise `vcpu`")
        }
        memory(options["memory"].map { OptionList($0) })
        kernel(options["cmdline"])
        for platform in options.all("platform") { self.platform(OptionList(platform)) }
        for disk in options.all("disk").map({ OptionList($0) }) {
            self.disk(
                disk["path"] ?? "", serial: disk["serial"], readOnly: disk.isOn("readonly"),
                isQCOW2: disk["image_type"] == "qcow2")
        }
        for fs in options.all("fs").map({ OptionList($0) }) {
            share(tag: fs["tag"], socket: fs["socket"] ?? "?")
        }
        for net in options.all("net").map({ OptionList($0) }) {
            if net["fd"] != nil {
                macvtap(nil, mac: net["mac"])
            } else {
                tap(net["tap"] ?? "?", mac: net["mac"])
            }
        }
        for device in options.all("device").map({ OptionList($0) }) {
            if let path = device["path"] { pci(path) }
        }
        // 3 is what microvm.nix writes where nobody has asked for a number: each VM has its own
        // there, and only one of a host can have it here.
        if let cid = options["vsock"].flatMap({ OptionList($0)["cid"] }), cid != "3" { vsock(cid) }
        if options.has("balloon") { balloon() }
        if options.has("gpu") { graphics() }
        for (name, values) in options.options where !known.contains(name) {
            unknown("--\(name)", values.first)
        }
    }

    private mutating func memory(_ list: OptionList?) {
        guard let list else { return }
        memory(list["size"] ?? list.kind)
        if list.isOn("hugepages") {
            draft.note("huge pages", "the memory of a VM is ordinary memory of the host")
        }
        if let more = list["hotplug_size"] {
            draft.note(
                "\(more) of memory to plug in later", "memory is not plugged in", "raise `memory`")
        }
    }

    private mutating func platform(_ list: OptionList) {
        if let uuid = list["uuid"] { draft.uuid = uuid }
        guard let strings = list["oem_strings"] else { return }
        let inner = strings.hasPrefix("[") ? String(strings.dropFirst().dropLast()) : strings
        for text in inner.split(separator: ",") { draft.oemString(String(text)) }
    }
}
