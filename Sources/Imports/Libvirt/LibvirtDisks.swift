// SPDX-License-Identifier: Apache-2.0
import Fleets

extension Draft {
    /// The system disk as a note, further disks as volumes, and shared folders.
    mutating func disks(_ domain: Element) {
        guard let devices = domain.at("devices") else { return }
        var disks: [Element] = []
        for disk in devices.all("disk") {
            let kind = disk["device"] ?? "disk"
            if kind == "disk" || kind == "lun" { disks.append(disk) } else { removable(disk, kind) }
        }
        let order = { (disk: Element) in disk.at("boot")?["order"].flatMap(Int.init) ?? .max }
        let first = disks.indices.min { (order(disks[$0]), $0) < (order(disks[$1]), $1) }
        for (index, disk) in disks.enumerated() {
            if index == first { systemDisk(disk) } else { furtherDisk(disk) }
        }
        for share in devices.all("filesystem") { filesystem(share) }
        speed(of: disks)
    }

    /// Where the content of a disk lies, for people and as a path if it is one of this host.
    private func source(_ disk: Element) -> (text: String, path: String?) {
        guard let source = disk.at("source") else { return ("an empty disk", nil) }
        if let path = source["file"] ?? source["dev"] { return (path, path) }
        if let pool = source["pool"], let volume = source["volume"] {
            return ("the volume \(volume) of the pool \(pool)", nil)
        }
        if let address = source["protocol"] {
            return ("\(address):\(source["name"] ?? "")", nil)
        }
        return (source["dir"] ?? "a disk of the type '\(disk["type"] ?? "")'", nil)
    }

    private mutating func removable(_ disk: Element, _ kind: String) {
        guard disk.at("source") != nil else { return }
        let place = source(disk).text
        let isSeed = ["seed", "cidata", "cloud"].contains { place.lowercased().contains($0) }
        note(
            "the \(kind) \(place)", "a VM has no such drive",
            isSeed
                ? "what cloud-init got from it is set by `ssh`, `users` and `timezone`"
                : "make it a volume, or share the folder that holds its files")
    }

    private mutating func systemDisk(_ disk: Element) {
        let place = source(disk)
        note(
            "the system disk \(place.text)",
            "a guest starts from an image that Martlet builds, read-only and the same for all",
            "name its Debian packages in `image: { packages: […] }`, and copy its data; "
                + "docs/import.md shows how")
        if let path = place.path, let found = host.disk(path) {
            let size = ByteSize(bytes: wholeMebibytes(found.bytes))
            if size > .gibibytes(8), size.bytes <= 1 << 60 { self.disk = size }
        }
        for folder in ["/var", "/home"] {
            move(place.text, to: folder, copying(place.path ?? "it", folder, to: folder))
        }
    }

    private mutating func furtherDisk(_ disk: Element) {
        let place = source(disk)
        let target = disk.at("target")?["dev"] ?? "disk"
        guard let path = place.path, path.hasPrefix("/") else {
            return note(
                "the disk \(target) (\(place.text))",
                "a volume is a file or block device of the host",
                "attach it to the host and name it as `device`, or declare a volume with `size`")
        }
        let isDevice = disk["type"] == "block"
        if isDevice, !path.hasPrefix("/dev/") {
            return note("the disk \(target) (\(path))", "block devices lie below /dev")
        }
        if disk.at("shareable") != nil {
            note("sharing the disk \(path)", "two writers would destroy its contents")
        }
        let driver = disk.at("driver")?["type"] ?? "raw"
        if !["raw", "qcow2"].contains(driver) {
            note(
                "the format '\(driver)' of \(path)", "volumes are qcow2 or raw",
                "its volume is qcow2; the content is copied")
        }
        let serial = disk.at("serial").flatMap { $0.text.isEmpty ? nil : $0.text }
        volume(
            Volume(
                path: path, name: serial, isDevice: isDevice,
                isQCOW2: !isDevice && driver != "raw", readOnly: disk.at("readonly") != nil))
    }

    private mutating func filesystem(_ share: Element) {
        let tag = share.at("target")?["dir"] ?? ""
        guard (share["type"] ?? "mount") == "mount", let source = share.at("source")?["dir"] else {
            return note(
                "the file system '\(tag)'", "only folders of the host can be shared", "use a volume"
            )
        }
        if let mode = share["accessmode"], mode == "mapped" || mode == "squash" {
            note(
                "the access mode '\(mode)' of the share '\(tag)'", "owners are those of the host",
                mode == "squash" ? "`ids: squash` is nearest to it" : "see `ids` in docs/shares.md")
        }
        self.share(source: source, tag: tag, mount: nil, readOnly: share.at("readonly") != nil)
    }

    /// The limit of one disk is that of the VM; of several it cannot be known what is meant.
    private mutating func speed(of disks: [Element]) {
        let tuned = disks.compactMap { $0.at("iotune") }.filter { !$0.children.isEmpty }
        guard let first = tuned.first else { return }
        let names = ["total_bytes_sec", "read_bytes_sec", "write_bytes_sec"]
        let rates = names.compactMap { first.at($0).flatMap { UInt64($0.text) } }
        let rate = rates.max().flatMap { ByteRate("\($0)B/s") }
        if tuned.count == 1, disks.count == 1, let rate {
            limits.append(.init("io", .string(rate.description)))
            if first.children.count == 1, first.children[0].name == names[0] { return }
        }
        note(
            "limits of single disks (iotune)", "a VM has one limit for all of its disks, in bytes",
            "set `limits.io`")
    }
}
