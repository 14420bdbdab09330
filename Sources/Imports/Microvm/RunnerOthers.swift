// SPDX-License-Identifier: Apache-2.0
import Fleets

extension RunnerReader {
    /// Everything is in a JSON file that the command names.
    mutating func firecracker(_ words: [String]) throws(ImportError) {
        let options = OptionReader(words, flags: ["enable-pci", "no-seccomp", "boot-timer"])
        guard let path = options["config-file"] else {
            throw .malformed("firecracker is started without --config-file")
        }
        guard let bytes = draft.host.file(absolute(path)) else {
            throw .missing("the configuration of firecracker, \(path), cannot be read")
        }
        let config: JSONValue
        do {
            config = try JSONValue(parsing: bytes)
        } catch {
            throw .malformed("\(path): \(error.description)")
        }
        let machine = config["machine-config"]
        draft.vcpu = machine?["vcpu_count"]?.integer.flatMap(Int.init(exactly:))
        memory(machine?["mem_size_mib"]?.integer.map { "\($0)" })
        kernel(config["boot-source"]?["boot_args"]?.string)
        for drive in config["drives"]?.elements ?? [] {
            disk(
                drive["path_on_host"]?.string ?? "",
                readOnly: drive["is_read_only"]?.bool == true)
        }
        for net in config["network-interfaces"]?.elements ?? [] {
            tap(net["host_dev_name"]?.string ?? "?", mac: net["guest_mac"]?.string)
            if net["rx_rate_limiter"] != nil || net["tx_rate_limiter"] != nil {
                draft.note("rate limits of an interface", "a VM has one limit", "`limits.network`")
            }
        }
        if let cid = config["vsock"]?["guest_cid"]?.integer, cid != 3 { vsock("\(cid)") }
        if config["balloon"].map({ $0 != .null }) == true { balloon() }
        let known = [
            "boot-source", "machine-config", "drives", "network-interfaces", "vsock", "balloon",
            "logger", "metrics", "entropy",
        ]
        for member in config.members where !known.contains(member.key) {
            unknown("'\(member.key)' of firecracker")
        }
    }

    mutating func crosvm(_ words: [String]) {
        let flags: Set = [
            "no-balloon", "balloon-page-reporting", "seccomp-log-failures", "disable-sandbox",
        ]
        let options = OptionReader(words, flags: flags)
        memory(options["m"] ?? options["mem"])
        draft.vcpu = (options["c"] ?? options["cpus"]).flatMap(Int.init)
        kernel(options["p"] ?? options["params"])
        for text in options.all("r", "root") { disk(text, readOnly: true) }
        for block in options.all("block", "b").map({ OptionList($0) }) {
            disk(block["path"] ?? block.kind, serial: block["id"], readOnly: block.isOn("ro"))
        }
        for user in options.all("vhost-user").map({ OptionList($0) }) where user["type"] == "fs" {
            share(tag: nil, socket: user["socket"] ?? "?")
        }
        for text in options.all("shared-dir") {
            let parts = text.split(separator: ":").map(String.init)
            if parts.count >= 2 { share(source: parts[0], tag: parts[1], readOnly: false) }
        }
        for net in options.all("net").map({ OptionList($0) }) {
            if net["tap-fd"] != nil {
                macvtap(nil, mac: net["mac"])
            } else {
                tap(net["tap-name"] ?? "?", mac: net["mac"])
            }
        }
        for text in options.all("vfio") { pci(OptionList(text).kind) }
        vsock(options["vsock"] ?? options["cid"])
        if options.has("balloon-page-reporting") { balloon() }
        if options.has("vhost-user-gpu") || options.has("gpu") { graphics() }
        let known: Set = [
            "m", "mem", "c", "cpus", "p", "params", "r", "root", "block", "b", "vhost-user", "s",
            "shared-dir", "net", "vfio", "vsock", "cid", "vhost-user-gpu", "gpu", "serial",
            "initrd", "i", "socket", "pivot-root",
        ]
        unknown(options, except: known.union(flags))
    }

    mutating func kvmtool(_ words: [String]) {
        let flags: Set = ["rng", "balloon"]
        let options = OptionReader(words, flags: flags)
        memory(options["m"])
        draft.vcpu = options["c"].flatMap(Int.init)
        kernel(options["p"])
        for disk in options.all("d", "disk").map({ OptionList($0) }) {
            let isReadOnly = disk.pairs.contains { $0.key == "ro" }
            if disk.kind == "image" {
                // What some versions of microvm.nix write there, whatever the volume is called.
                draft.note(
                    "a volume", "the runner does not say where it lies", "add it to `volumes`")
            } else {
                self.disk(disk.kind, readOnly: isReadOnly)
            }
        }
        for text in options.all("9p") {
            let parts = text.split(separator: ",").map(String.init)
            if parts.count == 2 { share(source: parts[0], tag: parts[1], readOnly: false) }
        }
        for net in options.all("n", "network").map({ OptionList($0) }) {
            if net["mode"] == "user" {
                draft.userInterface(mac: net["guest_mac"])
            } else {
                tap(net["tapif"] ?? "?", mac: net["guest_mac"])
            }
        }
        for address in options.all("vfio-pci") { pci(address) }
        vsock(options["vsock"])
        if options.has("balloon") { balloon() }
        let known: Set = [
            "name", "m", "c", "p", "d", "disk", "9p", "n", "network", "vfio-pci", "vsock", "k", "i",
            "console", "kernel", "initrd",
        ]
        unknown(options, except: known.union(flags))
    }

    mutating func alioth(_ words: [String]) {
        let flags: Set = ["entropy", "pvpanic"]
        let options = OptionReader(words, flags: flags)
        memory(options["memory"].flatMap { OptionList($0)["size"] } ?? options["mem-size"])
        draft.vcpu = options["num-cpu"].flatMap(Int.init)
        kernel(options["c"])
        for disk in options.all("blk").map({ OptionList($0) }) {
            self.disk(
                disk["path"] ?? disk.kind,
                readOnly: disk.isOn("readonly") || disk.isOn("readOnly"))
        }
        for fs in options.all("fs").map({ OptionList($0) }) {
            share(tag: fs["tag"], socket: fs["socket"] ?? "?")
        }
        for net in options.all("net").map({ OptionList($0) }) {
            tap(net["if_name"] ?? net["if"] ?? "?", mac: net["mac"])
        }
        vsock(options["vsock"].flatMap { OptionList($0)["cid"] })
        let known: Set = [
            "memory", "mem-size", "num-cpu", "c", "k", "i", "blk", "fs", "net", "vsock",
        ]
        unknown(options, except: known.union(flags))
    }

    private mutating func unknown(_ options: OptionReader, except known: Set<String>) {
        for (name, values) in options.options where !known.contains(name) {
            unknown(name.count == 1 ? "-\(name)" : "--\(name)", values.first)
        }
    }
}
