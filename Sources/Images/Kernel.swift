// SPDX-License-Identifier: Apache-2.0
import Linux

/// Writes a cpio archive in the format `newc`, which the kernel unpacks as its initramfs; pure.
///
/// Archives may follow one another. Times, owners and inode numbers are the same on every run.
package struct CPIO {
    package private(set) var bytes: [UInt8] = []
    private var inode: UInt32 = 0

    package init() {}

    /// Adds a regular file.
    package mutating func file(_ path: String, mode: UInt32, _ content: [UInt8]) {
        entry(path, 0o100_000 | mode, content)
    }

    /// Adds a folder.
    package mutating func folder(_ path: String) { entry(path, 0o040_755, []) }

    /// Ends the archive.
    package consuming func finish() -> [UInt8] {
        entry("TRAILER!!!", 0, [])
        return bytes
    }

    private mutating func entry(_ path: String, _ mode: UInt32, _ content: [UInt8]) {
        inode += 1
        let name = Array(path.utf8) + [0]
        let fields: [UInt32] = [
            inode, mode, 0, 0, 1, 0, UInt32(content.count), 0, 0, 0, 0, UInt32(name.count), 0,
        ]
        bytes += Array("070701".utf8)
        for field in fields {
            let text = String(field, radix: 16)
            bytes += Array((String(repeating: "0", count: 8 - text.count) + text).utf8)
        }
        append(name)
        append(content)
    }

    private mutating func append(_ part: [UInt8]) {
        bytes += part
        bytes += [UInt8](repeating: 0, count: (4 - bytes.count % 4) % 4)
    }
}

/// What the initramfs needs from a kernel package.
package enum Kernel {
    /// What init needs before the root is there.
    package static let rootModules = [
        "virtio_pci", "virtio_blk", "virtio_net", "qemu_fw_cfg", "dm_verity", "erofs", "overlay",
    ]
    /// What every guest needs right after.
    ///
    /// They could be loaded from the root as the rest is: init does it without a process for each,
    /// and beside other work, which shortens a start by a second or more without KVM.
    package static let laterModules = [
        "virtio_console", "autofs4",
        // The guest's firewall; the power button, for a clean stop; entropy and memory of the host.
        "nf_tables", "nft_ct", "button", "evdev", "virtio_rng", "virtio_balloon",
    ]

    /// The list that init reads: file names in the order of loading, with a line `-` where the root
    /// can be put together; pure.
    package static func initialModules(dependencies: String) -> (paths: [String], list: String) {
        let first = loadOrder(of: rootModules, dependencies: dependencies)
        let all = loadOrder(of: rootModules + laterModules, dependencies: dependencies)
        let names = first.map(Files.name) + ["-"] + all.dropFirst(first.count).map(Files.name)
        return (all, names.map { $0 + "\n" }.joined())
    }

    /// The files of the modules and of all that they depend on, in the order of loading; pure.
    ///
    /// A name that `modules.dep` does not list is built into the kernel.
    package static func loadOrder(of names: [String], dependencies text: String) -> [String] {
        func name(_ path: Substring) -> String {
            let file = path.split(separator: "/").last ?? path
            return String(file.prefix { $0 != "." }).replacing("-", with: "_")
        }
        var table: [String: (path: String, needs: [Substring])] = [:]
        for line in text.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            guard let path = parts.first else { continue }
            let needs = parts.count > 1 ? parts[1].split(separator: " ") : []
            table[name(path)] = (String(path), needs)
        }
        var order: [String] = []
        func visit(_ module: String) {
            guard let entry = table[module], !order.contains(entry.path) else { return }
            // depmod lists the nearest first, and all of them.
            for needed in entry.needs.reversed() { visit(name(needed)) }
            order.append(entry.path)
        }
        for module in names { visit(module) }
        return order
    }

    /// How the ELF kernel is packed into a bzImage.
    package struct Payload: Equatable {
        package let range: Range<Int>
        /// The program that unpacks it, with its arguments, and the Debian package it comes with.
        package let program: String
        package let arguments: [String]
        package let package: String
    }

    /// Finds the packed ELF kernel in a bzImage; pure.
    ///
    /// The layout is in the kernel's
    /// Documentation/arch/x86/boot.rst.
    package static func payload(of image: [UInt8]) throws(ImageError) -> Payload {
        guard image.count > 0x250, image[0x202...0x205].elementsEqual(Array("HdrS".utf8)) else {
            throw .badKernel("it is not a bzImage")
        }
        func word(_ offset: Int) -> Int {
            (0..<4).reduce(0) { $0 | Int(image[offset + $1]) << (8 * $1) }
        }
        let setup = image[0x1f1] == 0 ? 4 : Int(image[0x1f1])
        let start = (setup + 1) * 512 + word(0x248)
        let end = start + word(0x24c)
        guard end > start + 4, end <= image.count else {
            throw .badKernel("its payload lies outside of the file")
        }
        // All but gzip are followed by four bytes with the unpacked size.
        switch (image[start], image[start + 1]) {
        case (0x02, 0x21):
            return Payload(
                range: start..<end - 4, program: "lz4", arguments: ["-dc"], package: "lz4")
        case (0x28, 0xb5):
            return Payload(
                range: start..<end - 4, program: "zstd", arguments: ["-dcq"], package: "zstd")
        case (0xfd, 0x37):
            return Payload(
                range: start..<end - 4, program: "xz", arguments: ["-dc"],
                package: "xz-utils")
        case (0x1f, 0x8b):
            return Payload(
                range: start..<end, program: "gzip", arguments: ["-dc"], package: "gzip")
        default:
            throw .badKernel("its compression is unknown")
        }
    }
}
