// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import Images

@Suite struct KernelTests {
    @Test func loadOrderFollowsDependencies() {
        let text = """
            kernel/drivers/virtio/virtio_ring.ko:
            kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
            kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
            kernel/net/core/failover.ko:
            kernel/drivers/net/net-failover.ko.xz: kernel/net/core/failover.ko
            kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net-failover.ko.xz kernel/net/core/failover.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
            """
        // ext4 is built in: it is not listed.
        let order = Kernel.loadOrder(
            of: ["virtio_blk", "ext4", "virtio_net"], dependencies: text)
        #expect(
            order == [
                "kernel/drivers/virtio/virtio_ring.ko", "kernel/drivers/virtio/virtio.ko",
                "kernel/drivers/block/virtio_blk.ko", "kernel/net/core/failover.ko",
                "kernel/drivers/net/net-failover.ko.xz", "kernel/drivers/net/virtio_net.ko",
            ])
    }

    @Test func theListSaysFromWhereOnTheRootNeedsNothing() {
        let text = """
            kernel/drivers/virtio/virtio_ring.ko:
            kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_ring.ko
            kernel/fs/autofs/autofs4.ko:
            kernel/drivers/char/virtio_console.ko: kernel/drivers/virtio/virtio_ring.ko
            """
        let modules = Kernel.initialModules(dependencies: text)
        #expect(
            modules.list == "virtio_ring.ko\nvirtio_pci.ko\n-\nvirtio_console.ko\nautofs4.ko\n")
        #expect(modules.paths.count == 4)
    }

    @Test func archive() {
        var archive = CPIO()
        archive.folder("m")
        archive.file("m/a", mode: 0o644, Array("hello".utf8))
        let text = String(decoding: archive.finish(), as: UTF8.self)
        // Magic, inode, mode, uid, gid, links, mtime, size, device numbers, length of the name.
        func header(_ inode: Int, _ mode: String, size: Int, name: String) -> String {
            let zero = "00000000"
            return "0707010000000\(inode)\(mode)\(zero)\(zero)00000001\(zero)0000000\(size)"
                + "\(zero)\(zero)\(zero)\(zero)0000000\(name)\(zero)"
        }
        #expect(
            text == header(1, "000041ed", size: 0, name: "2") + "m\0"
                + header(2, "000081a4", size: 5, name: "4") + "m/a\0\0\0" + "hello\0\0\0"
                + header(3, "00000000", size: 0, name: "b") + "TRAILER!!!\0\0\0\0")
    }

    private func image(magic: [UInt8], offset: UInt8 = 0x40) -> [UInt8] {
        var image = [UInt8](repeating: 0, count: 2048)
        image.replaceSubrange(0x202..<0x206, with: Array("HdrS".utf8))
        image[0x1f1] = 1
        image[0x248] = offset
        image[0x24c] = 100
        image.replaceSubrange(1024 + Int(offset)..<1024 + Int(offset) + magic.count, with: magic)
        return image
    }

    @Test(arguments: [
        ([0x02, 0x21, 0x4c, 0x18], "lz4", 96), ([0x28, 0xb5, 0x2f, 0xfd], "zstd", 96),
        ([0xfd, 0x37, 0x7a, 0x58], "xz", 96), ([0x1f, 0x8b, 0x08, 0x00], "gzip", 100),
    ])
    func payload(magic: [UInt8], program: String, length: Int) throws {
        let payload = try Kernel.payload(of: image(magic: magic))
        #expect(payload.program == program)
        #expect(payload.range == 1088..<1088 + length)
    }

    @Test func refusesWhatIsNoKernel() {
        #expect(throws: ImageError.badKernel("it is not a bzImage")) {
            try Kernel.payload(of: Array(repeating: 0, count: 4096))
        }
        #expect(throws: ImageError.badKernel("its compression is unknown")) {
            try Kernel.payload(of: image(magic: [1, 2, 3, 4]))
        }
        var cut = image(magic: [0x02, 0x21])
        cut.removeLast(1000)
        #expect(throws: ImageError.badKernel("its payload lies outside of the file")) {
            try Kernel.payload(of: cut)
        }
    }
}
